"""JMED (Chinese), a JSON list; the options are a JSON text within the row and the gold is a list within a text.

    [{"diagId": 1234, "final_question": "患者牙龈出血，最可能缺乏什么？",
      "final_options": "{\\"options\\": {\\"A\\":\\"维生素C\\",\\"B\\":\\"维生素A\\", ...}}",
      "final_correct_answer": "['A']", ...}, ...]

The gold is A in 85 % of the published rows, so that always answering A would score 85 %. The options are therefore
shuffled here, by sha256 of the row's id: the same on every machine. The provenance keeps the old labels in their new
order and the old label of the gold.

The set is published as .xlsx. Export it once, with pandas and openpyxl:
    pandas.read_excel("jmed.xlsx", dtype=str).to_json("jmed.json", orient="records", force_ascii=False)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from minifleming.evaluation.sets.layout import (
    Damaged,
    Draft,
    Row,
    Unfit,
    document,
    each,
    labelled,
    letter,
    need,
    text,
)
from minifleming.rods.item import LABELS

GOLD = re.compile(r"\['([A-Z])'\]")
SEVERAL = re.compile(r"\['[A-Z]'(?:, *'[A-Z]')+\]")


def read(path: Path) -> Iterator[Row]:
    rows = ((None, row if isinstance(row, dict) else Damaged("not a JSON object")) for row in document(path, list))
    return map(shuffled, each(path, rows, build, key="diagId", language="zh"))


def build(record: dict) -> Draft:
    told = text(record, "final_options")
    try:
        inner = json.loads(told)
    except (ValueError, RecursionError):
        raise Damaged("'final_options' is not valid JSON") from None
    if not isinstance(inner, dict):
        raise Damaged("'final_options' is not a JSON object")
    options = labelled(need(inner, "options"))
    answer = text(record, "final_correct_answer")
    if SEVERAL.fullmatch(answer):
        raise Unfit(f"several answers: {answer}")
    match = GOLD.fullmatch(answer)
    return Draft(text(record, "final_question"), options,
                 letter(match and match[1], options, "final_correct_answer"))


def shuffled(row: Row) -> Row:
    """The row with its options in the order of sha256("<id>:<old label>")."""
    if row.fault:
        return row
    old = LABELS[: len(row.options)]
    order = sorted(old, key=lambda label: hashlib.sha256(f"{row.own or row.n}:{label}".encode()).hexdigest())
    return dataclasses.replace(row, options=tuple(row.options[LABELS.index(label)] for label in order),
                               answer=LABELS[order.index(row.answer)],
                               facts={**row.facts, "order": "".join(order), "label": row.answer})
