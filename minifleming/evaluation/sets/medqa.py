"""MedQA (USMLE), JSONL, with four or five options under the same layout.

    {"question": "A child has swollen gums. Which vitamin is lacking?", "answer": "Vitamin C",
     "options": {"A": "Vitamin A", "B": "Vitamin B1", "C": "Vitamin C", "D": "Vitamin D"},
     "meta_info": "step1", "answer_idx": "C", "metamap_phrases": ["child", ...]}

The copy with explanations (mediQ) has an id and tells the case sentence by sentence; `question` is the last one:

    {"id": 7, "context": ["A child has swollen gums.", "It eats no fruit."], "question": "Which vitamin is lacking?",
     "options": {...}, "answer": "Vitamin C", "answer_idx": "C", "explanation": "", "facts": [...], ...}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minifleming.evaluation.sets.layout import (
    Draft,
    Row,
    agree,
    each,
    facts,
    jsonl,
    labelled,
    letter,
    need,
    text,
    texts,
)


def read(path: Path) -> Iterator[Row]:
    return each(path, jsonl(path), build, key="id")


def build(record: dict) -> Draft:
    question = text(record, "question")
    if "context" in record:
        question = " ".join([*texts(record["context"], "context"), question])
    options = labelled(need(record, "options"))
    label = letter(need(record, "answer_idx"), options, "answer_idx")
    agree(text(record, "answer"), label, options)
    return Draft(question, options, label, facts(record, step="meta_info"))
