"""CMExam (Chinese), CSV with a header; the options of a row stand in one cell, a line each.

    Question,Options,Answer,Explanation
    坏血病是由于缺乏,"A 维生素A
    B 维生素B1
    C 维生素C",C,...

Other columns (disease group, department, ...) may follow. Some copies write "A. ..." for "A ...", and some have a
backslash and an n for each new line. Several letters ("ABC") are several answers, an empty cell or "nan" is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from minifleming.evaluation.sets.layout import (
    Damaged,
    Draft,
    Record,
    Row,
    Unfit,
    each,
    facts,
    labelled,
    letter,
    table,
    text,
)
from minifleming.rods.item import LABELS
from minifleming.run.errors import BadInput

COLUMNS = ("Question", "Options", "Answer")
NEW_LINE = re.compile(r"\n|\\n(?=[A-Z])")
OPTION = re.compile(r"([A-Z])(?:[.．、:：]|\s|$)\s*(.*)", re.DOTALL)
SEVERAL = re.compile(r"[A-Z](?:[\s,，、;；]*[A-Z])+")


def read(path: Path) -> Iterator[Row]:
    return each(path, named(path), build, language="zh")


def named(path: Path) -> Iterator[Record]:
    """The rows below the header, as {column: cell}."""
    rows = table(path)
    line, header = next(rows, (1, []))
    missing = [name for name in COLUMNS if not isinstance(header, list) or name not in header]
    if missing:
        raise BadInput(f"no column '{missing[0]}' in the header", path, line)
    for line, cells in rows:
        if isinstance(cells, list) and len(cells) != len(header):
            cells = Damaged(f"{len(cells)} columns where the header has {len(header)}")
        yield line, cells if isinstance(cells, Damaged) else dict(zip(header, cells))


def build(record: dict) -> Draft:
    options = split(text(record, "Options"))
    answer = text(record, "Answer")
    if answer.lower() in ("", "nan"):
        raise Unfit("no gold label: 'Answer' is empty")
    if SEVERAL.fullmatch(answer) and set(re.findall("[A-Z]", answer)) <= set(LABELS[: len(options)]):
        raise Unfit(f"several answers: {answer}")
    return Draft(text(record, "Question"), options, letter(answer, options, "Answer"),
                 facts(record, subject="Medical Discipline", department="Clinical Department"))


def split(cell: str) -> tuple[str, ...]:
    """'A 维生素A', 'B 维生素B1' ... -> their texts."""
    found = {}
    for line in filter(None, map(str.strip, NEW_LINE.split(cell))):
        match = OPTION.fullmatch(line)
        if not match or match[1] in found:
            raise Damaged("'Options' is not one option a line, each with a label of its own")
        found[match[1]] = match[2]
    return labelled(found, "Options")
