"""How far answers depend on the order of the options: figures over the permutations of permute.py.

    permutations {"i1": ["B", "B", None, "B"]}, answers {"i1": "B"}

The labels are those of the original order; None is an unparsed answer, which is wrong and agrees with
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from minifleming.evaluation.evaluate import is_correct
from minifleming.evaluation.statistics import wilson
from minifleming.evaluation.tables import interval, mean, percent
from minifleming.extras.analysis import Analysis
from minifleming.extras.analysis.permute import TURNS, Permuted, blanked, permuted
from minifleming.rods.item import Item

HEADING = "Options in other orders"
COLUMNS = ("as_is", "distractors", "mean", "worst", "consistent")


def analyse(ask: Callable[[Path, list[Item], str], list[dict]], sets: Mapping[str, list[Item]],
            asked: Mapping[str, list[dict]], out: Path, confidence: float) -> Analysis:
    """Asks the variants of all items with ``ask``; ``asked``: the records of the items as they are."""
    rows = {}
    for name, items in sets.items():
        records = {"": asked[name]}
        for variant, changed in variants(items).items():
            path = out / "robust" / f"{name}.{variant}.jsonl"
            records[variant] = ask(path, changed, f"{name} {variant}")
        rows[name] = robustness(items, records, confidence)
    return Analysis("robust", HEADING, rows, markdown(rows))


def variants(items: Sequence[Item]) -> dict[str, list[Item]]:
    """Returns what is asked again: "p1" to "p4" with the options in another order, "d1" with only the
    wrong ones in another order, "blank" without the question. A variant without items is left out."""
    found: dict[str, list[Item]] = {}
    for turn in range(1, TURNS + 1):
        found[f"p{turn}"] = [way.item for way in map(lambda item: permuted(item, turn), items) if way]
    found["d1"] = [way.item for way in map(keep_answer, items) if way]
    found["blank"] = [blanked(item) for item in items]
    return {name: changed for name, changed in found.items() if changed or name == "blank"}


def keep_answer(item: Item) -> Permuted | None:
    return permuted(item, 1, keep_gold=True)


def robustness(items: Sequence[Item], asked: Mapping[str, list[dict]], confidence: float) -> dict:
    """Returns the row of one benchmark. ``asked``: the records of the items ("") and of each variant."""
    given = {}
    for records in asked.values():
        given |= {record["item"]: record["strict"] for record in records}
    permutations: dict[str, list[str | None]] = {}
    locked = 0
    for item in items:
        ways = [way for turn in range(1, TURNS + 1) if (way := permuted(item, turn))]
        if ways:
            permutations[item.id] = [way.back.get(given[way.item.id]) for way in ways]
            locked += bool(ways[0].pinned)
    row = {"n": len(items), "left_out": len(items) - len(permutations), "pinned": locked}
    if permutations:
        row |= permutation_consistency(permutations, {item.id: item.answer for item in items})
        row |= {"n": len(items), "permuted": len(permutations)}
        row["as_is"] = mean([r for r in asked[""] if r["item"] in permutations], is_correct)
    if asked.get("d1"):
        row["distractors"] = mean(asked["d1"], is_correct)
    row["letters"] = label_distribution(asked[""])["distance"]
    blind = sum(map(is_correct, asked["blank"]))
    low, high = wilson(blind, len(items), confidence)
    return row | {"blank": blind / len(items), "blank_low": low, "blank_high": high}


def markdown(rows: Mapping[str, dict]) -> str:
    lines = ["| benchmark | n | left out | pinned | as it is | wrong options moved | mean of 4 orders | "
             "right in all 4 | same option in 4 | letters off | question hidden |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        figures = " | ".join(percent(row.get(key)) for key in COLUMNS)
        blank = interval(row["blank"], row["blank_low"], row["blank_high"])
        lines.append(f"| {name} | {row['n']} | {row['left_out']} | {row['pinned']} | {figures} | "
                     f"{row['letters']:.2f} | {blank} |")
    return "\n".join([
        *lines, "",
        "Strict accuracy in %. The four orders are of all options but those that speak of the others "
        "(pinned); items whose options or question name letters are left out. Wrong options moved: one "
        "order in which the right one keeps its place, the weaker test. Letters off: total variation "
        "distance of given and right letters. Hidden: the options alone are shown."])


def permutation_consistency(permutations: Mapping[str, Sequence[str | None]],
                            answers: Mapping[str, str]) -> dict:
    """Returns the mean accuracy over items and permutations, the accuracy of each permutation, the share
    of items right in all of them, and the share with the same option in all, right or wrong."""
    n = len(permutations)
    counts = set(map(len, permutations.values()))
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"every item needs equally many permutations, at least one; found {counts}")
    by_turn = [0] * counts.pop()
    worst = consistent = 0
    for item, labels in permutations.items():
        right = [label == answers[item] for label in labels]
        by_turn = [total + one for total, one in zip(by_turn, right)]
        worst += all(right)
        consistent += len(set(labels)) == 1 and labels[0] is not None
    shares = [total / n for total in by_turn]
    return {"n": n, "by_turn": shares, "mean": sum(shares) / len(shares), "worst": worst / n,
            "consistent": consistent / n}


def label_distribution(records: Sequence[dict]) -> dict:
    """Returns the counts of each label among right and given answers, and their distance.

    Total variation distance: half the sum of absolute differences of the shares. Unparsed answers are a
    label of their own ("none"): a model that is always right has 0, one that never answers 1.
    """
    gold = Counter(record["answer"] for record in records)
    predicted = Counter(record["strict"] or "none" for record in records)
    distance = sum(abs(gold[k] - predicted[k]) for k in gold | predicted) / (2 * len(records))
    return {"gold": dict(sorted(gold.items())), "predicted": dict(sorted(predicted.items())),
            "distance": distance}
