"""How far the answers depend on the order of the options: figures over the turns of permute.py.

    turns {"i1": ["B", "B", None, "B"]}, answers {"i1": "B"}     labels of the original order; None: unparsed

An unparsed answer is wrong, and agrees with nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from minifleming.evaluation.records import right
from minifleming.evaluation.statistics import wilson
from minifleming.extras.analysis.permute import TURNS, Permuted, blanked, permuted
from minifleming.rods.item import Item


def variants(items: Sequence[Item]) -> dict[str, list[Item]]:
    """What is asked again: "p1" to "p4" with the options in another order, "d1" with only the wrong ones in another,
    "blank" without the question."""
    orders = {f"p{turn}": [found.item for item in items if (found := permuted(item, turn))]
              for turn in range(1, TURNS + 1)}
    orders["d1"] = [found.item for item in items if (found := permuted(item, 1, keep_gold=True))]
    return {name: found for name, found in orders.items() if found} | {"blank": [blanked(item) for item in items]}


def robustness(items: Sequence[Item], asked: Mapping[str, list[dict]], confidence: float) -> dict:
    """One benchmark's row: ``asked`` has the records of the items as they are ("") and of each of their variants."""
    ways: dict[str, list[Permuted]] = {item.id: [found for turn in range(1, TURNS + 1)
                                                 if (found := permuted(item, turn))] for item in items}
    given = {record["item"]: record["strict"] for records in asked.values() for record in records}
    turns = {name: [way.back.get(given[way.item.id]) for way in found] for name, found in ways.items() if found}
    row = {"n": len(items), "left_out": len(items) - len(turns), "pinned": sum(bool(w and w[0].pinned)
                                                                               for w in ways.values())}
    if turns:
        row |= over_turns(turns, {item.id: item.answer for item in items}) | {"n": len(items), "permuted": len(turns)}
        row["as_is"] = sum(map(right, (r for r in asked[""] if r["item"] in turns))) / len(turns)
    if asked.get("d1"):
        row["distractors"] = sum(map(right, asked["d1"])) / len(asked["d1"])
    row["letters"] = letters([r["answer"] for r in asked[""]], [r["strict"] for r in asked[""]])["distance"]
    blind = sum(map(right, asked["blank"]))
    low, high = wilson(blind, len(items), confidence)
    return row | {"blank": blind / len(items), "blank_low": low, "blank_high": high}


def markdown(rows: Mapping[str, dict]) -> str:
    lines = ["| benchmark | n | left out | pinned | as it is | wrong options moved | mean of 4 orders | "
             "right in all 4 | same option in 4 | letters off | question hidden |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        figures = [f"{100 * row[key]:.1f}" if key in row else "" for key in (
            "as_is", "distractors", "mean", "worst", "consistent")]
        lines.append(f"| {name} | {row['n']} | {row['left_out']} | {row['pinned']} | {' | '.join(figures)} | "
                     f"{row['letters']:.2f} | {100 * row['blank']:.1f} [{100 * row['blank_low']:.1f}, "
                     f"{100 * row['blank_high']:.1f}] |")
    return "\n".join([*lines, "", "Strict accuracy in %. The four orders are of all options but those that speak of "
                      "the others (pinned); items whose options or question name letters are left out. Wrong options "
                      "moved: one order in which the right one keeps its place, the weaker test. Letters off: "
                      "total variation distance of given and right letters. Hidden: the options alone are shown."])


def over_turns(turns: Mapping[str, Sequence[str | None]], answers: Mapping[str, str]) -> dict:
    """Mean accuracy over items and turns, accuracy of each turn, share of items right in every one, share consistent.

    Every item has the same number of turns. Consistent: the same option in all of them, right or wrong.
    """
    n, count = len(turns), {len(labels) for labels in turns.values()}
    if len(count) != 1 or not n or 0 in count:
        raise ValueError(f"every item needs the same number of turns, at least one; found {sorted(count)}")
    right = {item: [label == answers[item] for label in labels] for item, labels in turns.items()}
    by_turn = [sum(row[turn] for row in right.values()) / n for turn in range(count.pop())]
    return {"n": n, "by_turn": by_turn, "mean": sum(by_turn) / len(by_turn),
            "worst": sum(all(row) for row in right.values()) / n,
            "consistent": sum(len(set(labels)) == 1 and labels[0] is not None for labels in turns.values()) / n}


def letters(gold: Sequence[str], predicted: Sequence[str | None]) -> dict:
    """Counts of each letter among right and among given answers, and the total variation distance of the two.

    The distance is half the sum of absolute differences of the shares; unparsed answers are a letter of their own
    ("none"), so a model that is always right has 0 and one that never answers 1.
    """
    if not gold or len(gold) != len(predicted):
        raise ValueError("as many predictions as answers, at least one")
    asked, given = Counter(gold), Counter("none" if label is None else label for label in predicted)
    distance = sum(abs(asked[k] - given[k]) for k in asked | given) / (2 * len(gold))
    return {"gold": dict(sorted(asked.items())), "predicted": dict(sorted(given.items())), "distance": distance}
