"""Numbers and units of a reasoning: calculations must be right, conversions true, quantities accounted for (§1 item 2).

    "70 kg x 2 mg = 140 mg"      an equation: + - x * / ÷ × and = ; right within the digits that are written
    "0.5 g = 500 mg"             a conversion, of one kind of unit
    "creatinine of 3 mg"         a quantity: a number with a unit

Each function says None where the text has nothing of its kind. Only plain numbers are read: what is not read is not judged.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

UNITS = {  # unit -> (kind, how many of the kind's first unit)
    "kg": ("mass", "1000"), "g": ("mass", "1"), "mg": ("mass", "1e-3"), "mcg": ("mass", "1e-6"), "µg": ("mass", "1e-6"),
    "μg": ("mass", "1e-6"), "ng": ("mass", "1e-9"),
    "l": ("volume", "1"), "dl": ("volume", "0.1"), "ml": ("volume", "1e-3"),
    "m": ("length", "1"), "cm": ("length", "0.01"), "mm": ("length", "1e-3"),
    "h": ("time", "3600"), "hours": ("time", "3600"), "hour": ("time", "3600"), "min": ("time", "60"),
    "minutes": ("time", "60"), "days": ("time", "86400"), "day": ("time", "86400"), "weeks": ("time", "604800"),
    "week": ("time", "604800"), "months": ("months", "1"), "years": ("months", "12"), "year": ("months", "12"),
    "mol": ("amount", "1"), "mmol": ("amount", "1e-3"), "mmhg": ("pressure", "1"), "kpa": ("pressure", "7.50062"),
    "%": ("share", "1"), "bpm": ("rate", "1"), "meq": ("charge", "1"), "iu": ("activity", "1"),
    "°c": ("celsius", "1"), "°f": ("fahrenheit", "1"),
}
UNIT = r"(?:" + "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True)) + r")(?:/(?:" + "|".join(
    sorted(map(re.escape, UNITS), key=len, reverse=True)) + r"))*"
NUMBER = r"[-+]?\d{1,12}(?:,\d{3}){0,4}(?:\.\d{1,9})?"
TERM = rf"(?<![\w.]){NUMBER}(?: ?{UNIT}(?!\w))?"
QUANTITY = re.compile(rf"(?<![\w.,])({NUMBER}) ?({UNIT})(?!\w)", re.IGNORECASE)
EQUATION = re.compile(rf"({TERM}(?: ?[-+*/x×÷−] ?{TERM}){{0,8}}) ?(=|≈) ?({TERM})(?!\w)", re.IGNORECASE)
STATED = re.compile(r"\b(?:assum\w*|suppos\w*|presum\w*|normal\w*|typical\w*|usual\w*|range\w*|threshold|cut-?off|criteri\w*|"
                    r"defin\w*|target|guideline\w*|recommend\w*|standard|maximum|minimum|at least|at most|more than|less than|"
                    r"above|below|over|under|within)\b|[<>≤≥]", re.IGNORECASE)


class Quantity(NamedTuple):
    value: Decimal
    unit: str  # lower case, as written: "mg", "mg/dl"


def equations_hold(text: str) -> bool | None:
    return None


def units_kept(text: str, known: str) -> bool | None:
    return None


def assumed(text: str, known: str) -> bool | None:
    return None
