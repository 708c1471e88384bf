"""Checks calculations, conversions and the origin of quantities in a reasoning (§1 item 2).

    "70 kg x 2 mg/kg = 140 mg"   an equation: numbers, + - x * / ÷ × − between them, = or ≈
    "0.5 g = 500 mg"             a conversion: an equation without an operator
    "creatinine of 3 mg/dL"      a quantity: a number with a unit

Each check returns None if the text has nothing to check. equations.py reads equations, measures.py
numbers and units.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from decimal import Decimal

from minifleming.extras.numbers.equations import ABOUT, equations, renamed
from minifleming.extras.numbers.measures import READ, UNIT, Side, Token, measure, quantity, tokens

TIME = (("time", 1),)
IONS = {"charge": "amount"}
NUMERALS = "one two three four five six seven eight nine ten eleven twelve".split()
NUMERAL = re.compile(rf"\b({'|'.join(NUMERALS)})(?=[ -]{UNIT})", re.IGNORECASE)
SENTENCE = re.compile(r"(?<=[.;!?])\s|\n|[。；！？]")
NORM = re.compile(  # marks an assumption, a norm or a threshold
    r"\b(?:assum\w*|suppos\w*|presum\w*|normal\w*|typical\w*|usual\w*|ranges?|threshold|cut-?off"
    r"|criteri\w*|defin\w*|target|guideline\w*|recommend\w*|standard|maxim\w*|minim\w*"
    r"|at (?:least|most)|(?:more|less|greater|fewer) than|above|below|over|under|within|up to"
    r"|exceed\w*)\b|[<>≤≥]|假设|假定|正常|通常|一般|标准|阈值|范围|推荐|指南|目标|至少|不超过|以上|以下"
    "|大于|小于", re.IGNORECASE)


def check_numbers(text: str, known: str) -> dict[str, bool | None]:
    """Returns the checks of this file for cold_start/checks.py; ``known``: question and options."""
    return {
        "numbers": equations_hold(text),
        "units": units_kept(text, known),
        "assumptions": assumed(text, known),
    }


def equations_hold(text: str) -> bool | None:
    """Says whether every equation is right to the digits of its right side; None without one.

    "10 / 3 = 3.33"     True, "= 3.34" and "1 / 0 = 0" False; "10 / 3 ≈ 3.5" True: ≈ allows a tenth
    "2 h = 120 min"     True; "2 h = 120 mg" False: of different kinds; "500 mg = 1 g" False: no rounding
    "3 x 5 mg = 15"     True: the numbers are compared if the kinds differ and there is an operator
    "5 g = 30 mmol"     None: depends on the substance, as does "5 mL = 250 mg"
    "n = 40"            None; so is "CHF 1 + age 2 = 3"

    In a chain a = b = c each side is compared with the one before it, or with the first.
    """
    found = [equation.right_is for equation in equations(text) if equation.right_is is not None]
    return all(found) if found else None


def units_kept(text: str, known: str) -> bool | None:
    """Says whether no given number is repeated with another unit of its kind; None: no quantity.

    Known "5 mg", then "5 g": False; True if "5 mg" is repeated as well, or if "5 g" is computed.
    "5 days" is True. Times in a norm ("usually resolves in 3 weeks") are ignored.
    """
    stated = quantities(tokens(text))
    given = quantities(tokens(in_digits(known)))
    if not stated:
        return None
    sources = Sources(given, text)
    stated_units = units_by_number(stated)
    given_units = units_by_number(given)
    norms = set()
    for is_norm, found in sentences(text):
        if is_norm:
            norms.update((q.number, q.unit) for q in found if q.kinds == TIME)
    for q in stated:
        key = (q.number, q.kinds)
        repeated = stated_units[key] & given_units.get(key, set())
        if key in given_units and not repeated and (q.number, q.unit) not in norms:
            if q not in sources:
                return False
    return True


def units_by_number(found: list[Side]) -> dict[tuple, set[str]]:
    units: dict[tuple, set[str]] = {}
    for q in found:
        units.setdefault((q.number, q.kinds), set()).add(q.unit)
    return units


def assumed(text: str, known: str) -> bool | None:
    """Says whether each quantity is given, computed, assumed or a norm; None: no quantity.

    Known "weighs 70 kg": "70 kg", "70000 g" and "70 kg / 2 = 35 kg" True, "80 kg" False, "assume
    80 kg" True. A given number without a unit matches any unit. The result of arithmetic that is
    not read counts as computed.
    """
    row = tokens(in_digits(known))
    allowed = quantities(row)
    allowed += [quantity(token) for token in row if token.kind == "number" and not token.unit]
    stated = []
    for is_norm, found in sentences(text):
        stated += found
        if is_norm:
            allowed += found
    sources = Sources(allowed, text)
    return all(q in sources for q in stated) if stated else None


def quantities(row: Sequence[Token]) -> list[Side]:
    """Returns every number with a unit; in "1.5-2 mg" and "120/80 mmHg" both numbers have it."""
    found = []
    for i, token in enumerate(row):
        if token.kind != "number":
            continue
        unit = token.unit
        if not unit and i + 2 < len(row):
            if row[i + 1].kind == "range" or row[i + 1].text in ("to", "–", "至", "到"):
                unit = row[i + 2].unit
        if unit:
            found.append(quantity(Token("number", token.text.lstrip("-"), unit)))
    return found


def sentences(text: str) -> Iterator[tuple[bool, list[Side]]]:
    """Yields, for each sentence, whether it states an assumption or norm, and its quantities."""
    for sentence in SENTENCE.split(text[:READ]):
        yield NORM.search(sentence) is not None, quantities(tokens(sentence))


class Sources:
    """The quantities that a reasoning may use: given, calculated and converted ones."""

    def __init__(self, given: list[Side], text: str):
        self.bases: dict[tuple, dict[str, list[Decimal]]] = {}  # kinds -> unit -> sorted
        for side in given:
            self.add(side)
        for left, right, _ in equations(text):
            if right and (left is None or left.half is None or left in self):
                self.add(right)
            if left and right.half is None:
                self.add(left)

    def add(self, side: Side) -> None:
        if side.half is not None:
            insort(self.bases.setdefault(side.kinds, {}).setdefault(side.unit, []), side.base)

    def __contains__(self, side: Side) -> bool:
        """Says whether the quantity is given exactly, rounded in another unit, or without a unit.

        "140 mEq/L" equals a given 140 mmol/L: most ions measured in blood have one charge.
        """
        if near(self.bases.get((), {}).get("", []), side.number, 0):
            return True
        slack = min(side.half * measure(side.unit)[0], abs(side.base) * ABOUT)
        for kinds, units in self.bases.items():
            if renamed(kinds, IONS) != renamed(side.kinds, IONS):
                continue
            for unit, bases in units.items():
                rounded = kinds == side.kinds and unit != side.unit
                if near(bases, side.base, slack if rounded else 0):
                    return True
        return False


def near(ordered: list[Decimal], value: Decimal, slack: Decimal | int) -> bool:
    at = bisect_left(ordered, value - slack)
    return at < len(ordered) and ordered[at] <= value + slack


def in_digits(text: str) -> str:
    """ "two weeks" -> "2 weeks" """
    return NUMERAL.sub(lambda word: str(NUMERALS.index(word[1].lower()) + 1), text[:READ])
