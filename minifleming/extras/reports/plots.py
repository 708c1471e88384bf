"""Plots of an evaluation as SVG: the ablation, reliability, accuracy by hops and rarity.

Each function returns the text of one <svg>, equal for equal figures, or "" where there is nothing to draw or no
matplotlib, the [plot] extra.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence

BLUE, RED, GREY = "#336699", "#c0504d", "#999999"
COLOURS = (BLUE, "#e0a030", "#4c9f70", RED)


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def ablation(rows: Sequence[dict], titles: dict[str, str]) -> str:
    """Strict accuracy of each variant with its interval, a line a split. ``rows`` as tables.ablation gives them."""
    def draw(axes) -> None:
        ax, shown = axes[0], [variant for variant in titles if any(row["variant"] == variant for row in rows)]
        splits = list(dict.fromkeys(row["split"] for row in rows))
        for number, split in enumerate(splits):
            mine = [row for row in rows if row["split"] == split]
            x = [shown.index(row["variant"]) + 0.06 * (number - (len(splits) - 1) / 2) for row in mine]
            _intervals(ax, x, mine, COLOURS[number % len(COLOURS)], f"{split} (n = {mine[0]['n']})", line="-")
        ax.set_xticks(range(len(shown)), [titles[variant] for variant in shown])
        ax.set_ylabel("strict accuracy, %")
        ax.set_ylim(0, 100)
        ax.legend(frameon=False, loc="upper left")

    return _svg(draw, 1, (7, 3.6)) if rows else ""


def reliability(rows: Sequence[dict], title: str) -> str:
    """Share of votes against what the winner earned, bin by bin, and how many items each bin has.

    ``rows`` as calibration.reliability gives them.
    """
    filled = [row for row in rows if row["n"]]

    def draw(axes) -> None:
        ax = axes[0]
        ax.plot([0, 100], [0, 100], color=GREY, linewidth=0.8, linestyle="--")
        ax.plot([100 * row["confidence"] for row in filled], [100 * row["accuracy"] for row in filled], color=BLUE,
                marker="o")
        ax.set(xlabel="share of votes, %", ylabel="accuracy, %", xlim=(0, 102), ylim=(0, 102))
        ax.set_title(title, loc="left")
        axes[1].bar([100 * (row["low"] + row["high"]) / 2 for row in rows], [row["n"] for row in rows],
                    width=[100 * (row["high"] - row["low"]) * 0.9 for row in rows], color=BLUE)
        axes[1].set(xlabel="share of votes, %", ylabel="items", xlim=(0, 102))

    return _svg(draw, 2, (8, 3.4)) if filled else ""


def by_slice(rows: Sequence[dict], dimensions: Sequence[str] = ("hops", "rarity")) -> str:
    """Accuracy with its interval by slice, a panel a dimension; ``rows`` as slices.slices gives them.

    A dimension with fewer than two slices of the least size is not drawn.
    """
    parts = {d: [row for row in rows if row["dimension"] == d and "accuracy" in row and row["slice"] != "none"]
             for d in dimensions}
    parts = {dimension: found for dimension, found in parts.items() if len(found) > 1}

    def draw(axes) -> None:
        for ax, (dimension, found) in zip(axes, parts.items()):
            _intervals(ax, list(range(len(found))), found, BLUE)
            ax.set_xticks(range(len(found)), [f"{row['slice'].split(' of ')[0]}\n{row['n']}" for row in found])
            ax.set(xlabel=LABELS.get(dimension, dimension), ylabel="strict accuracy, %", ylim=(0, 100))

    return _svg(draw, len(parts), (4.2 * len(parts), 3.2)) if parts else ""


LABELS = {"hops": "hops (below: items)", "rarity": "rarity, tenths from common to rare (below: items)"}


def _intervals(ax, x: Sequence[float], rows: Sequence[dict], colour: str, label: str = "", line: str = "") -> None:
    y = [100 * row["accuracy"] for row in rows]
    below = [100 * (row["accuracy"] - row["ci_low"]) for row in rows]
    above = [100 * (row["ci_high"] - row["accuracy"]) for row in rows]
    ax.errorbar(x, y, yerr=[below, above], color=colour, marker="o", linestyle=line or "none", capsize=3,
                label=label or None)


def _svg(draw: Callable, panels: int, size: tuple[float, float]) -> str:
    if not available():
        return ""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9, "svg.hashsalt": "minifleming", "axes.spines.top": False,
                     "axes.spines.right": False}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots(1, panels, squeeze=False)[0])
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
