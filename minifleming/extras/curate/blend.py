"""Mixes items by ratios of source, language and tier (redistribution, arXiv:2509.15279 Fig. 2).

    blend(items, 300, {"source": {"medqa": 2, "kg": 1}, "tier": {"easy": 1, "difficult": 1}}, 0)
        ->  100 easy and 100 difficult items of medqa, 50 and 50 of kg

A class is a combination of values; its share is the product of their shares. Items without a share
are left out. Counts are rounded by the largest remainder. A class with too few items gives all of
them; no item is repeated, and the deficit is reported. Within a class the items with the smallest
sha256 of (seed, id) are drawn: the choice does not depend on other items, and a larger n only adds
items.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from fractions import Fraction
from itertools import product
from typing import NamedTuple

from minifleming.extras.curate.step import Dropped, drop, noted
from minifleming.rods.item import Item

STEP = "blend"
FIELDS = ("source", "language", "tier")
Ratios = dict[str, dict[str, Fraction]]  # share by field and value: {"tier": {"easy": 1}}


class Class(NamedTuple):
    """How many items of a class were requested, and how many there are."""

    values: tuple[str, ...]
    asked: int
    had: int

    @property
    def short(self) -> int:
        return max(0, self.asked - self.had)


def blend(items: list[Item], n: int, ratios: Ratios,
          seed: int) -> tuple[list[Item], list[Dropped], list[Class]]:
    """Draws ``n`` items, in an order that the seed determines; the others are dropped."""

    def ticket(item: Item) -> tuple[bytes, str]:
        return hashlib.sha256(f"{seed}\x1f{item.id}".encode()).digest(), item.id

    members = by_class(items, ratios)
    shares = class_shares(ratios)
    classes = []
    drawn = {}  # by id
    for values, count in zip(shares, largest_remainder(list(shares.values()), n)):
        classes.append(Class(values, count, len(members[values])))
        for item in sorted(members[values], key=ticket)[:count]:
            drawn[item.id] = noted(item, STEP)
    left = []
    for item in items:
        if item.id not in drawn:
            has_class = class_of(item, ratios) in shares
            left.append(drop(item, STEP, "not drawn" if has_class else "its class has no share"))
    return sorted(drawn.values(), key=ticket), left, classes


def most(items: list[Item], ratios: Ratios) -> int:
    """Returns the largest n for which every class has enough items."""
    members = by_class(items, ratios)
    shares = class_shares(ratios)
    had = [len(members[values]) for values in shares]
    for n in range(sum(had), 0, -1):
        counts = largest_remainder(list(shares.values()), n)
        if all(count <= limit for count, limit in zip(counts, had)):
            return n
    return 0


def by_class(items: list[Item], ratios: Ratios) -> dict[tuple[str, ...], list[Item]]:
    members = defaultdict(list)
    for item in items:
        members[class_of(item, ratios)].append(item)
    return members


def class_of(item: Item, ratios: Ratios) -> tuple[str, ...]:
    return tuple(getattr(item, name) for name in FIELDS if ratios.get(name))


def class_shares(ratios: Ratios) -> dict[tuple[str, ...], Fraction]:
    """Returns the share of every combination of values; a share of 0 makes no class."""
    given = [ratios[name].items() for name in FIELDS if ratios.get(name)]
    shares = {}
    for pairs in product(*given):
        share = Fraction(1)
        for _, factor in pairs:
            share *= factor
        if share:
            shares[tuple(value for value, _ in pairs)] = share
    return shares


def largest_remainder(shares: list[Fraction], n: int) -> list[int]:
    """Rounds the shares of n to integers with the sum n; the first of equal remainders gains."""
    total = sum(shares)
    exact = [share * n / total for share in shares]
    counts = [int(x) for x in exact]
    order = sorted(range(len(shares)), key=lambda i: (counts[i] - exact[i], i))
    for i in order[: n - sum(counts)]:
        counts[i] += 1
    return counts
