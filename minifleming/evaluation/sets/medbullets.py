"""Medbullets, four options (op4) or five (op5): one JSON object of columns, or JSONL with the same names.

    {"link": {"0": "https://example.org/q1", ...}, "question": {"0": "Which vitamin prevents scurvy?", ...},
     "opa": {"0": "Vitamin A", ...}, "opb": {...}, "opc": {...}, "opd": {...}, "ope": {...},
     "answer_idx": {"0": "C", ...}, "answer": {"0": "Vitamin C", ...}, "explanation": {...}}

A link can stand for several questions, so the rows are numbered. Ten questions come twice, in the four-option file
with other distractors: all rows are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from minifleming.evaluation.sets.layout import (
    Damaged,
    Draft,
    Record,
    Row,
    agree,
    each,
    jsonl,
    letter,
    load,
    need,
    text,
)

FIELDS = ("opa", "opb", "opc", "opd", "ope")


def read(path: Path) -> Iterator[Row]:
    columns = columns_of(path)
    return each(path, jsonl(path) if columns is None else across(columns), build)


def columns_of(path: Path) -> dict | None:
    """The columns of a file that is one object of them; None for JSONL."""
    try:
        value = json.loads(load(path).decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("question"), dict) else None


def across(columns: dict) -> Iterator[Record]:
    """The rows of the columns; a row that a column lacks has no such field."""
    if not all(isinstance(column, dict) for column in columns.values()):
        yield None, Damaged("a column is not a JSON object")
        return
    for row in dict.fromkeys(row for column in columns.values() for row in column):
        yield None, {name: column[row] for name, column in columns.items() if row in column}


def build(record: dict) -> Draft:
    fields = FIELDS if record.get("ope") is not None else FIELDS[:4]
    options = tuple(text(record, name) for name in fields)
    label = letter(need(record, "answer_idx"), options, "answer_idx")
    agree(text(record, "answer"), label, options)
    return Draft(text(record, "question"), options, label)
