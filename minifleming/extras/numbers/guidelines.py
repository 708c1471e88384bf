"""Agreement with guideline snippets, where a file of them is given (§1 item 2).

A tab-separated file: when all words of ``when`` stand in question or reasoning, the reasoning must not say one of
``never``, and must say one of ``say``, if there are any. Words are parted by ";", upper and lower case alike.

    id            when                   say                          never
    warfarin-1    warfarin; pregnan      avoid; contraindicated       warfarin is safe; start warfarin

A word is found where a word of the text begins with it: "pregnan" in "pregnancy", "avoid" not in "unavoidable".
Two simple rules for negation: a ``never`` does not count after "not", "never", "avoid", "without", ... in its clause
("do not start warfarin"; a clause ends at punctuation and at "but", "so" or "then"), and a ``say`` does not count right
after "not" ("is not contraindicated"). Other turns of phrase ("starting warfarin would be a mistake") are not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from minifleming.run.errors import BadInput

COLUMNS = ("id", "when", "say", "never")
CLAUSE = re.compile(r"[.,;:!?\n，。；：！？、]| (?:but|so|then|therefore|instead) ")
NEGATION = re.compile(r"\b(?:not|cannot|never|no|avoid\w*|without|against|contraindicat\w*|rather than)\b|n['’]t\b"
                      "|不|勿|避免|禁")


class Snippet(NamedTuple):
    id: str
    when: tuple[str, ...]
    say: tuple[str, ...]
    never: tuple[str, ...]


def read_guidelines(path: Path) -> tuple[Snippet, ...]:
    """Raises BadInput with file and line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", path) from None
    except UnicodeDecodeError:
        raise BadInput("not UTF-8 text", path) from None
    rows = [[cell.strip() for cell in line.split("\t")] for line in lines]
    if tuple(rows[0]) != COLUMNS:
        raise BadInput(f"the header must be {', '.join(COLUMNS)}, with tabs between", path, 1)
    found: dict[str, Snippet] = {}
    for number, row in enumerate(rows[1:], 2):
        if any(row):
            snippet = read_row(row, path, number)
            if snippet.id in found:
                raise BadInput(f"id '{snippet.id}' stands on an earlier line, too", path, number)
            found[snippet.id] = snippet
    if not found:
        raise BadInput("no snippets", path)
    return tuple(found.values())


def check_guidelines(snippets: tuple[Snippet, ...]) -> Callable[[str, str], dict[str, bool | None]]:
    """Returns a check for cold_start/checks.py."""
    return lambda text, known: {"guidelines": agrees(text, known, snippets)}


def read_row(row: list[str], path: Path, number: int) -> Snippet:
    if len(row) != len(COLUMNS):
        raise BadInput(f"{len(row)} cells, not {len(COLUMNS)}", path, number)
    snippet = Snippet(row[0], *(words(cell) for cell in row[1:]))
    if not snippet.id or not snippet.when or not (snippet.say or snippet.never):
        raise BadInput("'id', 'when', and one of 'say' and 'never' must not be empty", path, number)
    return snippet


def words(cell: str) -> tuple[str, ...]:
    return tuple(plain(word) for word in cell.split(";") if word.strip())


def plain(text: str) -> str:
    """Lower case, with single blanks; lines stay apart."""
    return "\n".join(" ".join(line.split()) for line in text.casefold().splitlines())


def agrees(reasoning: str, known: str, snippets: Iterable[Snippet]) -> bool | None:
    """None where no snippet applies. ``known``: the question and its options.

    Of the snippet above: "avoid warfarin" True; "start warfarin" False, both for the ``never`` and for the lack of a
    ``say``; "warfarin is unavoidable" False.
    """
    text, everything = plain(reasoning), plain(f"{known}\n{reasoning}")
    applying = [s for s in snippets if all(pattern(word).search(everything) for word in s.when)]
    if not applying:
        return None
    clauses = CLAUSE.split(text)
    return all((not s.say or any(said(word, text) for word in s.say))
               and not any(claimed(word, clauses) for word in s.never) for s in applying)


@lru_cache(4096)
def pattern(word: str) -> re.Pattern:
    return re.compile((r"(?<![a-zà-öø-ɏ0-9])" if word[0].isascii() else "") + re.escape(word))


def said(word: str, text: str) -> bool:
    """Does the text say it, other than right after "not"?"""
    return any(not re.search(r"(?:\bnot|\bnever|\bnon|n['’]t) ?-?$|不$|非$", text[max(0, at.start() - 8) : at.start()])
               for at in pattern(word).finditer(text))


def claimed(phrase: str, clauses: list[str]) -> bool:
    """Does a clause say it before any negation? Phrases that have punctuation themselves are in no clause."""
    for clause in clauses:
        at = pattern(phrase).search(clause)
        if at and not NEGATION.search(clause[: at.start()]):
            return True
    return False
