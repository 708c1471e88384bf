"""Drops malformed items: duplicate options, no real question, broken characters.

    options {"A": "Aspirin", "B": "aspirin."}  ->  duplicate options
    "The patientâ€™s fever"                     ->  mojibake

Nothing is repaired, because the original character is unknown (arXiv:2509.15279 §3.1).
"""

from __future__ import annotations

import re
import unicodedata

from minifleming.extras.curate.step import Dropped, Result, divide, drop, noted
from minifleming.extras.curate.text import plain
from minifleming.rods.item import Item

STEP = "format"
SHORTEST = 6  # characters that are no white space: "ANUG is" asks something, "Q.12" does not;
# an ideograph counts twice, because it says as much as a short word

CP1252 = ("\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
          "\u2013-\u203a\u20ac\u2122")
MOJIBAKE = re.compile(
    rf"[ÂÃÎÏ][{CP1252}]"  # two bytes of UTF-8 read as Latin-1: é, β, ±
    rf"|â[€\u0080][{CP1252}]|â[‰ˆ†][{CP1252}]|ï[¬¼»½][{CP1252}]"  # three bytes: quotes, ≥, ﬁ
    rf"|[äåæçèé][{CP1252}]{{2}}"  # Chinese
    "|\ufffd|[\ue000-\uf8ff]|锟斤拷|烫烫烫|[\udc80-\udcff]"  # lost, or a symbol font's private characters
)
MARKUP = re.compile(
    r"(?i:</?(?:p|br|b|i|u|a|em|strong|sub|sup|div|span|font|img|table|tbody|tr|td|th|ul|ol|li"
    r"|h[1-6])(?:\s+[\w-]+\s*=\s*[\"'][^<>]{0,300})?\s*/?>)"
    r"|&(?:nbsp|amp|lt|gt|le|ge|quot|apos|deg|micro|alpha|beta|gamma|#\d{1,6}|#x[0-9a-fA-F]{1,5});")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # line ends and tabs are allowed
LOOKS = {"control character": CONTROL, "mojibake": MOJIBAKE, "markup": MARKUP}
EMPTY = {"nan", "null", "undefined", "n/a", "#n/a"}  # missing values; "none" can be an answer
IDEOGRAPHS = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")


def format_step(items: list[Item]) -> Result:
    return divide(judge(item) for item in items)


def judge(item: Item) -> Item | Dropped:
    found = fault(item)
    return drop(item, STEP, *found) if found else noted(item, STEP)


def fault(item: Item) -> tuple[str, dict] | None:
    """Returns (reason, evidence), or None for a well-formed item."""
    for where, text in {"question": item.question, **item.options}.items():
        for reason, pattern in LOOKS.items():
            found = pattern.search(text)
            if found:
                shown = found[0][:40]
                if pattern is CONTROL:
                    shown = f"U+{ord(shown):04X}"
                return reason, {"where": where, "found": shown}
    if too_short(item.question):
        return "question too short", {"characters": len("".join(item.question.split()))}
    empty = [label for label, text in item.options.items() if is_empty(text)]
    if empty:
        return "empty option", {"labels": empty}
    return doubled(item.options)


def too_short(question: str) -> bool:
    letters = "".join(question.split())
    weight = len(letters) + len(IDEOGRAPHS.findall(letters))
    return weight < SHORTEST or not any(c.isalnum() for c in letters)


def is_empty(text: str) -> bool:
    """Says whether a text is punctuation or a missing value. "+" or "↑" is an answer."""
    bare = text.strip().casefold()
    return bare in EMPTY or not any(
        c.isalnum() or unicodedata.category(c)[0] == "S" or c in "-−" for c in bare)


def doubled(options: dict[str, str]) -> tuple[str, dict] | None:
    """Finds two options with the same words; options without words are compared literally."""
    seen: dict[str, str] = {}
    for label, text in options.items():
        key = plain(text) or text.strip()
        if key in seen:
            return "duplicate options", {"labels": [seen[key], label]}
        seen[key] = label
    return None
