"""A reasoning trace from a question to its answer, its JSONL file, and the interface of a teacher.

    {"item": "kg-2-5d41a2c07be9", "question": "A patient has fever and rash . ...",
     "options": {"A": "prednisone", ...}, "reasoning": " fever and rash point to lupus . ...",
     "answer": "B", "strategy": "blind", "teacher": "oracle",
     "checks": {"format": true, "answer": true, "hops": true},
     "attempts": {"oracle blind": [8, 3]}, "detour": ""}

``strategy``  the strategy that was requested, one of STRATEGIES
``checks``    the verdicts of checks.py
``attempts``  "teacher strategy" -> [traces proposed for this item, traces verified]
``detour``    the round of ROUNDS whose style a trace of the graph imitates, or ""
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from minifleming.lm.tokenizer import format_completion
from minifleming.rods.answer import parse_strict
from minifleming.rods.item import Item, read_jsonl
from minifleming.run.checkpoint import write_text
from minifleming.run.errors import BadInput

ROUNDS = ("backtrack", "explore", "self-correct")  # rounds of refinement, in this order
STRATEGIES = ("blind", "conditioned", *ROUNDS)
REQUIRED = {"item": str, "question": str, "options": dict, "reasoning": str, "answer": str,
            "strategy": str, "teacher": str}
OPTIONAL = {"checks": dict, "attempts": dict, "detour": str}


@dataclass(slots=True)
class Trace:
    item: str
    question: str
    options: dict[str, str]
    reasoning: str
    answer: str  # a label; "" if the teacher's answer could not be read
    strategy: str
    teacher: str
    checks: dict[str, bool] = field(default_factory=dict)
    attempts: dict[str, list[int]] = field(default_factory=dict)
    detour: str = ""

    @property
    def completion(self) -> str:
        """The training target, without the end token."""
        return format_completion(self.reasoning, self.answer)

    @property
    def verified(self) -> bool:
        """True if the trace was checked and passed every check that applied."""
        return bool(self.checks) and all(self.checks.values())


class Teacher(Protocol):
    """Anything that writes traces: the graph (oracle.py), a local model or a server (extras)."""

    name: str  # recorded in every trace

    def propose(self, items: Sequence[Item], strategy: str = "blind", samples: int = 1,
                earlier: Sequence[Trace] = ()) -> list[list[Trace]]:
        """Returns ``samples`` traces per item, written with one of STRATEGIES.

        In a round of refinement ``earlier`` holds one failed trace per item, with its ``checks``.
        An answer that cannot be read becomes a trace with answer ""; it counts as an attempt.
        """

    def resolve(self, items: Sequence[Item], reasonings: Sequence[str]) -> list[str]:
        """Returns the label that each reasoning leads to without its question; "" if none."""


def new_trace(item: Item, reasoning: str, answer: str, strategy: str, teacher: str,
              detour: str = "") -> Trace:
    return Trace(item.id, item.question, item.options, reasoning, answer, strategy, teacher,
                 detour=detour)


def write_traces(path: Path, traces: list[Trace]) -> None:
    """Writes one JSON object per line and replaces the file atomically."""
    lines = [json.dumps(dataclasses.asdict(trace), ensure_ascii=False) for trace in traces]
    write_text(path, "".join(line + "\n" for line in lines))


def read_traces(path: Path) -> list[Trace]:
    """Returns the traces of a JSONL file.

    Raises BadInput with file and line for a malformed line, for a trace that failed a check, and
    for a trace that would teach a broken format.
    """
    traces = []
    for number, record in read_jsonl(path):
        check_fields(record, path, number)
        trace = Trace(**record)
        check_trace(trace, path, number)
        traces.append(trace)
    if not traces:
        raise BadInput("no traces", path)
    return traces


def check_fields(record: dict, path: Path, number: int) -> None:
    """Raises BadInput unless the record has the fields of a trace, with the right types."""
    types = REQUIRED | OPTIONAL
    for name in sorted(record.keys() - types.keys()):
        raise BadInput(f"unknown field '{name}'", path, number)
    for name, kind in types.items():
        default = kind() if name in OPTIONAL else None
        if not isinstance(record.get(name, default), kind):
            wanted = "a text" if kind is str else "an object"
            raise BadInput(f"'{name}' is missing or not {wanted}", path, number)
    options = record["options"]
    if len(options) < 2 or not all(isinstance(text, str) for text in options.values()):
        raise BadInput("'options' must map two or more labels to texts", path, number)


def check_trace(trace: Trace, path: Path, number: int) -> None:
    """Raises BadInput if the trace must not be trained on."""
    for name, passed in trace.checks.items():
        if passed is not True:
            raise BadInput(f"the trace failed its check '{name}'", path, number)
    verdict = parse_strict(trace.completion, "".join(trace.options))
    if not verdict.formatted:
        reason = f"reasoning and answer break the strict format ({verdict.rule})"
        raise BadInput(reason, path, number)
