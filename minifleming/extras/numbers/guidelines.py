"""Checks that a reasoning agrees with a file of guideline snippets (§1 item 2).

A tab-separated file: if question or reasoning contain all words of ``when``, the reasoning must
contain none of ``never`` and one of ``say``, where given. ";" separates words; case is ignored.

    id            when                   say                          never
    warfarin-1    warfarin; pregnan      avoid; contraindicated       warfarin is safe; start warfarin

A word matches the beginning of a word: "pregnan" in "pregnancy", "avoid" not in "unavoidable". Two
simple rules for negation: a ``never`` does not count after "not", "never", "avoid", "without", ...
in its clause ("do not start warfarin"; a clause ends at punctuation and at "but", "so" or "then"),
and a ``say`` does not count right after "not" ("is not contraindicated"). Other wordings ("starting
warfarin would be a mistake") are not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from minifleming.run.checkpoint import read_text
from minifleming.run.errors import BadInput

COLUMNS = ("id", "when", "say", "never")
CLAUSE = re.compile(r"[.,;:!?\n，。；：！？、]| (?:but|so|then|therefore|instead) ")
NEGATION = re.compile(
    r"\b(?:not|cannot|never|no|avoid\w*|without|against|contraindicat\w*|rather than)\b|n['’]t\b"
    "|不|勿|避免|禁")
JUST_NEGATED = re.compile(r"(?:\bnot|\bnever|\bnon|n['’]t) ?-?$|不$|非$")


class Snippet(NamedTuple):
    id: str
    when: tuple[str, ...]
    say: tuple[str, ...]
    never: tuple[str, ...]


def read_guidelines(path: Path) -> tuple[Snippet, ...]:
    """Raises BadInput with file and line."""
    header, *lines = read_text(path).lstrip("\ufeff").split("\n")
    if tuple(header.split("\t")) != COLUMNS:
        raise BadInput(f"the header must be {', '.join(COLUMNS)}, with tabs between", path, 1)
    found: dict[str, Snippet] = {}
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        name, *cells = line.split("\t")
        if len(cells) != 3:
            raise BadInput(f"{len(cells) + 1} cells, not {len(COLUMNS)}", path, number)
        snippet = Snippet(name.strip(), *map(words, cells))
        if not snippet.id or not snippet.when or not (snippet.say or snippet.never):
            reason = "'id', 'when', and one of 'say' and 'never' must not be empty"
            raise BadInput(reason, path, number)
        if snippet.id in found:
            raise BadInput(f"id '{snippet.id}' is on an earlier line, too", path, number)
        found[snippet.id] = snippet
    if not found:
        raise BadInput("no snippets", path)
    return tuple(found.values())


def check_guidelines(snippets: tuple[Snippet, ...]) -> Callable[[str, str], dict[str, bool | None]]:
    """Returns a check for cold_start/checks.py."""
    return lambda text, known: {"guidelines": agrees(text, known, snippets)}


def words(cell: str) -> tuple[str, ...]:
    return tuple(plain(word) for word in cell.split(";") if word.strip())


def plain(text: str) -> str:
    """Returns the text in lower case with single spaces; line ends stay."""
    return "\n".join(" ".join(line.split()) for line in text.casefold().splitlines())


def agrees(reasoning: str, known: str, snippets: Iterable[Snippet]) -> bool | None:
    """Returns None if no snippet applies. ``known``: the question and its options.

    With the snippet above "avoid warfarin" is True; "start warfarin" is False, because of ``never``
    and because a ``say`` is missing; "warfarin is unavoidable" is False.
    """
    text = plain(reasoning)
    everything = plain(f"{known}\n{reasoning}")
    clauses = CLAUSE.split(text)
    verdict = None
    for snippet in snippets:
        if not all(pattern(word).search(everything) for word in snippet.when):
            continue
        if snippet.say and not any(is_said(word, text) for word in snippet.say):
            return False
        if any(is_claimed(word, clauses) for word in snippet.never):
            return False
        verdict = True
    return verdict


@lru_cache(4096)
def pattern(word: str) -> re.Pattern:
    start = r"(?<![a-zà-öø-ɏ0-9])" if word[0].isascii() else ""
    return re.compile(start + re.escape(word))


def is_said(word: str, text: str) -> bool:
    """Says whether the text contains the word other than right after "not"."""
    for match in pattern(word).finditer(text):
        if not JUST_NEGATED.search(text[max(0, match.start() - 8) : match.start()]):
            return True
    return False


def is_claimed(phrase: str, clauses: list[str]) -> bool:
    """Says whether a clause contains the phrase before any negation.

    A phrase with punctuation matches no clause.
    """
    for clause in clauses:
        at = pattern(phrase).search(clause)
        if at and not NEGATION.search(clause[: at.start()]):
            return True
    return False
