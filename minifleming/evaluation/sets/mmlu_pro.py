"""MMLU-Pro, JSONL; three to ten options in a list.

    {"question_id": 17, "question": "Which vitamin prevents scurvy?", "options": ["A", "B1", "C", "D", "E", "K"],
     "answer": "C", "answer_index": 2, "cot_content": "", "category": "health", "src": "ori_mmlu-nutrition"}

`answer` is the label and `answer_index` counts from 0; both must point to the same option.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minifleming.evaluation.sets.layout import (
    Damaged,
    Draft,
    Row,
    each,
    facts,
    jsonl,
    letter,
    need,
    text,
    texts,
)
from minifleming.rods.item import LABELS


def read(path: Path, category: str = "") -> Iterator[Row]:
    """All rows, or those of one category."""
    rows = ((n, row) for n, row in jsonl(path)
            if not category or not isinstance(row, dict) or row.get("category", category) == category)
    return each(path, rows, build, key="question_id")


def build(record: dict) -> Draft:
    options = texts(need(record, "options"), "options")
    if len(options) > len(LABELS):
        raise Damaged(f"{len(options)} options; {len(LABELS)} are possible")
    label = letter(need(record, "answer"), options, "answer")
    index = need(record, "answer_index")
    if type(index) is not int or index != LABELS.index(label):
        raise Damaged("'answer' and 'answer_index' point to different options")
    return Draft(text(record, "question"), options, label, facts(record, subject="category", origin="src"))
