"""Finds near-duplicate items without comparing all pairs.

An item is two sets of word features, one of its question and one of its options: single words and pairs of neighbours.
Two items are near if both Jaccard similarities reach the threshold t: |A & B| / |A | B| >= t for the questions and for
the options. Then the union of the two sets reaches t as well, and so, with the features ordered from the rarest to the
commonest, the first n - ceil(t n) + 1 of n features of the two share one (prefix filtering: Chaudhuri et al. 2006;
Bayardo et al. 2007). Only items that share one are compared; no near pair is missed.

    greedy([features, ...], Fraction(4, 5), same)  ->  [None, None, 0, ...]    item 2 is near item 0, which came first

All arithmetic is in whole numbers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from minifleming.extras.curate.text import grams, words
from minifleming.rods.item import Item

Feature = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Features:
    question: frozenset[Feature]
    options: frozenset[Feature]


def features(item: Item) -> Features:
    return Features(phrase(item.question), frozenset().union(*(phrase(text) for text in item.options.values())))


def phrase(text: str) -> frozenset[Feature]:
    """The words and the pairs of neighbours of a text; the text itself where it has no words."""
    tokens = words(text) or [text.strip()]
    return frozenset([*grams(tokens, 1), *grams(tokens, 2)])


def jaccard_at_least(a: frozenset | set, b: frozenset | set, threshold: Fraction) -> bool:
    common = len(a & b)
    return common * threshold.denominator >= (len(a) + len(b) - common) * threshold.numerator


def jaccard(a: frozenset | set, b: frozenset | set) -> float:
    common = len(a & b)
    return common / (len(a) + len(b) - common)


def near(a: Features, b: Features, threshold: Fraction) -> bool:
    return (jaccard_at_least(a.options, b.options, threshold)
            and jaccard_at_least(a.question, b.question, threshold))


def greedy(sets: list[Features], threshold: Fraction, same: Callable[[int, int], bool]) -> list[int | None]:
    """For each item the first one kept before it that is near it and the ``same``; None: it is kept itself."""
    ranked = rank(sets)
    index: dict[int, list[int]] = defaultdict(list)
    found: list[int | None] = []
    for i, ranks in enumerate(ranked):
        size, prefix = len(ranks), ranks[: prefix_length(len(ranks), threshold)]
        candidates = {j for feature in prefix for j in index[feature]}
        match = next((j for j in sorted(candidates) if fits(size, len(ranked[j]), threshold) and same(i, j)
                      and near(sets[i], sets[j], threshold)), None)
        found.append(match)
        if match is None:
            for feature in prefix:
                index[feature].append(i)
    return found


def rank(sets: list[Features]) -> list[list[int]]:
    """The features of each item as numbers, rising from the rarest feature to the commonest."""
    tagged = [[*((0, *f) for f in s.question), *((1, *f) for f in s.options)] for s in sets]
    counts = Counter(feature for one in tagged for feature in one)
    number = {feature: n for n, feature in enumerate(sorted(counts, key=lambda f: (counts[f], f)))}
    return [sorted(number[feature] for feature in one) for one in tagged]


def prefix_length(size: int, threshold: Fraction) -> int:
    """n - ceil(t n) + 1"""
    return size - -(-size * threshold.numerator // threshold.denominator) + 1


def fits(a: int, b: int, threshold: Fraction) -> bool:
    """Sets of these sizes can be near: the smaller is at least t of the larger."""
    return min(a, b) * threshold.denominator >= max(a, b) * threshold.numerator
