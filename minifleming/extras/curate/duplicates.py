"""Drops duplicate items and quarantines items with contradicting answers.

    exact      same words in the question, same options, same answer      the later one is dropped
    near       both Jaccard similarities >= 0.8 (join.py), same answer    the later one is dropped
    conflict   same question and options, different answers               all are quarantined

Question and options are compared: many items share the stem "Which of the following is true?".
Near items with different answers are different items ("is true", "is not true") and stay. The first
item in the order of the input stays, so list trusted sets first on the command line.
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
    """``near``: the threshold as a decimal above 0, at most 1."""
    threshold = Fraction(near)
    if not 0 < threshold <= 1:
        raise ValueError("the threshold must be above 0 and at most 1")
    outcomes = exact(items)
    left = [i for i, outcome in enumerate(outcomes) if outcome is None]
    sets = [features(items[i]) for i in left]
    answers = [answer_key(items[i]) for i in left]
    found = greedy(sets, threshold, lambda a, b: answers[a] == answers[b])
    for place, (i, match) in enumerate(zip(left, found)):
        if match is None:
            outcomes[i] = noted(items[i], STEP)
        else:
            one, other = sets[place], sets[match]
            similarity = {"question": round(jaccard(one.question, other.question), 4),
                          "options": round(jaccard(one.options, other.options), 4)}
            evidence = {"of": items[left[match]].id, "similarity": similarity}
            outcomes[i] = drop(items[i], "near duplicate", evidence)
    return divide(outcomes)


def exact(items: list[Item]) -> list[Dropped | None]:
    """Returns the outcome of copies and conflicts; None for other items."""
    groups: dict[tuple, list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        groups[exact_key(item)].append(i)
    outcomes: list[Dropped | None] = [None] * len(items)
    for members in groups.values():
        answers = {items[i].id: items[i].options[items[i].answer] for i in members}
        if len({answer_key(items[i]) for i in members}) > 1:
            for i in members:
                evidence = {"answers": answers}
                outcomes[i] = drop(items[i], "label conflict", evidence, quarantined=True)
        else:
            for i in members[1:]:
                outcomes[i] = drop(items[i], "exact duplicate", {"of": items[members[0]].id})
    return outcomes


def drop(item: Item, reason: str, evidence: dict, quarantined: bool = False) -> Dropped:
    return Dropped(noted(item, STEP, reason=reason), STEP, reason, evidence, quarantined)
