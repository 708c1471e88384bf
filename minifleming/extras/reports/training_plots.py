"""The curves of a run as one SVG, for the page of report.py. matplotlib is optional: the [plot] extra."""

from __future__ import annotations

import importlib.util
import io

TIERS = {"easy": "#4c9f70", "moderate": "#e0a030", "difficult": "#c0504d"}


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def curves(steps: list[dict], rounds: list[dict], chains: list[dict]) -> str:
    """Eight panels; grey lines are mining rounds. ``chains``: counts of how right answers are carried."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9, "svg.hashsalt": "minifleming", "axes.spines.top": False,
                     "axes.spines.right": False}):
        figure = Figure(figsize=(10, 11), layout="constrained")
        axes = figure.subplots(4, 2).flatten()
        draw_steps(axes[:6], steps)
        draw_pools(axes[6], rounds)
        draw_chains(axes[7], chains)
        for ax in [*axes[:6], axes[7]]:
            ax.set_xlabel("step")
            for mark in rounds:
                ax.axvline(mark["step"], color="#bbb", linewidth=0.8)
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def draw_steps(axes, steps: list[dict]) -> None:
    x = [m["step"] for m in steps]
    lines = [
        ("reward", [("mean", "reward", "#336699")]),
        ("accuracy, by tier", [(tier, f"accuracy_{tier}", colour) for tier, colour in TIERS.items()]),
        ("groups of constant reward", [("constant", "zero_variance_groups", "#336699"), ("all right", "groups_all_correct", "#4c9f70"),
                                       ("all wrong", "groups_all_wrong", "#c0504d")]),
        ("surprise per token, nats", [("entropy", "sampled_entropy", "#336699")]),
        ("tokens", [("mean", "completion_tokens", "#336699"), ("longest", "completion_tokens_max", "#bbbbbb")]),
        ("sampler against trainer, log-probability", [("largest", "logprob_diff_max", "#c0504d"),
                                                      ("mean", "logprob_diff_mean", "#336699")]),
    ]
    for ax, (title, shown) in zip(axes, lines):
        ax.set_title(title, loc="left")
        for label, name, colour in shown:
            points = [(s, m[name]) for s, m in zip(x, steps) if m.get(name) is not None]
            if points:
                ax.plot(*zip(*points), color=colour, label=label, linewidth=1)
        if len(shown) > 1 and ax.lines:
            ax.legend(frameon=False)
    axes[5].set_yscale("symlog", linthresh=1e-8)


def draw_pools(ax, rounds: list[dict]) -> None:
    ax.set_title("items by mined class", loc="left")
    ax.set_xlabel("mining round")
    bottom = [0] * len(rounds)
    for kind, colour in (("right", "#4c9f70"), ("middle", "#e0a030"), ("wrong", "#c0504d"), ("quarantine", "#888888")):
        sizes = [r[kind] for r in rounds]
        ax.bar([str(r["round"]) for r in rounds], sizes, bottom=bottom, color=colour, label=kind)
        bottom = [b + s for b, s in zip(bottom, sizes)]
    if rounds:
        ax.legend(loc="upper left", framealpha=1)


def draw_chains(ax, chains: list[dict]) -> None:
    ax.set_title("right answers carried by a chain of edges", loc="left")
    ax.set_ylim(0, 1)
    if chains:
        ax.plot([c["step"] for c in chains], [c.get("chain", 0) / c["right"] for c in chains], marker="o",
                color="#336699")
