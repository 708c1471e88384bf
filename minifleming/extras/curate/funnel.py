"""The funnel of a curation as an SVG: the items after each step. matplotlib is optional: the [plot] extra."""

from __future__ import annotations

import importlib.util
import io

from minifleming.extras.curate.steps import Stage

KEPT, DROPPED, QUARANTINED = "#336699", "#c0504d", "#888888"


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def funnel(stages: list[Stage]) -> str:
    """One bar a step: what stays, what waits in quarantine, what is dropped. The same bytes for the same numbers."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9, "svg.hashsalt": "minifleming", "axes.spines.top": False,
                     "axes.spines.right": False}):
        figure = Figure(figsize=(7, 0.8 + 0.4 * len(stages)), layout="constrained")
        draw(figure.subplots(), stages)
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def draw(ax, stages: list[Stage]) -> None:
    names = [stage.step for stage in stages]
    left = [0] * len(stages)
    for label, colour, sizes in (("kept", KEPT, [s.kept for s in stages]),
                                 ("quarantined", QUARANTINED, [s.quarantined for s in stages]),
                                 ("dropped", DROPPED, [s.dropped for s in stages])):
        ax.barh(names, sizes, left=left, color=colour, label=label)
        left = [a + b for a, b in zip(left, sizes)]
    for place, stage in enumerate(stages):
        ax.text(stage.came, place, f" {stage.kept}", va="center")
    ax.invert_yaxis()
    ax.set_xlabel("items")
    ax.margins(x=0.12)
    ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
