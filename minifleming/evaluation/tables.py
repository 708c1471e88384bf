"""Tables from stored records: scores per benchmark, and the ablation (the paper's Table 4).

A row of scores:

    {"benchmark": "medqa", "n": 200, "correct": 61, "accuracy": 0.305, "ci_low": 0.245,
     "ci_high": 0.372, "chance": 0.25, "lenient": 0.31, "ok": 0.9, "multiple": 0.0,
     "truncated": 0.06, "empty": 0.0, "unparsed": 0.035, "lenient_only": 0.005,
     "right_by_a_chain_of_edges": null, ...}

The denominator is n throughout; the kinds of grade.KINDS are shares of n that sum to 1.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np

from minifleming.evaluation.evaluate import is_correct, read_records
from minifleming.evaluation.grade import KINDS
from minifleming.evaluation.statistics import holm, macro_interval, mcnemar, wilson
from minifleming.run.checkpoint import read_json, write_text
from minifleming.run.errors import BadInput

VARIANTS = {"base": "Base", "cold_start": "+ CoT cold start", "rl_stage1": "+ RL stage 1",
            "rl_stage2": "+ RL stage 2"}
SUPPORT = {  # key of a row: heading, and values of a record's "support"
    "right_by_a_chain_of_edges": ("right by a chain of edges", ("chain",)),
    "right_with_a_false_hop_or_a_gap": ("right for the wrong reason", ("false", "gap")),
    "right_and_no_hop_read": ("right, no hop read", ("unread",)),
}
ABLATION_COLUMNS = ("lenient", "parsed", "right by a chain of edges", "a hop false or missing",
                    "no hop read")
Sets = dict[str, list[dict]]  # benchmark -> records
Records = dict[tuple[str, str], list[dict]]  # (variant, split) -> records
Interval = tuple[float, float, float]  # estimate, lower and upper bound


def score_rows(sets: Sets, confidence: float) -> list[dict]:
    """Returns one row per benchmark."""
    rows = []
    for name, records in sets.items():
        n = len(records)
        kinds = Counter(map(itemgetter("kind"), records))
        row = {"benchmark": name, **accuracy_of(records, confidence)}
        row["chance"] = mean(records, lambda record: 1 / record["options"])
        row["lenient"] = mean(records, lenient_correct)
        for kind in KINDS:
            row["lenient_only" if kind == "lenient" else kind] = kinds[kind] / n
        rows.append(row | support_counts(records))
    return rows


def accuracy_of(records: list[dict], confidence: float) -> dict:
    """Returns the strict accuracy with its Wilson interval."""
    n = len(records)
    correct = sum(map(is_correct, records))
    low, high = wilson(correct, n, confidence)
    return {"n": n, "correct": correct, "accuracy": correct / n, "ci_low": low, "ci_high": high}


def mean(records: list[dict], value: Callable[[dict], float]) -> float:
    return sum(map(value, records)) / len(records)


def lenient_correct(record: dict) -> bool:
    return record["lenient"] == record["answer"]


def support_counts(records: list[dict]) -> dict[str, float | None]:
    """Splits correct answers by what their reasoning states: shares of n that sum to the accuracy.

    The shares are None for items without a path in a graph.
    """
    has_graph = False
    counts: Counter[str] = Counter()
    for record in records:
        value = record.get("support", "")
        has_graph = has_graph or bool(value)
        counts[value] += is_correct(record)
    shares: dict[str, float | None] = {}
    for key, (_, values) in SUPPORT.items():
        count = sum(map(counts.__getitem__, values))
        shares[key] = count / len(records) if has_graph else None
    return shares


def macro(sets: Sets, confidence: float) -> Interval:
    """Returns the mean strict accuracy of the benchmarks with a seeded bootstrap interval."""
    groups = []
    for records in sets.values():
        groups.append(np.array(list(map(is_correct, records))))
    return macro_interval(groups, confidence=confidence)


def micro(sets: Sets, confidence: float) -> Interval:
    """Strict accuracy over all items of all benchmarks, with its Wilson interval."""
    row = accuracy_of(sum(sets.values(), []), confidence)
    return row["accuracy"], row["ci_low"], row["ci_high"]


def score_markdown(rows: list[dict], averages: dict[str, Interval], confidence: float,
                   notes: Sequence[str] = ()) -> str:
    """One line per benchmark. ``averages``: macro and micro; ``notes``: lines below the table."""
    keys = ["chance", "lenient", "multiple", "truncated", "empty", "unparsed"]
    heads = list(keys)
    reason = ""
    if any(row["right_by_a_chain_of_edges"] is not None for row in rows):
        keys += SUPPORT
        heads += map(itemgetter(0), SUPPORT.values())
        reason = (" For the wrong reason: a stated hop is no edge of the graph, or the last one "
                  "does not touch the option.")
    lines = [f"| benchmark | n | strict | {' | '.join(heads)} |",
             "|---|---|---|" + "---|" * len(heads)]
    for row in rows:
        shares = " | ".join(map(percent, itemgetter(*keys)(row)))
        strict = interval(row["accuracy"], row["ci_low"], row["ci_high"])
        lines.append(f"| {row['benchmark']} | {row['n']} | {strict} | {shares} |")
    if len(rows) > 1:
        for name, average in averages.items():
            lines.append(f"| {name} average |  | {interval(*average)} |" + "  |" * len(heads))
    footer = (
        f"In %; strict with {100 * confidence:.0f} % Wilson intervals (macro average: bootstrap "
        "over items, 10,000 draws, seed 0, or from the Wilson limits if a benchmark is at 0 or "
        f"100). The denominator is n throughout.{reason}")
    return "\n".join([*lines, "", footer, *notes])


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def interval(mean: float, low: float, high: float, sign: str = "") -> str:
    return f"{100 * mean:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def write_scores(out: Path, sets: Sets, confidence: float, notes: Sequence[str] = ()) -> str:
    """Writes ``scores.md`` and ``.json`` of one model; returns the table."""
    rows = score_rows(sets, confidence)
    averages = {"macro": macro(sets, confidence), "micro": micro(sets, confidence)}
    text = score_markdown(rows, averages, confidence, notes)
    return write_table(out / "scores", {"benchmarks": rows, **averages}, text)


def write_table(path: Path, rows: dict | list, text: str) -> str:
    """Writes ``path``.md and ``path``.json; returns the text."""
    write_text(path.with_name(path.name + ".md"), text + "\n")
    write_text(path.with_name(path.name + ".json"), json.dumps(rows, indent=1) + "\n")
    return text


def ablation(records: Records, confidence: float) -> list[dict]:
    """Returns one row per variant and split."""
    rows = []
    for (variant, split), found in records.items():
        row = {"variant": variant, "split": split, **accuracy_of(found, confidence)}
        row["lenient_accuracy"] = mean(found, lenient_correct)
        row["parse_rate"] = mean(found, lambda record: record["rule"] == "ok")
        row["truncated"] = mean(found, lambda record: not record["finished"])
        row["tokens"] = mean(found, itemgetter("tokens"))
        rows.append(row | support_counts(found))
    return rows


def adjacent_variant_tests(records: Records) -> list[dict]:
    """Returns exact McNemar tests of each variant against the one before it, Holm-adjusted."""
    tests = []
    for split in dict.fromkeys(map(itemgetter(1), records)):
        present = [variant for variant in VARIANTS if (variant, split) in records]
        for first, second in zip(present, present[1:]):
            before = correct_items(records[first, split])
            after = correct_items(records[second, split])
            if before.keys() != after.keys():
                raise BadInput(f"{split}: {first} and {second} are not evaluated on the same items")
            changes = Counter((before[item], after[item]) for item in before)
            lost = changes[True, False]
            won = changes[False, True]
            tests.append({"split": split, "first": first, "second": second, "lost": lost,
                          "won": won, "difference": (won - lost) / len(before),
                          "p": mcnemar(lost, won)})
    for test, p in zip(tests, holm(list(map(itemgetter("p"), tests)))):
        test["p_holm"] = p
    return tests


def correct_items(records: list[dict]) -> dict[str, bool]:
    return {record["item"]: is_correct(record) for record in records}


def ablation_markdown(rows: list[dict], tests: list[dict], confidence: float) -> str:
    """Table 4: one line per variant, one column per split with the change to the line above."""
    changes = {(test["second"], test["split"]): change_text(test) for test in tests}
    first_split = rows[0]["split"]
    head: dict[str, None] = {}
    cells: dict[str, list[str]] = {}
    for row in rows:
        variant, split = row["variant"], row["split"]
        head[f"{split} (n = {row['n']})"] = None
        cell = interval(row["accuracy"], row["ci_low"], row["ci_high"])
        cells.setdefault(variant, []).append(cell + changes.get((variant, split), ""))
    for row in rows:
        if row["split"] == first_split:
            shares = itemgetter("lenient_accuracy", "parse_rate", *SUPPORT)(row)
            cells[row["variant"]] += map(percent, shares)
    lines = [f"| | {' | '.join([*head, *ABLATION_COLUMNS])} |", "|---|" + "---|" * (len(head) + 5)]
    for variant, title in VARIANTS.items():
        if variant in cells:
            lines.append(f"| {' | '.join([title, *cells[variant]])} |")
    footer = (
        f"Strict accuracy in %, with {100 * confidence:.0f} % Wilson intervals; in round brackets "
        "the change to the line above (n.s.: exact McNemar test, Holm-adjusted p >= 0.05). The "
        f"last five columns are of {first_split}; the last three split its correct answers by "
        "whether the reasoning is supported by the graph.")
    return "\n".join([*lines, "", footer])


def change_text(test: dict) -> str:
    star = "" if test["p_holm"] < 0.05 else " n.s."
    return f" ({100 * test['difference']:+.1f}{star})"


def write_ablation(folder: Path, records: Records, confidence: float,
                   blind: dict[str, float] | None = None) -> str:
    """Writes ``ablation.md``, ``.json``, ``paired.json``, ``blind.json``; returns the table.

    ``blind``: split -> accuracy of ``rods.synthesize.blind_accuracy``.
    """
    rows = ablation(records, confidence)
    tests = adjacent_variant_tests(records)
    text = ablation_markdown(rows, tests, confidence)
    if blind:
        found = ", ".join(f"{100 * share:.1f} of {split}" for split, share in blind.items())
        text += (" A rule that never reads the question, only how often each option was right in "
                 f"training: {found}.")
        write_text(folder / "blind.json", json.dumps(blind, indent=1) + "\n")
    write_text(folder / "paired.json", json.dumps(tests, indent=1) + "\n")
    return write_table(folder / "ablation", rows, text)


def rebuild_ablation(run: Path, confidence: float) -> tuple[Records, str]:
    """Reads the records of a run and writes its tables again; returns both."""
    records = {}
    for variant in VARIANTS:
        for path in sorted((run / "eval").glob(f"{variant}.*.jsonl")):
            records[variant, path.stem.partition(".")[2]] = read_records(path)
    if not records:
        raise BadInput("no evaluation records", run / "eval")
    blind = run / "report" / "blind.json"
    shares = read_json(blind) if blind.exists() else None
    return records, write_ablation(run / "report", records, confidence, shares)
