"""PubMedQA, the labelled part: one JSON object, from the PubMed id to a question on an abstract without its conclusion.

    {"12345678": {"QUESTION": "Does orange juice prevent scurvy?",
                  "CONTEXTS": ["Scurvy is rare today.", "Two groups of twelve were followed."],
                  "LABELS": ["BACKGROUND", "METHODS"], "MESHES": [...], "YEAR": "1999",
                  "final_decision": "yes", "LONG_ANSWER": "Orange juice prevents scurvy."}, ...}

The abstract is part of the question; LONG_ANSWER, its conclusion, is not. As `pubmedqa` every row is read; as
`pubmedqa_test` those that the file *test_ground_truth.json in the same folder lists, {"12345678": "yes", ...}.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minifleming.evaluation.sets.layout import (
    Damaged,
    Draft,
    Record,
    Row,
    Unfit,
    document,
    each,
    facts,
    need,
    text,
    texts,
)
from minifleming.run.errors import BadInput

OPTIONS = ("yes", "no", "maybe")
LIST = "*test_ground_truth.json"


def read(path: Path) -> Iterator[Row]:
    return each(path, named(document(path, dict), {}), build, key="pmid")


def read_test(path: Path) -> Iterator[Row]:
    """The rows that the test list beside ``path`` has, in the order of ``path``; both must tell the same decision."""
    rows, listed = document(path, dict), truth(path)
    absent = [pmid for pmid in listed if pmid not in rows]
    if absent:
        raise BadInput(f"'{absent[0]}' is in the test list and not in this file", path)
    return (row for row in each(path, named(rows, listed), build, key="pmid") if row.own in listed)


def truth(path: Path) -> dict:
    """{pmid: decision} of the one test list beside ``path``."""
    found = sorted(path.parent.glob(LIST))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise BadInput(f"needs one file {LIST} in the same folder; there: {names}", path)
    return document(found[0], dict)


def named(rows: dict, listed: dict) -> Iterator[Record]:
    for pmid, row in rows.items():
        yield None, {"pmid": pmid, "row": row} | ({"listed": listed[pmid]} if pmid in listed else {})


def build(record: dict) -> Draft:
    row = record["row"]
    if not isinstance(row, dict):
        raise Damaged("not a JSON object")
    contexts, question = texts(need(row, "CONTEXTS"), "CONTEXTS"), text(row, "QUESTION")
    decision = text(row, "final_decision")
    if decision not in OPTIONS:
        raise Damaged(f"'final_decision' is none of {', '.join(OPTIONS)}")
    if record.get("listed", decision) != decision:
        raise Damaged("'final_decision' is not what the test list says")
    if not any(contexts):
        raise Unfit("no abstract to ask about")
    split = {"split": "test"} if "listed" in record else {}
    return Draft("\n".join([*contexts, question]), OPTIONS, "ABC"[OPTIONS.index(decision)],
                 split | facts(row, year="YEAR"))
