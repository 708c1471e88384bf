"""Drops malformed items: duplicate options, no real question, broken characters.

    options {"A": "Aspirin", "B": "aspirin."}  ->  duplicate options
    "The patientâ€™s fever"                     ->  mojibake

Nothing is repaired, because the original character is unknown (arXiv:2509.15279 §3.1).
"""

from __future__ import annotations

import re
import unicodedata
from functools import partial

from minifleming.extras.curate.step import Dropped, Result, divide, each, noted
from minifleming.extras.curate.text import plain
from minifleming.rods.item import Item

STEP = "format"
SHORTEST = 6  # characters that are no white space: "ANUG is" asks something, "Q.12" does not
SHORTEST_IDEOGRAPHS = 3  # an ideograph says as much as a short word

CP1252 = ("\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
          "\u2013-\u203a\u20ac\u2122")
MOJIBAKE = re.compile(
    rf"[ÂÃÎÏ][{CP1252}]"  # two bytes of UTF-8 read as Latin-1: é, β, ±
    rf"|â[€\u0080][{CP1252}]|â[‰ˆ†][{CP1252}]|ï[¬¼»½][{CP1252}]"  # three bytes: quotes, ≥, ﬁ
    rf"|[äåæçèé][{CP1252}]{{2}}"  # Chinese
    "|\ufffd|[\ue000-\uf8ff]|锟斤拷|烫烫烫|[\udc80-\udcff]"  # lost, or a symbol font's private characters
)
TAG = re.compile(
    r"</?(?:p|br|b|i|u|a|em|strong|sub|sup|div|span|font|img|table|tbody|tr|td|th|ul|ol|li|h[1-6])"
    r"(?:\s+[\w-]+\s*=\s*[\"'][^<>]{0,300})?\s*/?>", re.IGNORECASE)
ENTITY = re.compile(
    r"&(?:nbsp|amp|lt|gt|le|ge|quot|apos|deg|micro|alpha|beta|gamma|#\d{1,6}|#x[0-9a-fA-F]{1,5});")
EMPTY = {"nan", "null", "undefined", "n/a", "#n/a"}  # missing values; "none" can be an answer
IDEOGRAPHS = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")


def format_step(items: list[Item], *, shortest: int = SHORTEST, workers: int = 1) -> Result:
    return divide(each(partial(judge, shortest=shortest), items, workers))


def judge(item: Item, shortest: int = SHORTEST) -> Item | Dropped:
    found = fault(item, shortest)
    if found is None:
        return noted(item, STEP)
    reason, evidence = found
    return Dropped(noted(item, STEP, reason=reason), STEP, reason, evidence)


def fault(item: Item, shortest: int = SHORTEST) -> tuple[str, dict] | None:
    """Returns (reason, evidence), or None for a well-formed item."""
    texts = {"question": item.question, **item.options}
    for where, text in texts.items():
        for reason, look in LOOKS:
            found = look(text)
            if found:
                return reason, {"where": where, "found": found}
    if too_short(item.question, shortest):
        return "question too short", {"characters": len("".join(item.question.split()))}
    empty = [label for label, text in item.options.items() if is_empty(text)]
    if empty:
        return "empty option", {"labels": empty}
    return doubled(item.options)


def control(text: str) -> str:
    """Returns the first control character as U+XXXX; line ends and tabs are allowed."""
    bad = next((c for c in text if c not in "\n\t" and unicodedata.category(c) == "Cc"), "")
    return f"U+{ord(bad):04X}" if bad else ""


def first(pattern: re.Pattern, text: str) -> str:
    found = pattern.search(text)
    return found[0][:40] if found else ""


def mojibake(text: str) -> str:
    return "" if text.isascii() else first(MOJIBAKE, text)


def markup(text: str) -> str:
    return first(TAG, text) or first(ENTITY, text)


LOOKS = (("control character", control), ("mojibake", mojibake), ("markup", markup))


def too_short(question: str, shortest: int) -> bool:
    letters = "".join(question.split())
    weight = len(letters) + len(IDEOGRAPHS.findall(letters)) * (shortest / SHORTEST_IDEOGRAPHS - 1)
    return weight < shortest or not any(c.isalnum() for c in letters)


def is_empty(text: str) -> bool:
    """Says whether a text is punctuation or a missing value. "+" or "↑" is an answer."""
    bare = text.strip().casefold()
    if bare in EMPTY:
        return True
    return not any(c.isalnum() or unicodedata.category(c)[0] == "S" or c in "-−" for c in bare)


def doubled(options: dict[str, str]) -> tuple[str, dict] | None:
    """Finds two options with the same words; options without words are compared literally."""
    seen: dict[str, str] = {}
    for label, text in options.items():
        key = plain(text) or text.strip()
        if key in seen:
            return "duplicate options", {"labels": [seen[key], label]}
        seen[key] = label
    return None
