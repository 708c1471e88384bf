"""Mixing by ratio: so much of each source, language and tier (the redistribution of Fig. 2, arXiv:2509.15279).

    blend(items, 300, {"source": {"medqa": 2, "kg": 1}, "tier": {"easy": 1, "difficult": 1}})
        ->  100 easy and 100 difficult ones of medqa, 50 and 50 of kg

Classes are the combinations of the ratios that are given, each with the product of its shares; what has no share is
left out. Whole numbers by the largest remainder. A class that has fewer items gives all of them: none is repeated, and
what is short is reported, not made up from elsewhere. Which items of a class: those with the smallest sha256 of (seed,
id), so that the choice depends on neither the order nor the company, and a larger n only adds items.
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
Ratios = dict[str, dict[str, Fraction]]  # field -> value -> share, e.g. {"tier": {"easy": 1, "difficult": 2}}


@dataclass(frozen=True, slots=True)
class Class:
    """What a class was asked for and what it had."""

    values: tuple[str, ...]
    asked: int
    had: int


@dataclass(slots=True)
class Blend:
    classes: list[Class] = field(default_factory=list)

    @property
    def short(self) -> int:
        return sum(max(0, c.asked - c.had) for c in self.classes)


def blend_step(items: list[Item], n: int, ratios: Ratios, seed: int, report: Blend | None = None) -> Result:
    """``n`` items, in an order drawn by the seed; the others leave with the reason that they were not drawn.

    ``report``, where given, is filled with what every class was asked for and had.
    """
    fields = [name for name in FIELDS if ratios.get(name)]
    members = defaultdict(list)
    for place, item in enumerate(items):
        members[tuple(getattr(item, name) for name in fields)].append(place)
    shares = class_shares(fields, ratios)
    asked = dict(zip(shares, largest_remainder(list(shares.values()), n)))
    if report is not None:
        report.classes = [Class(values, count, len(members[values])) for values, count in asked.items()]
    drawn = {place for values, count in asked.items() for place in draw(items, members[values], count, seed)}
    kept = sorted(drawn, key=lambda place: ticket(items[place], seed))
    left = [not_drawn(item, tuple(getattr(item, name) for name in fields) in asked)
            for place, item in enumerate(items) if place not in drawn]
    return [noted(items[place], STEP) for place in kept], left


def most(items: list[Item], ratios: Ratios) -> int:
    """The largest n for which no class is short."""
    fields = [name for name in FIELDS if ratios.get(name)]
    had = Counter(tuple(getattr(item, name) for name in fields) for item in items)
    shares = class_shares(fields, ratios)
    n = min((had[values] + 1) * sum(shares.values()) // share for values, share in shares.items())
    n = min(n, sum(had[values] for values in shares))
    while n and any(had[v] < count for v, count in zip(shares, largest_remainder(list(shares.values()), n))):
        n -= 1
    return n


def class_shares(fields: list[str], ratios: Ratios) -> dict[tuple[str, ...], Fraction]:
    """The product of the shares of every combination of values; shares of 0 make no class."""
    shares = {}
    for values in product(*(ratios[name] for name in fields)):
        share = Fraction(1)
        for name, value in zip(fields, values):
            share *= ratios[name][value]
        if share:
            shares[values] = share
    return shares


def largest_remainder(shares: list[Fraction], n: int) -> list[int]:
    """Whole numbers with the sum n, none further than 1 from its share of n; among equal remainders the first gains."""
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
