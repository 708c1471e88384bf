"""What is kept of an evaluation: one line an item, from which every table is made without generating again.

    {"item": "kg-2-5d41a2c07be9", "sample": 0, "hops": 2, "tier": "moderate", "rarity": 0.31, "source": "embedded",
     "options": 8, "answer": "B", "strict": "B", "rule": "ok", "lenient": "B", "kind": "ok", "finished": true,
     "tokens": 31, "support": "chain", "text": "<think>..."}
"""

from __future__ import annotations

import json
from pathlib import Path

from minifleming.evaluation.grade import grade
from minifleming.rods.answer import reasoning_of
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item, read_jsonl
from minifleming.rods.reasoning import support
from minifleming.run.checkpoint import write_text
from minifleming.run.errors import BadInput

FIELDS = ("item", "options", "answer", "strict", "rule", "lenient", "kind", "finished", "tokens", "support")


def record_of(item: Item, text: str, tokens: int, finished: bool, graph: Graph | None, sample: int = 0) -> dict:
    """``text`` is the completion before its end token; with a ``graph``, its hops are looked up."""
    found = grade(text, item, finished)
    chosen = item.nodes(found.strict)[-1] if found.strict in item.options else ""
    return {"item": item.id, "sample": sample, "hops": item.hops, "tier": item.tier, "rarity": item.rarity,
            "source": item.source, "options": len(item.options), "answer": item.answer, "strict": found.strict,
            "rule": found.rule, "lenient": found.lenient, "kind": found.kind, "finished": finished, "tokens": tokens,
            "support": support(reasoning_of(text), chosen, graph) if graph and item.path else "", "text": text}


def right(record: dict) -> bool:
    """Strictly right: the headline."""
    return record["strict"] == record["answer"]


def to_line(record: dict) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def write_records(path: Path, records: list[dict]) -> None:
    write_text(path, "".join(map(to_line, records)))


def read_records(path: Path) -> list[dict]:
    """The records of a file; a line that is none is refused with file and line."""
    records = []
    for number, record in read_jsonl(path):
        missing = [name for name in FIELDS if name not in record]
        if missing:
            raise BadInput(f"no evaluation record: '{missing[0]}' is missing", path, number)
        records.append(record)
    if not records:
        raise BadInput("no evaluation records", path)
    return records
