"""Plots as SVG: the ablation, reliability, accuracy by slices, and the curves of a training run.

Each function returns the text of one <svg>, equal for equal figures, or "" if there is nothing to draw
or matplotlib (the [plot] extra) is not installed.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence

BLUE, YELLOW, GREEN, RED, GREY = "#336699", "#e0a030", "#4c9f70", "#c0504d", "#999999"
COLOURS = (BLUE, YELLOW, GREEN, RED)
SLICE_LABELS = {"hops": "hops (below: items)",
                "rarity": "rarity, tenths from common to rare (below: items)"}
STEP_PANELS = [  # title, and label, metric and colour of each line
    ("reward", [("mean", "reward", BLUE)]),
    ("accuracy, by tier", [("easy", "accuracy_easy", GREEN), ("moderate", "accuracy_moderate", YELLOW),
                           ("difficult", "accuracy_difficult", RED)]),
    ("groups of constant reward", [("constant", "zero_variance_groups", BLUE), ("all right", "groups_all_correct", GREEN),
                                   ("all wrong", "groups_all_wrong", RED)]),
    ("surprise per token, nats", [("entropy", "sampled_entropy", BLUE)]),
    ("tokens", [("mean", "completion_tokens", BLUE), ("longest", "completion_tokens_max", GREY)]),
    ("sampler against trainer, log-probability", [("largest", "logprob_diff_max", RED),
                                                  ("mean", "logprob_diff_mean", BLUE)]),
]
POOLS = {"right": GREEN, "middle": YELLOW, "wrong": RED, "quarantine": GREY}


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def svg(draw: Callable, rows: int, columns: int, size: tuple[float, float]) -> str:
    """Calls ``draw`` with a list of rows x columns axes. ``size``: inches."""
    if not available():
        return ""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9, "svg.hashsalt": "minifleming", "axes.spines.top": False,
                     "axes.spines.right": False}):
        figure = Figure(figsize=size, layout="constrained")
        draw(list(figure.subplots(rows, columns, squeeze=False).flatten()))
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def percents(rows: Sequence[dict], key: str) -> list[float]:
    return [100 * row[key] for row in rows]


def intervals(ax, x: Sequence[float], rows: Sequence[dict], colour: str, **style) -> None:
    """Draws accuracies with their intervals."""
    y = percents(rows, "accuracy")
    below = [middle - low for middle, low in zip(y, percents(rows, "ci_low"))]
    above = [high - middle for middle, high in zip(y, percents(rows, "ci_high"))]
    style = {"linestyle": "none", "marker": "o", "capsize": 3, **style}
    ax.errorbar(x, y, yerr=[below, above], color=colour, **style)


def ablation(rows: Sequence[dict], titles: dict[str, str]) -> str:
    """Strict accuracy of each variant, one line per split. ``rows``: tables.ablation."""
    by_split: dict[str, list[dict]] = {}
    for row in rows:
        by_split.setdefault(row["split"], []).append(row)
    present = {row["variant"] for row in rows}
    shown = [variant for variant in titles if variant in present]

    def draw(axes) -> None:
        ax = axes[0]
        for number, (split, mine) in enumerate(by_split.items()):
            shift = 0.06 * (number - (len(by_split) - 1) / 2)
            x = [shown.index(row["variant"]) + shift for row in mine]
            intervals(ax, x, mine, COLOURS[number % len(COLOURS)], linestyle="-",
                      label=f"{split} (n = {mine[0]['n']})")
        ax.set_xticks(range(len(shown)), [titles[variant] for variant in shown])
        ax.set(ylabel="strict accuracy, %", ylim=(0, 100))
        ax.legend(frameon=False, loc="upper left")

    return svg(draw, 1, 1, (7, 3.6)) if rows else ""


def reliability(rows: Sequence[dict], title: str) -> str:
    """The winner's share of votes against its accuracy, and the items of each bin.

    ``rows``: calibration.reliability.
    """
    filled = [row for row in rows if row["n"]]

    def draw(axes) -> None:
        axes[0].plot([0, 100], [0, 100], color=GREY, linewidth=0.8, linestyle="--")
        axes[0].plot(percents(filled, "confidence"), percents(filled, "accuracy"), color=BLUE, marker="o")
        axes[0].set(xlabel="share of votes, %", ylabel="accuracy, %", xlim=(0, 102), ylim=(0, 102))
        axes[0].set_title(title, loc="left")
        middles = [50 * (row["low"] + row["high"]) for row in rows]
        axes[1].bar(middles, [row["n"] for row in rows], width=90 / len(rows), color=BLUE)
        axes[1].set(xlabel="share of votes, %", ylabel="items", xlim=(0, 102))

    return svg(draw, 1, 2, (8, 3.4)) if filled else ""


def by_slice(rows: Sequence[dict]) -> str:
    """Accuracy by hops and by rarity, where there are at least two slices. ``rows``: slices.slices."""
    parts: dict[str, list[dict]] = {}
    for row in rows:
        if row["dimension"] in SLICE_LABELS and "accuracy" in row and row["slice"] != "none":
            parts.setdefault(row["dimension"], []).append(row)
    parts = {dimension: found for dimension, found in parts.items() if len(found) > 1}

    def draw(axes) -> None:
        for ax, (dimension, found) in zip(axes, parts.items()):
            intervals(ax, range(len(found)), found, BLUE)
            names = [f"{row['slice'].split(' of ')[0]}\n{row['n']}" for row in found]
            ax.set_xticks(range(len(found)), names)
            ax.set(xlabel=SLICE_LABELS[dimension], ylabel="strict accuracy, %", ylim=(0, 100))

    return svg(draw, 1, len(parts), (4.2 * len(parts), 3.2)) if parts else ""


def training(steps: list[dict], rounds: list[dict], support: list[dict]) -> str:
    """Eight panels; grey lines are mining rounds. ``support``: training.support_by_step."""
    def draw(axes) -> None:
        for ax, (title, lines) in zip(axes, STEP_PANELS):
            ax.set_title(title, loc="left")
            for label, name, colour in lines:
                shown = [m for m in steps if m.get(name) is not None]
                if shown:
                    ax.plot([m["step"] for m in shown], [m[name] for m in shown], color=colour,
                            label=label, linewidth=1)
            if len(ax.lines) > 1:
                ax.legend(frameon=False)
        axes[5].set_yscale("symlog", linthresh=1e-8)
        draw_pools(axes[6], rounds)
        draw_support(axes[7], support)
        for ax in [*axes[:6], axes[7]]:
            ax.set_xlabel("step")
            for mark in rounds:
                ax.axvline(mark["step"], color="#bbb", linewidth=0.8)

    return svg(draw, 4, 2, (10, 11))


def draw_pools(ax, rounds: list[dict]) -> None:
    ax.set_title("items by mined class", loc="left")
    ax.set_xlabel("mining round")
    bottom = [0] * len(rounds)
    for kind, colour in POOLS.items():
        sizes = [r[kind] for r in rounds]
        ax.bar([str(r["round"]) for r in rounds], sizes, bottom=bottom, color=colour, label=kind)
        bottom = [b + s for b, s in zip(bottom, sizes)]
    if rounds:
        ax.legend(loc="upper left", framealpha=1)


def draw_support(ax, support: list[dict]) -> None:
    ax.set_title("right answers supported by a chain of edges", loc="left")
    ax.set_ylim(0, 1)
    shares = [row.get("chain", 0) / row["right"] for row in support]
    ax.plot([row["step"] for row in support], shares, marker="o", color=BLUE)
