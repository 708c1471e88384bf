"""Reads numbers, units and sums in running text, and computes them.

    "70 kg x 2 mg/kg"   ->  number 140, base Decimal("0.14") in g, kinds (("mass", 1),)

Plain numbers are read ("1,500", "0.75"), and only in the first ``READ`` characters of a text; not full-width digits,
and no numbers inside names ("HLA-B27", "T1/2") or dates. Linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

READ = 8_000  # characters; twice the default of the check of brevity
TERMS = 16  # of one side
KINDS = {  # kind -> units, as name=how many of the kind's first unit; words of four letters and more have a plural, too
    "mass": "g=1 kg=1000 mg=.001 mcg=1e-6 μg=1e-6 ug=1e-6 ng=1e-9 pg=1e-12 lb=453.59237 lbs=453.59237 gram=1 "
            "kilogram=1000 milligram=.001 microgram=1e-6 pound=453.59237 克=1 千克=1000 公斤=1000 毫克=.001 微克=1e-6",
    "volume": "l=1 dl=.1 ml=.001 μl=1e-6 liter=1 litre=1 milliliter=.001 millilitre=.001 升=1 毫升=.001",
    "length": "m=1 cm=.01 mm=.001 km=1000 inch=.0254 inches=.0254 ft=.3048 feet=.3048",
    "time": "s=1 sec=1 second=1 min=60 mins=60 minute=60 h=3600 hr=3600 hrs=3600 hour=3600 d=86400 day=86400 "
            "days=86400 week=604800 wk=604800 month=2629800 year=31557600 yr=31557600 yrs=31557600 "
            "分钟=60 小时=3600 天=86400 周=604800 个月=2629800 岁=31557600",
    "amount": "mol=1 mmol=.001 μmol=1e-6 umol=1e-6 nmol=1e-9 pmol=1e-12", "charge": "eq=1 meq=.001",
    "activity": "iu=1 miu=.001 u=1 units=1", "pressure": "mmhg=1 kpa=7.50062 cmh2o=.735559", "rate": "bpm=1",
    "temperature": "°c=1 °f=.5555555555555555556", "": "%=.01 percent=.01",
}
UNITS = {name + plural: (kind, Decimal(size)) for kind, units in KINDS.items()
         for name, _, size in (unit.partition("=") for unit in units.split())
         for plural in (("", "s") if name.isascii() and name.isalpha() and len(name) > 3 else ("",))}
ZERO = {"°f": 32}
CALENDAR = {name for name, (kind, size) in UNITS.items() if kind == "time" and size > 2e6}  # of no fixed length

LETTER = "A-Za-zÀ-ÖØ-öø-ɏͰ-Ͽ_"
ONE = "(?:" + "|".join([*sorted((re.escape(u) for u in UNITS if len(u) > 1 or not u.isascii()), key=len, reverse=True),
                        "[lLU%]", "(?-i:[gmhsd])"]) + f")(?![{LETTER}0-9])"
UNIT = f"{ONE}(?: ?/ ?{ONE}){{0,3}}"
NUMBER = r"(?:0|[1-9][0-9]{0,11}|[1-9][0-9]{0,2}(?:,[0-9]{3}){1,4})(?:\.[0-9]{1,9})?(?![.,]?[0-9])"
TOKEN = re.compile("|".join([
    r"(?P<opaque>(?:(?:19|20)\d\d[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.](?:19|20)\d\d)(?!\d)"  # a date
    r"|(?<=\d):(?=\d)|[<>!:]=|=[<>=]|[\^√∛±~⁰¹²³⁴-⁹]|^[ \t]*-(?=\d))",
    r"(?P<bullet>^[ \t]*[-*+] )",
    rf"(?P<number>(?:(?<![{LETTER}0-9.])|(?<=[0-9]x)|(?<=[0-9] x)){NUMBER})"
    rf"(?:[ -]?(?P<unit>{UNIT})|(?![{LETTER}])|(?=x ?[0-9]))",
    r"(?P<equal>[=≈])",
    r"(?P<range>(?<=[\w%])[-–](?=[0-9])|(?<=\d)/(?=\d{2,3} ?mmHg))",
    rf"(?P<operator>[-+*/×÷−–]|(?<![{LETTER}])x(?= ?-?[0-9]))",
    r"(?P<function>\b(?:by|ln|log\w*|exp|sqrt|twice|double|triple|times|plus|minus|over|per"
    r"|(?:half|third|quarter|root|log)(?: of)?)\b)",
    rf"(?P<word>[{LETTER}][{LETTER}0-9']*(?:-[{LETTER}0-9]+)*|[\u3400-\u9fff]+)",
    rf"(?P<digits>[.,]?\d[\d.,{LETTER}]*)", r"(?P<stop>[^ \t])",
]), re.IGNORECASE | re.MULTILINE)

class Token(NamedTuple):
    kind: str  # number, operator, range, equal, opaque, function, word or stop
    text: str
    unit: str = ""  # lower case, as written: "mg", "mg/dl"


class Side(NamedTuple):
    """A side of an equation, computed; a quantity is a side of one term."""

    number: Decimal  # from the numbers as they are written
    base: Decimal  # in the first units of its kinds
    kinds: tuple | None  # (("mass", 1), ("volume", -1)); None for a sum of different kinds
    unit: str = ""
    half: Decimal | None = None  # half of the last written digit; None if it has an operator
    hundred: bool = False  # a percentage, or has one or a 100 in it
    bare: tuple[Decimal, ...] = ()  # its factors without a unit; 1/2.2 for "/ 2.2"


@lru_cache(4)
def tokens(text: str) -> tuple[Token, ...]:
    """The words, numbers and signs of a text. "-2" is one number where no other stands before it."""
    found: list[Token] = []
    minus = ""
    for match in TOKEN.finditer(text[:READ]):
        kind, written = match.lastgroup, match[0]
        if kind in ("number", "unit"):
            found.append(Token("number", minus + match["number"].replace(",", ""),
                               (match["unit"] or "").replace(" ", "").casefold()))
        signs = written in "-−" and text[match.end() : match.end() + 1].isdigit() and kind == "operator"
        minus = "-" if signs and not (found and found[-1].kind == "number") else ""
        if kind not in ("number", "unit") and not minus:
            found.append(Token({"bullet": "stop", "digits": "opaque"}.get(kind, kind), written))
    return tuple(found)


@lru_cache(4096)
def measure(unit: str) -> tuple[Decimal, tuple]:
    """The size of a unit and its kinds: "mg/dl" -> (Decimal("0.01"), (("mass", 1), ("volume", -1)))"""
    size, kinds = Decimal(1), ()
    for i, name in enumerate(unit.split("/") if unit else ()):
        kind, factor = UNITS[name]
        size = size / factor if i else size * factor
        kinds = composed(kinds, ((kind, 1),) if kind else (), -1 if i else 1)
    return size, kinds


@lru_cache(4096)
def composed(one: tuple, other: tuple, power: int) -> tuple:
    count = dict(one)
    for kind, exponent in other:
        count[kind] = count.get(kind, 0) + power * exponent
    return tuple(sorted((kind, exponent) for kind, exponent in count.items() if exponent))


def quantity(token: Token) -> Side:
    number, (size, kinds) = Decimal(token.text), measure(token.unit)
    half = Decimal(5).scaleb(number.as_tuple().exponent - 1)
    return Side(number, (number - ZERO.get(token.unit, 0)) * size, kinds, token.unit, half,
                number == 100 or "%" in token.unit, () if token.unit else (number,))


def times(one: Side, other: Side, power: int) -> Side:
    """Product, or quotient for power -1. Raises ZeroDivisionError."""
    if power < 0 and not other.number:
        raise ZeroDivisionError
    number, base = ((one.number * other.number, one.base * other.base) if power > 0 else
                    (one.number / other.number, one.base / other.base))
    bare = (*one.bare, *((other.number if power > 0 else 1 / other.number,) if other.bare and other.number else ()))
    return Side(number, base, composed(one.kinds, other.kinds, power), hundred=one.hundred or other.hundred, bare=bare)


def compute(run: Sequence[Token]) -> Side | None:
    """The value of number, operator, number, ..., number; None for a range and for what is no such row."""
    numbers, operators = run[::2], run[1::2]
    if len(run) % 2 == 0 or len(numbers) > TERMS or any(t.kind != "number" for t in numbers) or any(
            t.kind == "number" for t in operators):
        return None
    if any(t.kind == "range" and (t.text == "/" or Decimal(a.text) < Decimal(b.text))
           for a, t, b in zip(numbers, operators, numbers[1:])):
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
    alike = len({part.kinds for part in parts}) == 1 and not any(token.unit in ZERO for token in numbers)
    return Side(sum(part.number for part in parts), sum(part.base for part in parts),
                parts[0].kinds if alike else None, hundred=any(part.hundred for part in parts),
                bare=parts[0].bare if len(parts) == 1 else ())
