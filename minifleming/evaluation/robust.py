"""How far the answers depend on the order of the options: figures over the turns of permute.py.

    turns {"i1": ["B", "B", None, "B"]}, answers {"i1": "B"}     labels of the original order; None: unparsed

An unparsed answer is wrong, and agrees with nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence


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
