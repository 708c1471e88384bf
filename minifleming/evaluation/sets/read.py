"""The table of the public sets, and their rows as items.

    medqa=path/to/test.jsonl  ->  Item(id="medqa:1", question="...", options={"A": "...", ...}, answer="C",
                                       source="medqa", language="en",
                                       provenance={"set": "medqa", "file": "test.jsonl", "sha256": "...", "row": 1,
                                                   "step": "step1"})

Texts stay as they are in the file but for white space at their ends; explanations are not kept.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from minifleming.evaluation.sets import (
    careqa,
    cmexam,
    jmed,
    medbullets,
    medmcqa,
    medqa,
    medxpertqa,
    mmlu,
    mmlu_pro,
    pubmedqa,
)
from minifleming.evaluation.sets.layout import Row
from minifleming.rods.item import LABELS, Item, read_items
from minifleming.run.checkpoint import sha256
from minifleming.run.errors import BadInput

Reader = Callable[[Path], Iterator[Row]]

READERS: dict[str, Reader] = {
    "medqa": medqa.read,
    "medmcqa": medmcqa.read,
    "medmcqa_from0": partial(medmcqa.read, first=0),
    "medmcqa_from1": partial(medmcqa.read, first=1),
    "cmexam": cmexam.read,
    "pubmedqa": pubmedqa.read,
    "pubmedqa_test": pubmedqa.read_test,
    "mmlu": mmlu.read,
    "mmlu_pro": mmlu_pro.read,
    "mmlu_pro_biology": partial(mmlu_pro.read, category="biology"),
    "mmlu_pro_health": partial(mmlu_pro.read, category="health"),
    "careqa": careqa.read,
    "medxpertqa": medxpertqa.read,
    "medbullets": medbullets.read,
    "jmed": jmed.read,
}
WAYS = {"medmcqa_from0": "medmcqa", "medmcqa_from1": "medmcqa", "pubmedqa_test": "pubmedqa",
        "mmlu_pro_biology": "mmlu_pro", "mmlu_pro_health": "mmlu_pro"}  # to read the same set


@dataclass(frozen=True, slots=True)
class Unusable:
    """A row that gives no item: its line (its number from 1 in a JSON document), its id and why."""

    row: int
    id: str
    reason: str


def read_benchmark(name: str, path: str | Path) -> tuple[list[Item], list[Unusable]]:
    """The file of a public set if ``name`` is one of READERS, otherwise a JSONL file of our own items."""
    return read_set(name, path) if name in READERS else (read_items(path), [])


def read_set(name: str, path: str | Path) -> tuple[list[Item], list[Unusable]]:
    """The items of a set's file (or folder, see mmlu.py), in its order, and the rows that give none.

    Raises BadInput for a name that is not in READERS, a file that cannot be read, more than 1 % damaged rows in a
    file, or no usable row at all.
    """
    if name not in READERS:
        near = difflib.get_close_matches(name.lower(), READERS, 1, 0)
        raise BadInput(f"no set is called '{name}'; did you mean '{near[0]}'?")
    rows = list(READERS[name](Path(path)))
    set_name, own, digests = WAYS.get(name, name), ids_hold(rows), {}
    items, unusable = [], []
    for row in rows:
        digests[row.file] = digests.get(row.file) or sha256(row.file)
        id = f"{set_name}:{row.own if own and row.own else row.n}"
        try:
            items.append(item_of(row, id, set_name, digests[row.file]))
        except ValueError as error:
            unusable.append(Unusable(row.line or row.n, id, str(error)))
    if not items:
        raise BadInput("no usable row" + (f"; the first: {unusable[0].reason}" if unusable else ""), path)
    return items, unusable


def ids_hold(rows: list[Row]) -> bool:
    """Has every row an id of its own? Otherwise all are numbered."""
    ids = [row.own for row in rows if not row.fault]
    return all(ids) and len(set(ids)) == len(ids)


def item_of(row: Row, id: str, set_name: str, digest: str) -> Item:
    """Raises ValueError with the reason if the row is no item."""
    if row.fault:
        raise ValueError(row.fault)
    place = {"set": set_name, "file": row.file.name, "sha256": digest, "row": row.n}
    return Item(id, row.question, dict(zip(LABELS, row.options)), row.answer, source=set_name, language=row.language,
                provenance=place | row.facts)
