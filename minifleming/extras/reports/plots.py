"""Charts as SVG: the ablation, reliability, accuracy by slices, and the curves of a training run.

Each function returns the text of one <svg>, equal for equal values, or "" if there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minifleming.extras.reports.svg import INK, SOFT, card, line, text

BLUE, YELLOW, GREEN, RED, GREY = "#336699", "#b07a10", "#3a7f57", "#c0504d", "#777777"
COLORS = (BLUE, YELLOW, GREEN, RED)
WIDTH, HEIGHT = 440, 250  # of a chart
LEFT, RIGHT, TOP, BOTTOM = 58, 424, 58, 206  # of its axes
SLICE_LABELS = {"hops": "hops", "rarity": "rarity, tenths from common to rare"}
STEP_PANELS = [  # title, and label, metric and color of each line
    ("reward", [("mean", "reward", BLUE)]),
    ("accuracy, by tier", [("easy", "accuracy_easy", GREEN), ("moderate", "accuracy_moderate", YELLOW),
                           ("difficult", "accuracy_difficult", RED)]),
    ("groups of constant reward", [("constant", "zero_variance_groups", BLUE),
                                   ("all right", "groups_all_correct", GREEN),
                                   ("all wrong", "groups_all_wrong", RED)]),
    ("entropy per sampled token, nats", [("mean", "sampled_entropy", BLUE)]),
    ("completion tokens", [("mean", "completion_tokens", BLUE),
                           ("longest", "completion_tokens_max", GREY)]),
    ("sampler against trainer, log-probability", [("largest", "logprob_diff_max", RED),
                                                  ("mean", "logprob_diff_mean", BLUE)]),
]
POOLS = {"right": GREEN, "middle": YELLOW, "wrong": RED, "quarantine": GREY}


class Line(NamedTuple):
    label: str
    points: list[tuple[float, float]]
    color: str
    intervals: Sequence[tuple[float, float, float]] = ()  # x, lower and upper bound
    marked: bool = False  # a dot at each point


class Chart(NamedTuple):
    title: str
    lines: list[Line]
    x_label: str
    ticks: dict[float, str] = {}  # x -> words; otherwise the first and the last x
    top: float = 0.0  # end of the y axis; otherwise the largest value
    rules: Sequence[float] = ()  # x of vertical lines


def draw(chart: Chart, x0: float, y0: float) -> list[str]:
    """Returns the elements of a chart whose upper left corner is at (x0, y0)."""
    points = sum((part.points for part in chart.lines), [])
    xs = [*chart.ticks, *(x for x, _ in points)] or [0.0]
    ys = [y for _, y in points]
    first, last = min(xs), max(xs)
    top = chart.top or max(ys, default=0.0) or 1.0
    bottom = min([0.0, *ys])

    def at(x: float, y: float) -> tuple[float, float]:
        share = (x - first) / (last - first) if last > first else 0.5
        return (x0 + LEFT + 26 + (RIGHT - LEFT - 52) * share,
                y0 + BOTTOM - (BOTTOM - TOP) * (y - bottom) / (top - bottom))

    body = [text(x0 + LEFT, y0 + 22, chart.title, 13, INK, extra="font-weight='bold'")]
    for i in range(5):
        value = bottom + (top - bottom) * i / 4
        y = at(first, value)[1]
        body.append(line([(x0 + LEFT, y), (x0 + RIGHT, y)], "#d0d7de", 1))
        number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        body.append(text(x0 + LEFT - 6, y + 4, number, 11, SOFT, "end"))
    for x, words in (chart.ticks or {x: f"{x:g}" for x in (first, last)}).items():
        body.append(text(at(x, bottom)[0], y0 + BOTTOM + 16, words, 11, SOFT, "middle"))
    for x in chart.rules:
        body.append(line([at(x, bottom), at(x, top)], "#8c959f", 1, "stroke-dasharray='4 3'"))
    body.append(text(x0 + (LEFT + RIGHT) / 2, y0 + BOTTOM + 34, chart.x_label, 11, SOFT, "middle"))
    label_x = x0 + LEFT
    for part in chart.lines:
        body.append(text(label_x, y0 + 42, part.label, 11, part.color))
        label_x += 7 * len(part.label) + 14
        body.append(line([at(x, y) for x, y in part.points], part.color, 1.5))
        for x, low, high in part.intervals:
            body.append(line([at(x, low), at(x, high)], part.color, 1.5))
        if part.marked:
            for x, y in (at(x, y) for x, y in part.points):
                body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{part.color}"/>')
    return body


def grid(label: str, charts: list[Chart], columns: int = 2) -> str:
    """Returns one SVG of the charts, row by row."""
    columns = min(columns, len(charts))
    body = []
    for i, chart in enumerate(charts):
        body += draw(chart, WIDTH * (i % columns), HEIGHT * (i // columns))
    return card(WIDTH * columns, HEIGHT * -(-len(charts) // columns), label, body)


def accuracy_line(label: str, xs: Sequence[float], rows: Sequence[dict], color: str) -> Line:
    """Accuracies in % with their intervals."""
    points, intervals = [], []
    for x, row in zip(xs, rows):
        points.append((x, 100 * row["accuracy"]))
        intervals.append((x, 100 * row["ci_low"], 100 * row["ci_high"]))
    return Line(label, points, color, intervals, marked=True)


def ablation(rows: Sequence[dict], titles: dict[str, str]) -> str:
    """Strict accuracy of each variant, one line per split. ``rows``: tables.ablation."""
    by_split: dict[str, list[dict]] = {}
    for row in rows:
        by_split.setdefault(row["split"], []).append(row)
    present = {row["variant"] for row in rows}
    shown = [variant for variant in titles if variant in present]
    lines = []
    for color, (split, mine) in zip(COLORS, by_split.items()):
        xs = [shown.index(row["variant"]) for row in mine]
        lines.append(accuracy_line(f"{split} (n = {mine[0]['n']})", xs, mine, color))
    ticks = {i: titles[variant] for i, variant in enumerate(shown)}
    chart = Chart("Strict accuracy, %", lines, "", ticks, 100)
    return grid("Strict accuracy by variant", [chart]) if rows else ""


def reliability(rows: Sequence[dict], title: str) -> str:
    """The winner's share of votes against its accuracy, and the items of each bin.

    ``rows``: calibration.reliability.
    """
    filled = [row for row in rows if row["n"]]
    if not filled:
        return ""
    measured = [(100 * row["confidence"], 100 * row["accuracy"]) for row in filled]
    sizes = [(50 * (row["low"] + row["high"]), row["n"]) for row in rows]
    ticks = {0: "0", 50: "50", 100: "100"}
    perfect = Line("calibrated", [(0, 0), (100, 100)], GREY)
    return grid(title, [
        Chart(f"Accuracy, %: {title}", [perfect, Line("measured", measured, BLUE, marked=True)],
              "share of votes, %", ticks, 100),
        Chart("Items", [Line("per bin", sizes, BLUE, marked=True)], "share of votes, %", ticks)])


def by_slice(rows: Sequence[dict]) -> str:
    """Accuracy by hops and by rarity, where there are at least two slices. ``rows``: slices.slices."""
    parts: dict[str, list[dict]] = {}
    for row in rows:
        if row["dimension"] in SLICE_LABELS and "accuracy" in row and row["slice"] != "none":
            parts.setdefault(row["dimension"], []).append(row)
    charts = []
    for dimension, found in parts.items():
        if len(found) > 1:
            ticks = {i: row["slice"].split(" of ")[0] for i, row in enumerate(found)}
            lines = [accuracy_line(f"n = {sum(row['n'] for row in found)}", list(ticks), found, BLUE)]
            charts.append(Chart("Strict accuracy, %", lines, SLICE_LABELS[dimension], ticks, 100))
    return grid("Strict accuracy by slice", charts) if charts else ""


def training(steps: list[dict], rounds: list[dict], support: list[dict]) -> str:
    """Eight charts; dashed lines are mining rounds. ``support``: training.support_by_step."""
    marks = [row["step"] for row in rounds]
    charts = []
    for title, lines in STEP_PANELS:
        shown = []
        for label, name, color in lines:
            points = [(m["step"], m[name]) for m in steps if m.get(name) is not None]
            if points:
                shown.append(Line(label, points, color))
        charts.append(Chart(title, shown, "step", rules=marks))
    sizes = []
    for kind, color in POOLS.items():
        sizes.append(Line(kind, [(r["round"], r[kind]) for r in rounds], color, marked=True))
    charts.append(Chart("items by mined class", sizes, "mining round"))
    shares = [(row["step"], row.get("chain", 0) / row["right"]) for row in support]
    charts.append(Chart("right answers supported by a chain of edges",
                        [Line("share", shares, BLUE, marked=True)], "step", top=1.0, rules=marks))
    return grid("Curves of the training run", charts)
