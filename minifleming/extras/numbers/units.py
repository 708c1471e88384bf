"""Numbers and units of a reasoning: calculations must be right, conversions true, quantities accounted for (§1 item 2).

    "70 kg x 2 mg/kg = 140 mg"   an equation: numbers with or without units, + - x * / ÷ × − between them, = or ≈
    "0.5 g = 500 mg"             a conversion: an equation without an operator
    "creatinine of 3 mg/dL"      a quantity: a number with a unit

Each function says None where the text has nothing of its kind; equations.py says what is read as an equation,
measures.py what as a number or unit.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from decimal import Decimal

from minifleming.extras.numbers.equations import ABOUT, equations
from minifleming.extras.numbers.measures import READ, UNIT, Side, Token, measure, quantity, tokens

TIME = (("time", 1),)
WORDS = dict(zip("one two three four five six seven eight nine ten eleven twelve".split(), range(1, 13)))
WORD = re.compile(rf"\b({'|'.join(WORDS)})(?=[ -]{UNIT})", re.IGNORECASE)
SENTENCE = re.compile(r"(?<=[.;!?])\s|\n|[。；！？]")
STATED = re.compile("|".join([
    r"\b(?:assum\w*|suppos\w*|presum\w*|normal\w*|typical\w*|usual\w*|ranges?|threshold|cut-?off|criteri\w*|defin\w*",
    r"target|guideline\w*|recommend\w*|standard|maxim\w*|minim\w*|at (?:least|most)|(?:more|less|greater|fewer) than",
    r"above|below|over|under|within|up to|exceed\w*)\b", "[<>≤≥]|假设|假定|正常|通常|一般|标准|阈值|范围",
    "推荐|指南|目标|至少|不超过|以上|以下|大于|小于"]), re.IGNORECASE)


def check_numbers(text: str, known: str) -> dict[str, bool | None]:
    """Returns the checks of this file for cold_start/checks.py; ``known``: question and options."""
    return {
        "numbers": equations_hold(text),
        "units": units_kept(text, known),
        "assumptions": assumed(text, known),
    }


def equations_hold(text: str) -> bool | None:
    """Is every equation right within the rounding of the digits on its right side? None if none could be read.

    "10 / 3 = 3.33"     True, "= 3.34" and "1 / 0 = 0" False; "10 / 3 ≈ 3.5" True: ≈ allows a tenth
    "2 h = 120 min"     True; "2 h = 120 mg" False: of different kinds; "500 mg = 1 g" False: no rounding
    "3 x 5 mg = 15"     True: where the kinds differ, and it is no plain conversion, the numbers are compared
    "5 g = 30 mmol"     None: depends on the substance; so does "5 mL = 250 mg"; "n = 40", "CHF 1 + age 2 = 3": None

    In a chain a = b = c each side is held against the one before it, or the first.
    """
    found = [equation.right_is for equation in equations(text) if equation.right_is is not None]
    return all(found) if found else None


def units_kept(text: str, known: str) -> bool | None:
    """Does no number that the question gives with a unit come back with another unit of its kind? None: no quantity.

    Known "5 mg", then "5 g": False, but "5 days" True; "5 g" beside "5 mg" True; so is "5 g" where it is computed.
    Times in a sentence that tells a norm ("usually resolves in 3 weeks") are passed over.
    """
    said, given = quantities(tokens(text)), quantities(tokens(in_digits(known)))
    if not said:
        return None
    right = Sources(given, text)
    units = {(q.number, q.kinds): set() for q in given}
    for q in given:
        units[q.number, q.kinds].add(q.unit)
    repeated = {(q.number, q.kinds, q.unit) for q in said}
    norms = {(q.number, q.unit) for stated, found in sentences(text) if stated for q in found if q.kinds == TIME}
    return not any((q.number, q.kinds) in units and (q.number, q.unit) not in norms and q not in right
                   and not any((q.number, q.kinds, unit) in repeated for unit in units[q.number, q.kinds])
                   for q in said)


def assumed(text: str, known: str) -> bool | None:
    """Is each quantity given, computed, or said to be an assumption, a norm or a threshold? None: no quantity.

    Known "weighs 70 kg": "70 kg", "70000 g" and "70 kg / 2 = 35 kg" True, "80 kg" False, "assume 80 kg" True. A number
    that the question gives without a unit may have any. What follows arithmetic that is not read counts as computed.
    """
    row = tokens(in_digits(known))
    given = [*quantities(row), *(quantity(token) for token in row if token.kind == "number" and not token.unit)]
    told = list(sentences(text))
    right = Sources([*given, *(q for stated, said in told if stated for q in said)], text)
    found = [q in right for _, said in told for q in said]
    return all(found) if found else None


def quantities(row: Sequence[Token]) -> list[Side]:
    """Every number with a unit; in "1.5-2 mg" and "120/80 mmHg" both have it."""
    found = []
    for i, token in enumerate(row):
        unit = token.unit
        if token.kind == "number" and not unit and i + 2 < len(row) and (
                row[i + 1].kind == "range" or row[i + 1].text in ("to", "–", "至", "到")):
            unit = row[i + 2].unit
        if token.kind == "number" and unit:
            found.append(quantity(Token("number", token.text.lstrip("-"), unit)))
    return found


def sentences(text: str) -> Iterator[tuple[bool, list[Side]]]:
    """Of each sentence: whether it marks what it says as assumption or norm, and its quantities."""
    for sentence in SENTENCE.split(text[:READ]):
        yield STATED.search(sentence) is not None, quantities(tokens(sentence))


class Sources:
    """The quantities that a reasoning may use: given ones, and results of its own calculations and conversions."""

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
        """Exactly, in another unit within the rounding of its digits, or as a number that was written without unit.

        "140 mEq/L" where 140 mmol/L is given stands, too: of what is measured in blood, most ions have one charge.
        """
        slack = min(side.half * measure(side.unit)[0], abs(side.base) * ABOUT)
        return (near(self.bases.get((), {}).get("", []), side.number, 0)
                or any(near(bases, side.base, 0) for kinds, units in self.bases.items()
                       if ionic(kinds) == ionic(side.kinds) for bases in units.values())
                or any(near(bases, side.base, 0 if unit == side.unit else slack)
                       for unit, bases in self.bases.get(side.kinds, {}).items()))


def ionic(kinds: tuple) -> list:
    return sorted(("amount" if kind == "charge" else kind, exponent) for kind, exponent in kinds)


def near(ordered: list[Decimal], value: Decimal, slack: Decimal | int) -> bool:
    at = bisect_left(ordered, value - slack)
    return at < len(ordered) and ordered[at] <= value + slack


def in_digits(text: str) -> str:
    """ "two weeks" -> "2 weeks" """
    return WORD.sub(lambda word: str(WORDS[word[1].lower()]), text[:READ])
