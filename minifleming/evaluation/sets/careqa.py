"""CareQA (English), JSONL; the right option is a number from 1.0 to 4.0, or NaN where the exam annulled the question.

    {"exam_id": 26.0, "question": "Which vitamin prevents scurvy?", "op1": "A", "op2": "B1", "op3": "C", "op4": "D",
     "cop": 3.0, "year": 2021.0, "category": "Biology", "unique_id": "0e2d7263-..."}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minifleming.evaluation.sets.layout import Draft, Row, counted, each, facts, jsonl, need, text

FIELDS = ("op1", "op2", "op3", "op4")


def read(path: Path) -> Iterator[Row]:
    return each(path, jsonl(path), build, key="unique_id")


def build(record: dict) -> Draft:
    options = tuple(text(record, name) for name in FIELDS)
    question = text(record, "question")
    return Draft(question, options, counted(need(record, "cop"), options, 1, "cop"), facts(record, subject="category"))
