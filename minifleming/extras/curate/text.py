"""Tokenises a text for comparison: words, and single characters of scripts without spaces.

    words("Na+ is 140 mEq/L; 血压")  ->  ["na", "+", "is", "140", "meq", "l", "血", "压"]

A Chinese or Japanese character is a word. Punctuation and white space separate words; signs with a
meaning stay: "Rh+" and "Rh-" are different options, and so are "1.5" and "15", "< 5" and "> 5".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import groupby

from minifleming.rods.item import Item

IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = re.compile(
    rf"\d+(?:[.,]\d+)+|[{IDEOGRAPH}]|[^\W_{IDEOGRAPH}]+"  # 1.5, 1,000; ideograph; letters
    r"|[<>≤≥=+%±↑↓]"
    r"|(?<!\w)[-−](?=[\d.])|(?<=\w)[-−](?![\w-])(?=\s*(?:$|[,;)/]))"  # -5, "Rh-", "ER-/PR-"
)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def words(text: str) -> list[str]:
    """Returns the words; full width, ligatures and case are unified."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def ideograph(word: str) -> bool:
    return re.fullmatch(f"[{IDEOGRAPH}]", word) is not None


def plain(text: str) -> str:
    """Returns the words of the text, separated by one space."""
    return " ".join(words(text))


def grams(tokens: list[str], size: int) -> list[tuple[str, ...]]:
    """Returns every run of ``size`` words, in order."""
    return [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]


def character_grams(tokens: list[str], size: int) -> set[str]:
    """Returns every run of ``size`` characters of the words, spaces included."""
    text = f" {' '.join(tokens)} "
    return {text[i : i + size] for i in range(max(1, len(text) - size + 1))}


def mask_numbers(tokens: Iterable[str]) -> list[str]:
    """Replaces numbers by "0": "a 45 year old man" is the same phrase at every age."""
    return [NUMBER.sub("0", token) if token[0].isdigit() else token for token in tokens]


def exact_key(item: Item) -> tuple[str, tuple[str, ...]]:
    """Returns a key that ignores case, punctuation, white space and the order of options."""
    return plain(item.question), tuple(sorted(plain(text) for text in item.options.values()))


def answer_key(item: Item) -> str:
    return plain(item.options[item.answer])


def longest_run(places: list[int]) -> list[int]:
    """Returns the longest run of consecutive numbers, the first among equals."""
    runs = groupby(enumerate(places), key=lambda pair: pair[1] - pair[0])
    longest = max((list(run) for _, run in runs), key=len)
    return [place for _, place in longest]


def distance(a: list[str], b: list[str], limit: int) -> int:
    """Returns the Levenshtein distance in words, at most ``limit`` + 1."""
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        new = [i]
        for j, y in enumerate(b, 1):
            new.append(min(row[j] + 1, new[j - 1] + 1, row[j - 1] + (x != y)))
        row = new
    return min(row[-1], limit + 1)
