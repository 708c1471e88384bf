"""Finds near-duplicate items without comparing all pairs.

An item has two sets of features, words and pairs of adjacent words: one of its question, one of its
options. Two items are near if both Jaccard similarities |A & B| / |A | B| reach the threshold t.
Then the similarity of the united sets reaches t as well. With features ordered from the rarest to
the most frequent, two near items share one of their first n - ceil(t n) + 1 features (prefix
filtering: Chaudhuri et al. 2006; Bayardo et al. 2007). Only items that share one are compared.

    greedy([features, ...], Fraction(4, 5), same)  ->  [None, None, 0]    item 2 is near item 0

All arithmetic is exact.
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
    options = [phrase(text) for text in item.options.values()]
    return Features(phrase(item.question), frozenset().union(*options))


def phrase(text: str) -> frozenset[Feature]:
    """Returns words and pairs of adjacent words of a text; the text itself if it has no words."""
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


def greedy(sets: list[Features], threshold: Fraction,
           same: Callable[[int, int], bool]) -> list[int | None]:
    """Returns for each item the first earlier kept item that is near and the ``same``.

    None: there is none, and the item is kept.
    """
    ranked = rank(sets)
    index: dict[int, list[int]] = defaultdict(list)
    found: list[int | None] = []
    for i, ranks in enumerate(ranked):
        prefix = ranks[: prefix_length(len(ranks), threshold)]
        candidates = set()
        for feature in prefix:
            candidates.update(index[feature])
        match = None
        for j in sorted(candidates):
            possible = fits(len(ranks), len(ranked[j]), threshold) and same(i, j)
            if possible and near(sets[i], sets[j], threshold):
                match = j
                break
        found.append(match)
        if match is None:
            for feature in prefix:
                index[feature].append(i)
    return found


def rank(sets: list[Features]) -> list[list[int]]:
    """Returns the features of each item as numbers; 0 is the rarest feature."""
    tagged = []
    counts: Counter = Counter()
    for s in sets:
        one = [(0, *feature) for feature in s.question]
        one += [(1, *feature) for feature in s.options]
        counts.update(one)
        tagged.append(one)
    ordered = sorted(counts, key=lambda feature: (counts[feature], feature))
    number = dict(zip(ordered, range(len(ordered))))
    return [sorted(map(number.get, one)) for one in tagged]


def prefix_length(size: int, threshold: Fraction) -> int:
    """n - ceil(t n) + 1"""
    return size - -(-size * threshold.numerator // threshold.denominator) + 1


def fits(a: int, b: int, threshold: Fraction) -> bool:
    """Says whether sets of these sizes can be near: the smaller is at least t of the larger."""
    return min(a, b) * threshold.denominator >= max(a, b) * threshold.numerator
