"""One model on several benchmarks: counts, shares, intervals.

    {"benchmark": "medqa", "n": 200, "correct": 61, "accuracy": 0.305, "ci_low": 0.245, "ci_high": 0.372,
     "chance": 0.25, "lenient": 0.31, "ok": 0.9, "multiple": 0.0, "truncated": 0.06, "empty": 0.0, "unparsed": 0.035,
     "lenient_only": 0.005, "right_by_a_chain_of_edges": null, "right_with_a_false_hop_or_a_gap": null,
     "right_and_no_hop_read": null}

The last three are of benchmarks whose items have a path in a graph: shares of n, which sum to the accuracy.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minifleming.evaluation.grade import KINDS
from minifleming.evaluation.records import right
from minifleming.evaluation.statistics import detectable_difference, macro_interval, wilson
from minifleming.run.checkpoint import write_text

CARRIED = {"right_by_a_chain_of_edges": "right by a chain of edges",
           "right_with_a_false_hop_or_a_gap": "right for the wrong reason",
           "right_and_no_hop_read": "right, no hop read"}
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
                    | {"lenient_only": kinds["lenient"] / n} | carried(records))
    return rows


def carried(records: list[dict]) -> dict[str, float | None]:
    """Shares of n: right answers by what their reasoning states (rods/reasoning.py). None without items of a graph."""
    counts, n = Counter(r.get("support", "") for r in records if right(r)), len(records)
    found = {"right_by_a_chain_of_edges": counts["chain"],
             "right_with_a_false_hop_or_a_gap": counts["false"] + counts["gap"],
             "right_and_no_hop_read": counts["unread"]}
    return {name: k / n if any(r.get("support") for r in records) else None for name, k in found.items()}


def macro(sets: Sets, confidence: float) -> tuple[float, float, float]:
    """Mean of the benchmarks' strict accuracies, each weighing the same, with a seeded bootstrap interval."""
    return macro_interval([np.array([right(r) for r in records]) for records in sets.values()], confidence=confidence)


def micro(sets: Sets, confidence: float) -> tuple[float, float, float]:
    """Strict accuracy over all items of all benchmarks, each item weighing the same, with its Wilson interval."""
    n, correct = sum(map(len, sets.values())), sum(right(r) for records in sets.values() for r in records)
    return correct / n, *wilson(correct, n, confidence)


def markdown(rows: list[dict], averages: dict[str, tuple[float, float, float]], confidence: float,
             notes: Sequence[str] = ()) -> str:
    """One model: benchmarks as lines, with what a reader needs to trust them. ``averages``: "macro" and "micro";
    ``notes``: lines below the table."""
    heads = ["chance", "lenient", "multiple", "truncated", "empty", "unparsed"]
    if any(row["right_by_a_chain_of_edges"] is not None for row in rows):
        heads += ["right_by_a_chain_of_edges", "right_with_a_false_hop_or_a_gap", "right_and_no_hop_read"]
    lines = [f"| benchmark | n | strict | {' | '.join(CARRIED.get(head, head) for head in heads)} |",
             "|---|---|---|" + "---|" * len(heads)]
    for row in rows:
        shares = " | ".join("" if row[head] is None else f"{100 * row[head]:.1f}" for head in heads)
        strict = interval(row["accuracy"], row["ci_low"], row["ci_high"])
        lines.append(f"| {row['benchmark']} | {row['n']} | {strict} | {shares} |")
    if len(rows) > 1:
        lines += [f"| {name} average |  | {interval(*average)} |" + "  |" * len(heads)
                  for name, average in averages.items()]
    reason = " For the wrong reason: a stated hop is no edge of the graph, or the last one does not touch the option." \
        if len(heads) > 6 else ""
    least = {row["benchmark"]: 100 * detectable_difference(row["n"], DISCORDANT) for row in rows}
    smallest = ", ".join(f"{name} {'none' if math.isnan(d) else f'{d:.1f}'}" for name, d in least.items())
    return "\n".join([
        *lines, "",
        f"In %; strict with {100 * confidence:.0f} % Wilson intervals (macro average: bootstrap over items, "
        "10,000 draws, seed 0, or from the Wilson limits where a benchmark is at 0 or 100). The denominator is n "
        "throughout. Smallest difference of two checkpoints that a paired test finds with 80 % power, if they differ "
        f"on {100 * DISCORDANT:.0f} % of the items, in points: {smallest}.{reason}",
        *notes])


def interval(mean: float, low: float, high: float, sign: str = "") -> str:
    return f"{100 * mean:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def to_csv(rows: list[dict]) -> str:
    """One line a row, under the keys of all; what a row has not is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_scores(out: Path, sets: Sets, confidence: float, notes: Sequence[str] = ()) -> str:
    """Write ``scores.md``, ``.csv`` and ``.json`` of one model; return the table."""
    rows = scores(sets, confidence)
    averages = {"macro": macro(sets, confidence), "micro": micro(sets, confidence)}
    text = markdown(rows, averages, confidence, notes)
    write_text(out / "scores.md", text + "\n")
    write_text(out / "scores.csv", to_csv(rows))
    write_text(out / "scores.json", json.dumps({"benchmarks": rows, **averages}, indent=1) + "\n")
    return text


def write_rows(out: Path, name: str, rows: dict, text: str) -> str:
    """Write ``name``.md and ``name``.json; return the table."""
    write_text(out / f"{name}.md", text + "\n")
    write_text(out / f"{name}.json", json.dumps(rows, indent=1) + "\n")
    return text
