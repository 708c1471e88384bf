"""A trace: one reasoning that leads from a question to its answer. One JSON object a line.

    {"item": "kg-2-5d41a2c07be9", "question": "A patient has fever and rash . ...", "options": {"A": "prednisone", ...},
     "reasoning": " fever and rash point to lupus . ...", "answer": "B", "strategy": "blind", "teacher": "oracle",
     "checks": {"format": true, "answer": true, "hops": true}, "attempts": {"oracle blind": [8, 3]}}

``strategy`` is one of prompts.STRATEGIES, the one that was asked; ``detour`` (the graph's traces) the one of its rounds
that a blind trace goes through all the same, or ""; ``checks`` what checks.py found; ``attempts`` how many traces each
teacher proposed for this item by each strategy, and how many of them were verified.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from minifleming.lm.chat import format_completion
from minifleming.rods.answer import parse_strict
from minifleming.rods.item import Item, read_jsonl
from minifleming.run.checkpoint import write_text
from minifleming.run.errors import BadInput


@dataclass(slots=True)
class Trace:
    item: str
    question: str
    options: dict[str, str]
    reasoning: str
    answer: str  # a label; "" where the teacher gave none
    strategy: str
    teacher: str
    checks: dict[str, bool] = field(default_factory=dict)
    attempts: dict[str, list[int]] = field(default_factory=dict)
    detour: str = ""

    @property
    def completion(self) -> str:
        return format_completion(self.reasoning, self.answer)

    @property
    def verified(self) -> bool:
        """Every check that applied was passed."""
        return bool(self.checks) and all(self.checks.values())


def trace_of(item: Item, reasoning: str, answer: str, strategy: str, teacher: str, detour: str = "") -> Trace:
    return Trace(item.id, item.question, item.options, reasoning, answer, strategy, teacher, detour=detour)


def to_line(trace: Trace) -> str:
    return json.dumps(dataclasses.asdict(trace), ensure_ascii=False) + "\n"


def write_traces(path: Path, traces: list[Trace]) -> None:
    write_text(path, "".join(map(to_line, traces)))


def read_traces(path: Path) -> list[Trace]:
    """Traces of a JSONL file; a bad line, or one that would teach a broken format, is refused with file and line."""
    traces, names = [], [f.name for f in dataclasses.fields(Trace)]
    for number, record in read_jsonl(path):
        unknown = sorted(set(record) - set(names))
        if unknown:
            raise BadInput(f"unknown field '{unknown[0]}'", path, number)
        for name in ("item", "question", "reasoning", "answer", "strategy", "teacher"):
            if not isinstance(record.get(name), str):
                raise BadInput(f"'{name}' is missing or no text", path, number)
        options = record.get("options")
        if not isinstance(options, dict) or not all(isinstance(text, str) for text in options.values()):
            raise BadInput("'options' is missing or does not map labels to texts", path, number)
        if len(options) < 2:
            raise BadInput("'options' must be two or more", path, number)
        for name, kind in (("checks", dict), ("attempts", dict), ("detour", str)):
            if not isinstance(record.get(name, kind()), kind):
                raise BadInput(f"'{name}' is not {'an object' if kind is dict else 'a text'}", path, number)
        trace = Trace(**record)
        if failed := [name for name, passed in trace.checks.items() if passed is not True]:
            raise BadInput(f"the trace failed its check '{failed[0]}'", path, number)
        verdict = parse_strict(trace.completion, "".join(options))
        if not verdict.formatted:
            raise BadInput(f"reasoning and answer break the strict format ({verdict.rule})", path, number)
        traces.append(trace)
    if not traces:
        raise BadInput("no traces", path)
    return traces
