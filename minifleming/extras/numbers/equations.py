"""Finds the equations of a text and decides whether they are right.

    "10 / 3 = 3.33, so 0.5 g = 50 mg"   ->  one is right, one is wrong
    "154 lb / 2.2 = 70 kg"              ->  right: 2.2 converts pounds to kilograms

A side with parentheses, powers, a range ("2-3 days"), a date, a name ("pH = 7.2", "T1/2 = 3 h") or
arithmetic in words ("half of 6 mg") is not read and not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

from minifleming.extras.numbers.measures import (
    CALENDAR,
    ZERO,
    Side,
    Token,
    compute,
    measure,
    tokens,
)

ABOUT = Decimal("0.1")  # tolerance of ≈, and of a month or a year in days
ROUNDED = Decimal("0.01")  # tolerance if both sides have operators: "61.2 x 0.83 = 50.8 x 1"
# how much one is of another depends on the substance
SUBSTANCE = dict.fromkeys(("amount", "charge", "activity", "volume"), "mass")


class Equation(NamedTuple):
    left: Side | None  # None: division by zero, or arithmetic that is not read
    right: Side | None
    right_is: bool | None  # None: cannot be decided


@lru_cache(4)
def equations(text: str) -> tuple[Equation, ...]:
    """Returns every = or ≈ with two readable sides, in order."""
    return tuple(read(tokens(text)))


def read(row: Sequence[Token]) -> Iterator[Equation]:
    signs = [i for i, token in enumerate(row) if token.kind == "equal"]
    first = None  # the first side of a chain a = b = c
    for start, sign, end in zip([-1, *signs], signs, [*signs[1:], len(row)]):
        before = row[start + 1 : sign]
        terms = left_terms(before)
        chained = start >= 0 and len(terms) == len(before)
        try:
            left = compute(terms)
            right = compute(right_terms(row[sign + 1 : end]))
        except ZeroDivisionError:
            yield Equation(None, None, False)
            first = None
            continue
        first = first if chained and first else left
        if left and right:
            about = row[sign].text == "≈"
            verdict = agree(left, right, about, chained)
            if verdict is not True and first is not left:
                verdict = agree(first, right, about, chained)
            yield Equation(left, right, verdict)
        elif right and has_arithmetic(before):
            yield Equation(None, right, None)


def left_terms(tokens_before: Sequence[Token]) -> list[Token]:
    """Returns numbers and operators at the end; none if tokens before may change their value."""
    run = list(takewhile(is_term, reversed(tokens_before)))[::-1]
    rest = tokens_before[: len(tokens_before) - len(run)]
    before = list(takewhile(lambda token: token.kind != "stop", reversed(rest)))
    if not before:
        return run
    kinds = {token.kind for token in before}
    if before[0].kind in ("opaque", "function") or kinds & {"operator", "range"}:
        return []
    # "5 mg and 3 mg = 8 mg", "2 tablets of 5 mg x 3 = 30 mg"
    ambiguous = "number" in kinds and (len(run) == 1 or before[0].text == "of")
    return [] if ambiguous else run


def has_arithmetic(row: Sequence[Token]) -> bool:
    """Says whether there is arithmetic, read or not: "(120 + 2 x 80) / 3", "70 / 1.7^2"."""
    kinds = {token.kind for token in row}
    powers = any(token.text in "^√²³" for token in row)
    return "number" in kinds and bool(powers or kinds & {"operator", "function"})


def right_terms(tokens_after: Sequence[Token]) -> list[Token]:
    """Returns numbers and operators at the start; none if the next token belongs to them."""
    run = list(takewhile(is_term, tokens_after))
    rest = tokens_after[len(run) :]
    return [] if rest and rest[0].kind == "opaque" else run


def is_term(token: Token) -> bool:
    return token.kind in ("number", "operator", "range")


def agree(left: Side, right: Side, about: bool, chained: bool) -> bool | None:
    """Says whether the equation is right; None if that cannot be decided."""
    if right.half is None and left.half is not None:
        left, right = right, left
    if left.half is not None:
        verdict = convertible(left, right, chained)
        if verdict is not True:
            return verdict
    value = left.number
    goal = right.number
    if left.kinds is not None and left.kinds == right.kinds:
        value = converted(left, right.unit) if right.half else left.base
        goal = right.number if right.half else right.base
    if left.half is not None and (left.unit in CALENDAR) != (right.unit in CALENDAR):
        about = True
    tolerance = ABOUT if about else 0 if right.half else ROUNDED
    slack = max(right.half or 0, abs(goal) * tolerance)
    if left.half is not None and not about:
        slack = min(slack, abs(goal) * ABOUT)  # "500 mg = 1 g" is not a rounding
    if "%" in right.unit and left.hundred and abs(left.number - right.number) <= slack:
        return True  # "5 / 20 x 100 = 25 %"
    if abs(value - goal) <= slack:
        return True
    if left.half is None and left.kinds == right.kinds:
        return abs(left.number - right.number) <= slack and factor_between(left, right)
    if left.half is None and (left.kinds or left.base != left.number) and left.bare and right.unit:
        return None  # "100 mL/h x 24 = 2.4 L": the unit of 24 is unknown
    return False


def factor_between(left: Side, right: Side) -> bool:
    """Says whether a factor converts left to right: the 7 of "3 weeks x 7 = 21 days"."""
    ratio = left.base / right.base if right.base else 0
    return any(abs(factor - ratio) <= ABOUT * ratio for factor in left.bare)


def convertible(left: Side, right: Side, chained: bool) -> bool | None:
    """Says whether two quantities can be equal; None if that cannot be decided."""
    if not (left.unit and right.unit):
        return True if chained and left.unit == right.unit else None
    if left.kinds == right.kinds:
        return True
    if not (left.kinds and right.kinds):
        return None  # percent: of what?
    return None if renamed(left.kinds, SUBSTANCE) == renamed(right.kinds, SUBSTANCE) else False


def renamed(kinds: tuple, names: dict[str, str]) -> list:
    """Returns the kinds with some of them identified with others."""
    return sorted((names.get(kind, kind), exponent) for kind, exponent in kinds)


def converted(side: Side, unit: str) -> Decimal:
    """Returns the value in another unit of the same kinds."""
    return side.base / measure(unit)[0] + ZERO.get(unit, 0)
