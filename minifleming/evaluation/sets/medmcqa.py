"""MedMCQA, JSONL; the right option is counted from 0 in some copies and from 1 in others.

    {"question": "Scurvy is due to lack of", "exp": null, "cop": 3, "opa": "Thiamine", "opb": "Retinol",
     "opc": "Ascorbic acid", "opd": "Calciferol", "subject_name": "Biochemistry", "topic_name": null,
     "id": "5f0c6a1e-...", "choice_type": "single"}

A wrong guess would make every gold wrong, so the whole file is asked: a 0 proves that it counts from 0, a 4 that it
counts from 1. The public test file has -1 everywhere: its gold is not told.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from minifleming.evaluation.sets.layout import Draft, Record, Row, counted, each, facts, jsonl, need, text
from minifleming.run.errors import BadInput

FIELDS = ("opa", "opb", "opc", "opd")


def read(path: Path, first: int | None = None) -> Iterator[Row]:
    """``first``: what option A is called, 0 or 1; None finds it from the file or raises BadInput."""
    if first not in (None, 0, 1):
        raise ValueError("first must be 0 or 1")
    records = list(jsonl(path))
    first = found_first(records, path) if first is None else first
    yield from each(path, iter(records), partial(build, first=first), key="id")


def found_first(records: list[Record], path: Path) -> int:
    """What the file calls option A, or BadInput if it has both a 0 and a 4, or neither."""
    golds = {record.get("cop") for _, record in records if isinstance(record, dict)
             and type(record.get("cop")) in (int, float)}
    if not any(gold >= 0 for gold in golds):
        return 1  # no gold at all, and each row will say so
    if (0 in golds) == (4 in golds):
        why = "both 0 and 4 occur" if 0 in golds else "neither 0 nor 4 occurs"
        raise BadInput(f"'cop' is ambiguous: {why}; say what option A is called by reading the set as medmcqa_from0 or "
                       "medmcqa_from1", path)
    return 0 if 0 in golds else 1


def build(record: dict, first: int) -> Draft:
    options = tuple(text(record, name) for name in FIELDS)
    label = counted(need(record, "cop"), options, first, "cop")
    return Draft(text(record, "question"), options, label,
                 facts(record, subject="subject_name", topic="topic_name", choice_type="choice_type"))
