"""Drops duplicate items and quarantines items with contradicting answers.

    exact      same words in the question, same options, same answer      the later one is dropped
    near       both Jaccard similarities >= 0.8, same answer              the later one is dropped
    conflict   same question and options, different answers               all are quarantined

Question and options are compared: many items share the stem "Which of the following is true?".
Near items with different answers are different items ("is true", "is not true") and stay. The first
item in the order of the input stays, so list trusted sets first on the command line.

Near items are found without comparing all pairs. An item has two sets of features, words and pairs
of adjacent words: one of its question, one of its options. If both Jaccard similarities
|A & B| / |A | B| reach the threshold t, that of the united sets does as well. With features ordered
from the rarest to the most frequent, two near items then share one of their first n - ceil(t n) + 1
features (prefix filtering: Chaudhuri et al. 2006; Bayardo et al. 2007). All arithmetic is exact.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from fractions import Fraction
from itertools import repeat

from minifleming.extras.curate.step import Dropped, Result, divide, drop, noted
from minifleming.extras.curate.text import answer_key, exact_key, grams, words
from minifleming.rods.item import Item

STEP = "duplicates"
NEAR = Fraction(4, 5)  # one word of fifteen may differ, five of seventy-five


Features = tuple[frozenset, frozenset]  # of the question, of the options


def features(item: Item) -> Features:
    options = map(phrase, item.options.values())
    return phrase(item.question), frozenset().union(*options)


def phrase(text: str) -> frozenset[tuple]:
    """Returns words and pairs of adjacent words of a text; the text itself if it has no words."""
    tokens = words(text) or [text.strip()]
    return frozenset([*grams(tokens, 1), *grams(tokens, 2)])


def duplicates_step(items: list[Item], near: Fraction = NEAR) -> Result:
    outcomes = exact(items)
    left = [i for i, outcome in enumerate(outcomes) if outcome is None]
    sets = [features(items[i]) for i in left]
    answers = [answer_key(items[i]) for i in left]
    found = greedy(sets, near, lambda a, b: answers[a] == answers[b])
    for place, (i, match) in enumerate(zip(left, found)):
        if match is None:
            outcomes[i] = noted(items[i], STEP)
            continue
        question, options = similarities(sets[place], sets[match])
        similarity = {"question": round(float(question), 4), "options": round(float(options), 4)}
        evidence = {"of": items[left[match]].id, "similarity": similarity}
        outcomes[i] = drop(items[i], STEP, "near duplicate", evidence)
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
                outcomes[i] = drop(items[i], STEP, "label conflict", {"answers": answers}, True)
            continue
        for i in members[1:]:
            outcomes[i] = drop(items[i], STEP, "exact duplicate", {"of": items[members[0]].id})
    return outcomes


def similarities(a: Features, b: Features) -> list[Fraction]:
    """Returns the Jaccard similarity of the questions and that of the options."""
    return [Fraction(len(one & other), len(one | other)) for one, other in zip(a, b)]


def greedy(sets: list[Features], threshold: Fraction,
           same: Callable[[int, int], bool]) -> list[int | None]:
    """Returns for each item the first earlier kept item that is near and the ``same``.

    None: there is none, and the item is kept.
    """
    index: dict[int, list[int]] = defaultdict(list)
    found: list[int | None] = []
    for i, ranks in enumerate(rank(sets)):
        prefix = ranks[: prefix_length(len(ranks), threshold)]
        candidates = set()
        for feature in prefix:
            candidates.update(index[feature])
        match = None
        for j in sorted(candidates):
            if same(i, j) and min(similarities(sets[i], sets[j])) >= threshold:
                match = j
                break
        found.append(match)
        if match is None:
            for feature in prefix:
                index[feature].append(i)
    return found


def rank(sets: list[Features]) -> list[list[int]]:
    """Returns the features of each item as sorted numbers; 0 is the rarest feature."""
    tagged = []
    counts: Counter = Counter()
    for s in sets:
        question, options = s
        one = [*zip(repeat(0), question), *zip(repeat(1), options)]
        counts.update(one)
        tagged.append(one)
    ordered = sorted(counts, key=lambda feature: (counts[feature], feature))
    number = dict(zip(ordered, range(len(ordered))))
    return [sorted(map(number.get, one)) for one in tagged]


def prefix_length(size: int, threshold: Fraction) -> int:
    """n - ceil(t n) + 1"""
    return size - -(-size * threshold.numerator // threshold.denominator) + 1
