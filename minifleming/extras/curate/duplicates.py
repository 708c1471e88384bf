"""Drops duplicate items and quarantines items with contradicting answers.

    exact      same words in the question, same set of options, same answer           -> the later one is dropped
    near       both Jaccard similarities >= 0.8 (join.py), same answer                -> the later one is dropped
    conflict   same question and options as an exact duplicate, but another answer    -> all of them to quarantine

Question and options count: under the stem "Which of the following is true?" stand many items. Near items with
different answers are different items ("is true" and "is not true"), and both stay. The first in the order of the input
is kept, so the order of the sets on the command line is the order of trust.
"""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

from minifleming.extras.curate.join import features, greedy, jaccard
from minifleming.extras.curate.step import Dropped, Result, divide, noted
from minifleming.extras.curate.text import answer_key, exact_key
from minifleming.rods.item import Item

STEP = "duplicates"
NEAR = "0.8"  # one word of fifteen may differ, five of seventy-five


def duplicates_step(items: list[Item], *, near: str | Fraction = NEAR) -> Result:
    """``near``: the threshold as an exact decimal, above 0, at most 1."""
    threshold = Fraction(near)
    if not 0 < threshold <= 1:
        raise ValueError("the threshold must be above 0 and at most 1")
    outcomes = exact(items)
    left = [i for i, outcome in enumerate(outcomes) if outcome is None]
    sets, answers = [features(items[i]) for i in left], [answer_key(items[i]) for i in left]
    found = greedy(sets, threshold, lambda a, b: answers[a] == answers[b])
    for place, (i, match) in enumerate(zip(left, found)):
        if match is None:
            outcomes[i] = noted(items[i], STEP)
        else:
            similarity = {"question": round(jaccard(sets[place].question, sets[match].question), 4),
                          "options": round(jaccard(sets[place].options, sets[match].options), 4)}
            outcomes[i] = drop(items[i], "near duplicate", {"of": items[left[match]].id, "similarity": similarity})
    return divide(outcomes)


def exact(items: list[Item]) -> list[Dropped | None]:
    """What becomes of copies and contradictions; None for an item that is neither."""
    groups: dict[tuple, list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        groups[exact_key(item)].append(i)
    outcomes: list[Dropped | None] = [None] * len(items)
    for members in groups.values():
        answers = {items[i].id: items[i].options[items[i].answer] for i in members}
        if len({answer_key(items[i]) for i in members}) > 1:
            for i in members:
                outcomes[i] = drop(items[i], "label conflict", {"answers": answers}, quarantined=True)
        else:
            for i in members[1:]:
                outcomes[i] = drop(items[i], "exact duplicate", {"of": items[members[0]].id})
    return outcomes


def drop(item: Item, reason: str, evidence: dict, quarantined: bool = False) -> Dropped:
    return Dropped(noted(item, STEP, reason=reason), STEP, reason, evidence, quarantined)
