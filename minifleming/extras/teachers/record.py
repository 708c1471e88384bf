"""The record of a teacher's run: one line per item, written chunk by chunk, so that a run resumes.

    {"item": "kg-2-5d41a2c07be9", "tier": "easy", "hard": true, "kept": 9,
     "proposals": [{"reasoning": "...", "answer": "B", "strategy": "blind", "teacher": "tiny",
                    "detour": "", "checks": {...}}, ...]}

All proposals are recorded with their checks; ``kept`` is the index of the trace kept, or null.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from minifleming.cold_start.refine import TeacherResult
from minifleming.cold_start.trace import Trace
from minifleming.rods.item import Item
from minifleming.run.errors import BadInput
from minifleming.run.run_folder import bar, can_resume, complete_lines

FIELDS = ("reasoning", "answer", "strategy", "teacher", "detour", "checks")


def run_teacher(items: Sequence[Item], collect: Callable[[Sequence[Item]], list[TeacherResult]],
                path: Path, fingerprint: dict, chunk: int) -> list[TeacherResult]:
    """Returns the results of all items. Those already recorded in ``path`` are read from it.

    ``collect`` is called with ``chunk`` items at a time.
    """
    resumed = can_resume(path, fingerprint)
    with open(path, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput("another run is writing it", path) from None
        results = read_record(path, items) if resumed else []
        starts = range(len(results), len(items), chunk)
        for start in bar(starts, desc=f"chunks of {chunk} items"):
            new = collect(items[start : start + chunk])
            file.write("".join(to_line(result) for result in new))
            file.flush()
            results += new
    return results


def to_line(result: TeacherResult) -> str:
    proposals = []
    for trace in result.proposals:
        proposals.append({name: getattr(trace, name) for name in FIELDS})
    record = {"item": result.item.id, "tier": result.item.tier, "hard": result.hard,
              "kept": result.proposals.index(result.kept) if result.kept else None,
              "proposals": proposals}
    return json.dumps(record, ensure_ascii=False) + "\n"


def read_record(path: Path, items: Sequence[Item]) -> list[TeacherResult]:
    """Returns the results of the first items. Raises BadInput with file and line."""
    results: list[TeacherResult] = []
    for number, text in complete_lines(path):
        try:
            results.append(of_line(json.loads(text), items[len(results)]))
        except (ValueError, LookupError, TypeError, AttributeError):
            reason = "is not the record of these items; nothing is overwritten"
            raise BadInput(reason, path, number) from None
    return results


def of_line(record: dict, item: Item) -> TeacherResult:
    if record["item"] != item.id:
        raise ValueError("another item")
    result = TeacherResult(item, hard=record["hard"])
    for proposal in record["proposals"]:
        result.proposals.append(Trace(item.id, item.question, item.options, **proposal))
    if record["kept"] is not None:
        result.kept = result.proposals[record["kept"]]
        if not result.kept.verified:
            raise ValueError("kept, and not verified")
        result.kept.attempts = result.attempts()
    return result
