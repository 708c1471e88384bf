"""The equations of a text, and whether they are right.

    "10 / 3 = 3.33, so 0.5 g = 50 mg"   ->  one that is right, one that is wrong
    "154 lb / 2.2 = 70 kg"              ->  right: 2.2 is what makes pounds of kilograms

A side with parentheses, powers, a range ("2-3 days"), a date, a name ("pH = 7.2", "T1/2 = 3 h") or spoken arithmetic
("half of 6 mg") is not read, and what is not read is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

from minifleming.extras.numbers.measures import CALENDAR, ZERO, Side, Token, compute, measure, tokens

ABOUT = Decimal("0.1")  # what ≈ allows, and a month or a year against days
ROUNDED = Decimal("0.01")  # between two sides that both have operators: "61.2 x 0.83 = 50.8 x 1"
SUBSTANCE = dict.fromkeys(("amount", "charge", "activity", "volume"), "mass")  # how much one is of another: by drug


class Equation(NamedTuple):
    left: Side | None  # None: divided by zero, or arithmetic that is not read
    right: Side | None
    right_is: bool | None  # None: cannot be decided


@lru_cache(4)
def equations(text: str) -> tuple[Equation, ...]:
    """Every = or ≈ whose two sides could be read, in their order."""
    return tuple(read(tokens(text)))


def read(row: Sequence[Token]) -> Iterator[Equation]:
    at = [-1, *(i for i, token in enumerate(row) if token.kind == "equal"), len(row)]
    gaps = [row[i + 1 : j] for i, j in zip(at, at[1:])]
    first = None
    for i, (before, after) in enumerate(zip(gaps, gaps[1:])):
        left, right = ending(before), starting(after)
        whole = i > 0 and len(left) == len(before)  # the right side of the equation before it
        try:
            left, right = compute(left), compute(right)
        except ZeroDivisionError:
            yield Equation(None, None, False)
            first = None
            continue
        first = first if whole and first else left
        if left and right:
            wide = row[at[i + 1]].text == "≈"
            verdict = agree(left, right, wide, whole)
            if verdict is not True and first is not left:
                verdict = agree(first, right, wide, whole)
            yield Equation(left, right, verdict)
        elif right and reckons(before):
            yield Equation(None, right, None)


def ending(gap: Sequence[Token]) -> list[Token]:
    """The numbers and operators at the end; none if what is before them could change their value."""
    run = list(takewhile(counts, reversed(gap)))[::-1]
    before = list(takewhile(lambda token: token.kind != "stop", reversed(gap[: len(gap) - len(run)])))
    if not before:
        return run
    if before[0].kind in ("opaque", "function") or any(token.kind in ("operator", "range") for token in before):
        return []
    counted = any(token.kind == "number" for token in before)  # "5 mg and 3 mg = 8 mg", "2 tablets of 5 mg x 3 = 30 mg"
    return [] if counted and (len(run) == 1 or before[0].text == "of") else run


def reckons(gap: Sequence[Token]) -> bool:
    """Is there a number and arithmetic, though not of a kind that is read: "(120 + 2 x 80) / 3", "70 / 1.7^2"?"""
    return any(token.kind == "number" for token in gap) and any(
        token.kind in ("operator", "function") or token.text in "^√²³" for token in gap)


def starting(gap: Sequence[Token]) -> list[Token]:
    """The numbers and operators at the start; none if what follows belongs to them."""
    run = list(takewhile(counts, gap))
    return [] if len(run) < len(gap) and gap[len(run)].kind == "opaque" else run


def counts(token: Token) -> bool:
    return token.kind in ("number", "operator", "range")


def agree(left: Side, right: Side, wide: bool, chained: bool) -> bool | None:
    """Is the equation right? None if that cannot be decided."""
    if right.half is None and left.half is not None:
        left, right = right, left
    if left.half is not None and (verdict := convertible(left, right, chained)) is not True:
        return verdict
    value, goal = left.number, right.number
    if left.kinds is not None and left.kinds == right.kinds:
        value, goal = (converted(left, right.unit), goal) if right.half else (left.base, right.base)
    mixed = left.half is not None and (left.unit in CALENDAR) != (right.unit in CALENDAR)
    slack = max(right.half or 0, abs(goal) * (ABOUT if wide or mixed else 0 if right.half else ROUNDED))
    if left.half is not None and not (wide or mixed):
        slack = min(slack, abs(goal) * ABOUT)  # "500 mg = 1 g" is no rounding
    if "%" in right.unit and left.hundred and abs(left.number - right.number) <= slack:
        return True  # "5 / 20 x 100 = 25 %"
    if abs(value - goal) <= slack:
        return True
    if left.half is None and left.kinds == right.kinds:
        return abs(left.number - right.number) <= slack and factor_between(left, right)
    of_what = left.half is None and (left.kinds or left.base != left.number) and left.bare and right.unit
    return None if of_what else False  # "100 mL/h x 24 = 2.4 L": 24 of what?


def factor_between(left: Side, right: Side) -> bool:
    """Is one factor of the left side the size of its unit in the right side's: the 7 of "3 weeks x 7 = 21 days"?"""
    ratio = left.base / right.base if right.base else 0
    return any(abs(factor - ratio) <= ABOUT * ratio for factor in left.bare)


def convertible(left: Side, right: Side, chained: bool) -> bool | None:
    """May two plain quantities stand for one another? None if nobody can say."""
    if not (left.unit and right.unit):
        return True if chained and left.unit == right.unit else None
    if left.kinds == right.kinds:
        return True
    if not (left.kinds and right.kinds):
        return None  # percent: of what?
    return None if by_substance(left) == by_substance(right) else False


def by_substance(side: Side) -> list:
    return sorted((SUBSTANCE.get(kind, kind), exponent) for kind, exponent in side.kinds)


def converted(side: Side, unit: str) -> Decimal:
    """Its value in another unit of its kinds."""
    return side.base / measure(unit)[0] + ZERO.get(unit, 0)
