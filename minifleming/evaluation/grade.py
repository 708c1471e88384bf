"""Grading: strict for every headline, lenient beside it as a diagnostic. Neither ever guesses.

strict    the parser of rods/answer.py: the same that pays the reward
lenient   what a reader would accept: the last answer block's label, else the last "answer is X" after the
          reasoning, else the text of exactly one option
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from minifleming.rods.answer import parse_strict
from minifleming.rods.item import Item

CUE = re.compile(r"answer(?:\s+is)?\s*:?\s*\(?([A-Za-z])\b(?!\s+(?:or|and)\b)", re.IGNORECASE)
BLOCK = re.compile(r"<answer>([^<]{0,200})</answer>")
WRAPPED = re.compile(r"\s*[(\[]?\s*([A-Za-z])\s*[)\].:]?")


@dataclass(frozen=True, slots=True)
class Grade:
    strict: str | None  # label
    rule: str  # the strict parser's rule
    lenient: str | None


def grade(text: str, item: Item, finished: bool) -> Grade:
    """Both readings of a completion's text (before its end token)."""
    verdict = parse_strict(text, item.labels, finished)
    return Grade(verdict.label, verdict.rule, verdict.label or parse_lenient(text, item))


def parse_lenient(text: str, item: Item) -> str | None:
    """A label that the text clearly settles on, or None."""
    after = unicodedata.normalize("NFKC", text[-20_000:].rpartition("</think>")[2])
    blocks = BLOCK.findall(after)
    if blocks:
        return _label(blocks[-1], item)
    cues = [cue.upper() for cue in CUE.findall(after)]
    if cues:
        return cues[-1] if cues[-1] in item.labels else None
    return _label(after, item)


def _label(text: str, item: Item) -> str | None:
    """The text is one label, perhaps wrapped and followed by its option's text, or exactly one option's text."""
    text = text.strip()
    found = WRAPPED.match(text)
    if found:
        label, rest = found[1].upper(), text[found.end() :].strip(" .\n")
        if label in item.labels and rest.lower() in ("", item.options[label].lower().strip()):
            return label
    same = [label for label, option in item.options.items() if option.strip().lower() == text.strip(" .").lower()]
    return same[0] if len(same) == 1 else None
