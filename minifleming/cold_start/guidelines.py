"""Agreement with guideline snippets, where a file of them is given (§1 item 2).

A tab-separated file: when all words of ``when`` stand in question or reasoning, the reasoning must not say one of
``never``, and must say one of ``say``, if there are any. Words are parted by ";", upper and lower case alike.

    id            when                   say                          never
    warfarin-1    warfarin; pregnan      avoid; contraindicated       warfarin is safe; start warfarin
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from minifleming.run.errors import BadInput

COLUMNS = ("id", "when", "say", "never")


class Snippet(NamedTuple):
    id: str
    when: tuple[str, ...]
    say: tuple[str, ...]
    never: tuple[str, ...]


def read_guidelines(path: Path) -> tuple[Snippet, ...]:
    """Raises BadInput with file and line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", path) from None
    except UnicodeDecodeError:
        raise BadInput("not UTF-8 text", path) from None
    rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    if tuple(cell.strip() for cell in next(rows, ())) != COLUMNS:
        raise BadInput(f"the header must be {', '.join(COLUMNS)}, with tabs between", path, 1)
    found = []
    for number, row in enumerate(rows, 2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(COLUMNS):
            raise BadInput(f"{len(row)} cells, not {len(COLUMNS)}", path, number)
        snippet = Snippet(row[0].strip(), *(words(cell) for cell in row[1:]))
        if not snippet.when or not (snippet.say or snippet.never):
            raise BadInput("'when', and one of 'say' and 'never', must not be empty", path, number)
        found.append(snippet)
    return tuple(found)


def words(cell: str) -> tuple[str, ...]:
    return tuple(word.strip().casefold() for word in cell.split(";") if word.strip())


def agrees(reasoning: str, known: str, snippets: Iterable[Snippet]) -> bool | None:
    """None where no snippet applies. ``known``: the question and its options."""
    text, everything = reasoning.casefold(), f"{known}\n{reasoning}".casefold()
    applying = [s for s in snippets if all(word in everything for word in s.when)]
    if not applying:
        return None
    return all((not s.say or any(word in text for word in s.say)) and not any(word in text for word in s.never)
               for s in applying)
