"""Mixes items by ratios of source, language and tier (redistribution, arXiv:2509.15279 Fig. 2).

    blend(items, 300, {"source": {"medqa": 2, "kg": 1}, "tier": {"easy": 1, "difficult": 1}})
        ->  100 easy and 100 difficult items of medqa, 50 and 50 of kg

A class is a combination of values; its share is the product of their shares. Items without a share
are left out. Counts are rounded by the largest remainder. A class with too few items gives all of
them; no item is repeated, and the deficit is reported. Within a class the items with the smallest
sha256 of (seed, id) are drawn: the choice does not depend on other items, and a larger n only adds
items.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product

from minifleming.extras.curate.step import Dropped, Result, noted
from minifleming.rods.item import Item

STEP = "blend"
FIELDS = ("source", "language", "tier")
Ratios = dict[str, dict[str, Fraction]]  # share by field and value: {"tier": {"easy": 1}}


@dataclass(frozen=True, slots=True)
class Class:
    """How many items of a class were requested, and how many there are."""

    values: tuple[str, ...]
    asked: int
    had: int


@dataclass(slots=True)
class Blend:
    classes: list[Class] = field(default_factory=list)

    @property
    def short(self) -> int:
        return sum(max(0, c.asked - c.had) for c in self.classes)


def blend_step(items: list[Item], n: int, ratios: Ratios, seed: int,
               report: Blend | None = None) -> Result:
    """Draws ``n`` items, in an order that the seed determines; the others are dropped.

    ``report``, if given, receives the classes.
    """
    fields = [name for name in FIELDS if ratios.get(name)]
    members = defaultdict(list)
    for place, item in enumerate(items):
        members[tuple(getattr(item, name) for name in fields)].append(place)
    shares = class_shares(fields, ratios)
    asked = dict(zip(shares, largest_remainder(list(shares.values()), n)))
    if report is not None:
        for values, count in asked.items():
            report.classes.append(Class(values, count, len(members[values])))
    drawn = set()
    for values, count in asked.items():
        drawn.update(draw(items, members[values], count, seed))
    kept = sorted(drawn, key=lambda place: ticket(items[place], seed))
    left = [not_drawn(item, tuple(getattr(item, name) for name in fields) in asked)
            for place, item in enumerate(items) if place not in drawn]
    return [noted(items[place], STEP) for place in kept], left


def most(items: list[Item], ratios: Ratios) -> int:
    """Returns the largest n for which every class has enough items."""
    fields = [name for name in FIELDS if ratios.get(name)]
    had = Counter(tuple(getattr(item, name) for name in fields) for item in items)
    shares = class_shares(fields, ratios)
    n = min((had[values] + 1) * sum(shares.values()) // share for values, share in shares.items())
    n = min(n, sum(had[values] for values in shares))
    while n:
        counts = largest_remainder(list(shares.values()), n)
        if all(had[values] >= count for values, count in zip(shares, counts)):
            break
        n -= 1
    return n


def class_shares(fields: list[str], ratios: Ratios) -> dict[tuple[str, ...], Fraction]:
    """Returns the share of every combination of values; a share of 0 makes no class."""
    shares = {}
    for values in product(*(ratios[name] for name in fields)):
        share = Fraction(1)
        for name, value in zip(fields, values):
            share *= ratios[name][value]
        if share:
            shares[values] = share
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


def ticket(item: Item, seed: int) -> tuple[bytes, str]:
    return hashlib.sha256(f"{seed}\x1f{item.id}".encode()).digest(), item.id


def draw(items: list[Item], places: list[int], count: int, seed: int) -> list[int]:
    return sorted(places, key=lambda place: ticket(items[place], seed))[:count]


def not_drawn(item: Item, has_class: bool) -> Dropped:
    reason = "not drawn" if has_class else "its class has no share"
    return Dropped(noted(item, STEP, reason=reason), STEP, reason)
