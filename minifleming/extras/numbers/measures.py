"""Reads numbers, units and arithmetic in running text, and computes the results.

    "70 kg x 2 mg/kg"   ->  number 140, base Decimal("0.14") in g, kinds (("mass", 1),)

Plain numbers are read ("1,500", "0.75"), in the first ``READ`` characters of a text; full-width
digits, dates and numbers inside names ("HLA-B27", "T1/2") are not. Linear in the text's length.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from operator import mul, truediv
from pathlib import Path
from typing import NamedTuple

READ = 8_000  # characters; twice the default of the check of brevity
TERMS = 16  # maximum number of terms of one side
ZERO = {"°f": 32}  # where a scale's zero is not 0 of the kind's first unit


UNITS: dict[str, tuple[str, Decimal]] = {}  # kind and size of every unit of units.toml
for kind, row in tomllib.loads(
        (Path(__file__).parent / "units.toml").read_text(encoding="utf-8")).items():
    for entry in row["units"].split():
        name, _, size = entry.partition("=")
        UNITS[name] = ("" if kind == "none" else kind, Decimal(size))
        if name.isascii() and name.isalpha() and len(name) > 3:
            UNITS[name + "s"] = UNITS[name]
CALENDAR = {name for name, (kind, size) in UNITS.items()  # months and years vary in length
            if kind == "time" and size > 2e6}

LETTER = "A-Za-zÀ-ÖØ-öø-ɏͰ-Ͽ_"
LONG_UNITS = sorted((re.escape(u) for u in UNITS if len(u) > 1 or not u.isascii()),
                    key=len, reverse=True)
ONE_UNIT = f"(?:{'|'.join(LONG_UNITS)}|[lLU%]|(?-i:[gmhsd]))(?![{LETTER}0-9])"
UNIT = f"{ONE_UNIT}(?: ?/ ?{ONE_UNIT}){{0,3}}"
NUMBER = (r"(?:0|[1-9][0-9]{0,11}|[1-9][0-9]{0,2}(?:,[0-9]{3}){1,4})(?:\.[0-9]{1,9})?"
          r"(?![.,]?[0-9])")
DATE = r"(?:(?:19|20)\d\d[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.](?:19|20)\d\d)(?!\d)"
TOKEN = re.compile("|".join([
    rf"(?P<opaque>{DATE}|(?<=\d):(?=\d)|[<>!:]=|=[<>=]|[\^√∛±~⁰¹²³⁴-⁹]|^[ \t]*-(?=\d))",
    r"(?P<bullet>^[ \t]*[-*+] )",
    rf"(?P<number>(?:(?<![{LETTER}0-9.])|(?<=[0-9]x)|(?<=[0-9] x)){NUMBER})"
    rf"(?:[ -]?(?P<unit>{UNIT})|(?![{LETTER}])|(?=x ?[0-9]))",
    r"(?P<equal>[=≈])",
    r"(?P<range>(?<=[\w%])[-–](?=[0-9])|(?<=\d)/(?=\d{2,3} ?mmHg))",
    rf"(?P<operator>[-+*/×÷−–]|(?<![{LETTER}])x(?= ?-?[0-9]))",
    r"(?P<function>\b(?:by|ln|log\w*|exp|sqrt|twice|double|triple|times|plus|minus|over|per"
    r"|(?:half|third|quarter|root|log)(?: of)?)\b)",
    rf"(?P<word>[{LETTER}][{LETTER}0-9']*(?:-[{LETTER}0-9]+)*|[\u3400-\u9fff]+)",
    rf"(?P<digits>[.,]?\d[\d.,{LETTER}]*)",
    r"(?P<stop>[^ \t])",
]), re.IGNORECASE | re.MULTILINE)


class Token(NamedTuple):
    kind: str  # number, operator, range, equal, opaque, function, word or stop
    text: str
    unit: str = ""  # lower case, as written: "mg", "mg/dl"


class Side(NamedTuple):
    """A computed side of an equation. A single quantity is a side of one term."""

    number: Decimal  # computed from the numbers as written
    base: Decimal  # in the first units of the kinds
    kinds: tuple | None  # (("mass", 1), ("volume", -1)); None for a sum of different kinds
    unit: str = ""
    half: Decimal | None = None  # half of the last written digit; None after an operator
    hundred: bool = False  # contains a percentage or the number 100
    bare: tuple[Decimal, ...] = ()  # factors without a unit; 1/2.2 for "/ 2.2"


@lru_cache(4)
def tokens(text: str) -> tuple[Token, ...]:
    """Returns the words, numbers and signs of a text. "-2" is one number unless one precedes it."""
    found: list[Token] = []
    minus = ""
    for match in TOKEN.finditer(text[:READ]):
        kind = match.lastgroup
        if kind in ("number", "unit"):
            unit = (match["unit"] or "").replace(" ", "").casefold()
            found.append(Token("number", minus + match["number"].replace(",", ""), unit))
            minus = ""
            continue
        after_number = found and found[-1].kind == "number"
        before_digit = text[match.end() : match.end() + 1].isdigit()
        if kind == "operator" and match[0] in "-−" and before_digit and not after_number:
            minus = "-"
            continue
        minus = ""
        kind = {"bullet": "stop", "digits": "opaque"}.get(kind, kind)
        found.append(Token(kind, match[0]))
    return tuple(found)


@lru_cache(4096)
def measure(unit: str) -> tuple[Decimal, tuple]:
    """Returns size and kinds of a unit.

    "mg/dl" -> (Decimal("0.01"), (("mass", 1), ("volume", -1)))
    """
    size = Decimal(1)
    kinds = ()
    for i, name in enumerate(unit.split("/") if unit else ()):
        kind, factor = UNITS[name]
        size = size / factor if i else size * factor
        kinds = multiply_kinds(kinds, ((kind, 1),) if kind else (), -1 if i else 1)
    return size, kinds


@lru_cache(4096)
def multiply_kinds(one: tuple, other: tuple, power: int) -> tuple:
    count = dict(one)
    for kind, exponent in other:
        count[kind] = count.get(kind, 0) + power * exponent
    return tuple(sorted((kind, exponent) for kind, exponent in count.items() if exponent))


def quantity(token: Token) -> Side:
    number = Decimal(token.text)
    size, kinds = measure(token.unit)
    base = (number - ZERO.get(token.unit, 0)) * size
    half = Decimal(5).scaleb(number.as_tuple().exponent - 1)
    hundred = number == 100 or "%" in token.unit
    return Side(number, base, kinds, token.unit, half, hundred, () if token.unit else (number,))


def times(one: Side, other: Side, power: int) -> Side:
    """Returns the product, or the quotient for power -1. Raises ZeroDivisionError."""
    kinds = multiply_kinds(one.kinds, other.kinds, power)
    if power < 0 and not other.number:
        raise ZeroDivisionError
    bare = one.bare
    if other.bare and other.number:
        bare += (other.number if power > 0 else 1 / other.number,)
    operation = mul if power > 0 else truediv
    return Side(operation(one.number, other.number), operation(one.base, other.base), kinds,
                hundred=one.hundred or other.hundred, bare=bare)


def compute(run: Sequence[Token]) -> Side | None:
    """Returns the value of number, operator, ..., number; None for a range or another sequence."""
    numbers = run[::2]
    operators = run[1::2]
    if len(run) % 2 == 0 or len(numbers) > TERMS:
        return None
    if {t.kind for t in numbers} != {"number"} or any(t.kind == "number" for t in operators):
        return None
    for a, operator, b in zip(numbers, operators, numbers[1:]):
        rising = operator.text == "/" or Decimal(a.text) < Decimal(b.text)
        if operator.kind == "range" and rising:
            return None
    parts = [quantity(numbers[0])]
    for operator, token in zip(operators, numbers[1:]):
        term = quantity(token)
        if operator.text in "*x×/÷X":
            parts[-1] = times(parts[-1], term, -1 if operator.text in "/÷" else 1)
        else:
            sign = 1 if operator.text == "+" else -1
            parts.append(term._replace(number=sign * term.number, base=sign * term.base))
    if len(run) == 1:
        return parts[0]
    same_kinds = len({part.kinds for part in parts}) == 1
    if any(token.unit in ZERO for token in numbers):
        same_kinds = False
    return Side(sum(part.number for part in parts), sum(part.base for part in parts),
                parts[0].kinds if same_kinds else None, hundred=any(p.hundred for p in parts),
                bare=parts[0].bare if len(parts) == 1 else ())
