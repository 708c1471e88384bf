"""MedXpertQA (Text), JSONL, up to ten options in one of three encodings.

    {"id": "Text-17", "question": "Which vitamin prevents scurvy?", "options": {"A": "B1", "B": "C"}, "label": "B",
     "medical_task": "Treatment", "body_system": "Digestive", "question_type": "Reasoning"}
    {..., "question": "Which vitamin prevents scurvy?\\nAnswer Choices: (A) B1 (B) C",
     "options": [{"letter": "A", "content": "B1"}, {"letter": "B", "content": "C"}], "label": ["B"]}
    {..., "question": "Which vitamin prevents scurvy?\\nAnswer Choices: (A) B1 (B) C", "label": "B"}

The choices are cut off the question's text, and must be those of `options` where that is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from minifleming.evaluation.sets.layout import (
    Damaged,
    Draft,
    Row,
    Unfit,
    each,
    facts,
    jsonl,
    labelled,
    letter,
    need,
    text,
)
from minifleming.rods.item import LABELS

CHOICES = "\nAnswer Choices:"
MARK = re.compile(r"(?:^|(?<=\s))\(([A-Z])\)(?=\s|$)")


def read(path: Path) -> Iterator[Row]:
    return each(path, jsonl(path), build, key="id")


def build(record: dict) -> Draft:
    question, mark, inline = text(record, "question").rpartition(CHOICES)
    if not mark:
        question, inline = inline, ""
    given = record.get("options")
    options = listed(given) if given else split(inline)
    if given and inline and inline.split() != " ".join(f"({x}) {o}" for x, o in zip(LABELS, options)).split():
        raise Damaged("the choices in the question are not its options")
    if record.get("images"):
        raise Unfit("needs an image")
    return Draft(question.strip(), options, letter(gold(need(record, "label")), options, "label"),
                 facts(record, subject="body_system", task="medical_task", question_type="question_type"))


def listed(options) -> tuple[str, ...]:
    """The texts of {label: text} or of [{"letter": label, "content": text}]."""
    if not isinstance(options, list):
        return labelled(options)
    if not all(isinstance(option, dict) and isinstance(option.get("letter"), str) for option in options):
        raise Damaged("'options' must be a list of letter and content")
    found = {option["letter"]: option.get("content") for option in options}
    if len(found) < len(options):
        raise Damaged("a letter of 'options' comes twice")
    return labelled(found)


def split(inline: str) -> tuple[str, ...]:
    """'(A) B1 (B) C' -> their texts; Damaged if the marks are not each of A, B, C ... once and in order."""
    parts = MARK.split(inline)
    if len(parts) < 5 or parts[0].strip() or "".join(parts[1::2]) != LABELS[: len(parts) // 2]:
        raise Damaged("no options, and the question's text has none that can be told apart")
    return tuple(part.strip() for part in parts[2::2])


def gold(label) -> str:
    if not isinstance(label, list):
        return label
    if len(label) != 1:
        raise Unfit("several answers" if label else "no gold label")
    return label[0]
