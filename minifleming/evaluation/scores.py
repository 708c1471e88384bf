"""One model on several benchmarks, in the shape of the paper's Table 3; and two models on the same items.

    {"benchmark": "medqa", "n": 200, "correct": 61, "accuracy": 0.305, "ci_low": 0.245, "ci_high": 0.372,
     "chance": 0.25, "lenient": 0.31, "ok": 0.9, "multiple": 0.0, "truncated": 0.06, "empty": 0.0, "unparsed": 0.035,
     "lenient_only": 0.005}
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter

import numpy as np

from minifleming.evaluation.grade import KINDS
from minifleming.evaluation.records import right
from minifleming.evaluation.statistics import (
    detectable_difference,
    holm,
    macro_interval,
    mcnemar,
    paired_bootstrap,
    wilson,
)
from minifleming.run.errors import BadInput

DISCORDANT = 0.2  # share of items on which two checkpoints differ, for the footer
Sets = dict[str, list[dict]]  # benchmark -> records


def scores(sets: Sets, confidence: float) -> list[dict]:
    """A row a benchmark. The kinds are shares of n and sum to 1."""
    rows = []
    for name, records in sets.items():
        n, correct, kinds = len(records), sum(map(right, records)), Counter(r["kind"] for r in records)
        low, high = wilson(correct, n, confidence)
        rows.append({"benchmark": name, "n": n, "correct": correct, "accuracy": correct / n, "ci_low": low,
                     "ci_high": high, "chance": sum(1 / r["options"] for r in records) / n,
                     "lenient": sum(r["lenient"] == r["answer"] for r in records) / n}
                    | {kind: kinds[kind] / n for kind in KINDS if kind != "lenient"}
                    | {"lenient_only": kinds["lenient"] / n})
    return rows


def macro(sets: Sets, confidence: float) -> tuple[float, float, float]:
    """Mean of the benchmarks' strict accuracies, each weighing the same, with a seeded bootstrap interval."""
    return macro_interval([np.array([right(r) for r in records]) for records in sets.values()], confidence=confidence)


def compared(first: Sets, second: Sets, confidence: float) -> list[dict]:
    """Second minus first on each benchmark that both have: bootstrap interval, exact McNemar test, Holm over all.

    Raises BadInput where the two were not asked the same items.
    """
    rows = []
    for name in (name for name in first if name in second):
        before, after = ({r["item"]: (right(r), r["answer"]) for r in sets[name]} for sets in (first, second))
        if before.keys() != after.keys() or any(before[i][1] != after[i][1] for i in before):
            raise BadInput(f"{name}: the records of the two are not of the same items")
        pairs = np.array([(before[item][0], after[item][0]) for item in before], np.int64)
        lost, won = int((pairs[:, 0] > pairs[:, 1]).sum()), int((pairs[:, 0] < pairs[:, 1]).sum())
        mean, low, high = paired_bootstrap(pairs[:, 0], pairs[:, 1], confidence=confidence)
        rows.append({"benchmark": name, "n": len(pairs), "first": float(pairs[:, 0].mean()),
                     "second": float(pairs[:, 1].mean()), "difference": mean, "ci_low": low, "ci_high": high,
                     "lost": lost, "won": won, "p": mcnemar(lost, won)})
    if not rows:
        raise BadInput("the two have no benchmark in common")
    for row, p in zip(rows, holm([row["p"] for row in rows])):
        row["p_holm"] = p
    return rows


def markdown(rows: list[dict], average: tuple[float, float, float] | None, confidence: float) -> str:
    """Table 3's shape, benchmarks as lines, with what a reader needs to trust it."""
    lines = ["| benchmark | n | strict | chance | lenient | multiple | truncated | empty | unparsed |",
             "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        shares = " | ".join(f"{100 * row[key]:.1f}" for key in (
            "chance", "lenient", "multiple", "truncated", "empty", "unparsed"))
        strict = interval(row["accuracy"], row["ci_low"], row["ci_high"])
        lines.append(f"| {row['benchmark']} | {row['n']} | {strict} | {shares} |")
    if average and len(rows) > 1:
        lines.append(f"| macro average |  | {interval(*average)} |" + "  |" * 6)
    least = {row["benchmark"]: 100 * detectable_difference(row["n"], DISCORDANT) for row in rows}
    smallest = ", ".join(f"{name} {'none' if math.isnan(d) else f'{d:.1f}'}" for name, d in least.items())
    return "\n".join([
        *lines, "",
        f"In %; strict with {100 * confidence:.0f} % Wilson intervals (macro average: bootstrap over items, "
        "10,000 draws, seed 0; where no item is right, or all are, it has no width). The denominator is n throughout. "
        "Smallest difference of two checkpoints that a paired test finds with 80 % power, if they differ on "
        f"{100 * DISCORDANT:.0f} % of the items, in points: {smallest}."])


def paired_markdown(rows: list[dict], names: tuple[str, str], confidence: float) -> str:
    lines = [f"| benchmark | n | {names[0]} | {names[1]} | difference | lost, won | p (Holm) |",
             "|---|---|---|---|---|---|---|"]
    for row in rows:
        mark = "" if row["p_holm"] < 0.05 else " n.s."
        lines.append(f"| {row['benchmark']} | {row['n']} | {100 * row['first']:.1f} | {100 * row['second']:.1f} | "
                     f"{interval(row['difference'], row['ci_low'], row['ci_high'], '+')}{mark} | {row['lost']}, "
                     f"{row['won']} | {row['p_holm']:.3g} |")
    return "\n".join([*lines, "", f"Strict accuracy in %, differences in points with {100 * confidence:.0f} % "
                      "intervals of a paired bootstrap; n.s.: exact McNemar test, Holm-adjusted p >= 0.05."])


def interval(mean: float, low: float, high: float, sign: str = "") -> str:
    return f"{100 * mean:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def to_csv(rows: list[dict]) -> str:
    """One line a row; every row has the same keys."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
