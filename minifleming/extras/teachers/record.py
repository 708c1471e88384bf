"""The record of a teacher's run: one line an item, written as chunks of items end, so that a killed run goes on.

    {"item": "kg-2-5d41a2c07be9", "tier": "easy", "hard": true, "kept": 9,
     "proposals": [{"reasoning": "...", "answer": "B", "strategy": "blind", "teacher": "tiny", "detour": "",
                    "checks": {...}}, ...]}

Everything that was proposed stands there with its checks; ``kept`` is the place of what became the trace, or null.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from minifleming.cold_start.refine import Told
from minifleming.cold_start.trace import trace_of
from minifleming.rods.item import Item
from minifleming.run.errors import BadInput
from minifleming.run.lines import alone, begin, whole_lines

FIELDS = ("reasoning", "answer", "strategy", "teacher", "detour")


def tell_all(items: Sequence[Item], tell: Callable[[Sequence[Item]], list[Told]], path: Path, made_with: dict, *,
             chunk: int, done: Callable[[int], None] = lambda count: None) -> list[Told]:
    """Every item told, ``chunk`` at a time, each recorded in ``path``; what stands there already is not told again."""
    earlier = begin(path, made_with)
    with open(path, "a", encoding="utf-8") as file:
        alone(file)
        found = read(path, items) if earlier else []
        done(len(found))
        for start in range(len(found), len(items), chunk):
            fresh = tell(items[start : start + chunk])
            file.write("".join(map(to_line, fresh)))
            file.flush()
            found += fresh
            done(len(fresh))
    return found


def to_line(told: Told) -> str:
    kept = next((i for i, trace in enumerate(told.proposals) if trace is told.kept), None)
    proposals = [{name: getattr(trace, name) for name in (*FIELDS, "checks")} for trace in told.proposals]
    return json.dumps({"item": told.item.id, "tier": told.item.tier, "hard": told.hard, "kept": kept,
                       "proposals": proposals}, ensure_ascii=False) + "\n"


def read(path: Path, items: Sequence[Item]) -> list[Told]:
    """The first lines of ``items``, as they were told. Raises BadInput with file and line."""
    found: list[Told] = []
    for number, text in whole_lines(path):
        try:
            found.append(of_line(json.loads(text), items[len(found)]))
        except (ValueError, LookupError, TypeError, AttributeError):
            raise BadInput("is not the record of these items; nothing is overwritten", path, number) from None
    return found


def of_line(row: dict, item: Item) -> Told:
    if row["item"] != item.id:
        raise ValueError("another item")
    told = Told(item, hard=row["hard"])
    for proposal in row["proposals"]:
        trace = trace_of(item, *(proposal[name] for name in FIELDS))
        trace.checks = dict(proposal["checks"])
        told.proposals.append(trace)
    if row["kept"] is not None:
        told.kept = told.proposals[row["kept"]]
        if not told.kept.verified:
            raise ValueError("kept, and not verified")
        told.kept.attempts = told.attempts()
    return told
