"""Teachers write reasoning traces. `python -m minifleming.cold_start.teacher --items F --teacher oracle --out F`

    {"item": "kg-2-5d41a2c07be9", "question": "A patient has fever and rash . ...", "options": {"A": "prednisone", ...},
     "reasoning": " fever and rash point to lupus . ...", "answer": "B", "strategy": "blind", "teacher": "oracle",
     "checks": {"format": true, "answer": true, "hops": true}}

Every teacher has one method, ``propose(items) -> traces``. This file has the graph oracle: it tells an item's
path as reasoning, and can go astray on purpose and recover (refine.py). A trace is kept only if it passes the
checks: the strict format, the right label, and every hop that it states an edge of the graph, the last at the answer.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from minifleming.cold_start.refine import STRATEGIES, detour
from minifleming.rods.answer import parse_strict
from minifleming.rods.graph import Graph
from minifleming.rods.graphs.readers import load_graph
from minifleming.rods.hops import support
from minifleming.rods.item import Item, read_items, read_jsonl
from minifleming.rods.phrases import listing, statement
from minifleming.run.checkpoint import write_text
from minifleming.run.errors import BadInput, Parser, guarded


@dataclass(slots=True)
class Trace:
    item: str
    question: str
    options: dict[str, str]
    reasoning: str
    answer: str
    strategy: str
    teacher: str
    checks: dict[str, bool] = field(default_factory=dict)

    @property
    def completion(self) -> str:
        return f"<think>{self.reasoning}</think><answer>{self.answer}</answer>"


class Teacher(Protocol):
    def propose(self, items: list[Item]) -> list[Trace]: ...


class Oracle:
    """Tells each item's path; a share ``detours`` of the traces backtrack, explore or correct themselves."""

    def __init__(self, graph: Graph, detours: float = 0.3, seed: int = 0):
        self.graph, self.detours = graph, detours
        self.rng = np.random.default_rng([seed, 0x7EAC])

    def propose(self, items: list[Item]) -> list[Trace]:
        traces = []
        for item in items:
            strategy = "blind"
            if self.rng.random() < self.detours:
                strategy = STRATEGIES[self.rng.integers(len(STRATEGIES))]
            before = detour(item, strategy, self.graph, self.rng)
            if before is None:
                strategy, before = "blind", ""
            traces.append(Trace(item.id, item.question, item.options, before + tell(item), item.answer,
                                strategy, "oracle"))
        return traces


def tell(item: Item) -> str:
    """The findings, the root they point to, the chain from there with its pins, and the option at its end."""
    root, pins = item.provenance["root"], {head: (r, t) for head, r, t in item.provenance.get("pins", [])}
    findings = [tail if head == root else head for head, _, tail in item.evidence]
    text = f" {listing(findings)} {'points' if len(findings) == 1 else 'point'} to {root} ."
    at = root
    for head, relation, tail in item.path[1:]:
        forward = head == at
        text, at = f"{text} {statement(head, relation, tail, forward)} .", tail if forward else head
        if at in pins:
            text = f"{text} {statement(at, *pins[at])} ."
    return f"{text} so {item.options[item.answer]} ({item.answer})"


def check(trace: Trace, item: Item, graph: Graph) -> Trace:
    """Fill in ``checks``."""
    verdict = parse_strict(trace.completion, item.labels)
    trace.checks = {
        "format": verdict.formatted,
        "answer": verdict.label == item.answer,
        "hops": support(trace.reasoning, item.nodes(item.answer)[-1], graph) == "chain",
    }
    return trace


def write_traces(path: Path, traces: list[Trace]) -> None:
    write_text(path, "".join(json.dumps(dataclasses.asdict(t), ensure_ascii=False) + "\n" for t in traces))


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
        if not isinstance(record.get("checks", {}), dict):
            raise BadInput("'checks' is not an object", path, number)
        trace = Trace(**record)
        verdict = parse_strict(trace.completion, "".join(options))
        if not verdict.formatted:
            raise BadInput(f"reasoning and answer break the strict format ({verdict.rule})", path, number)
        traces.append(trace)
    if not traces:
        raise BadInput("no traces", path)
    return traces


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="teacher", description=__doc__, allow_abbrev=False)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--teacher", default="oracle", help="oracle: the graph tells the path")
    parser.add_argument("--graph", default="embedded")
    parser.add_argument("--detours", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    if args.teacher != "oracle":
        raise BadInput(f"--teacher: '{args.teacher}' is not a teacher of this version; it has 'oracle'")
    if not 0 <= args.detours <= 1:
        raise BadInput("--detours: must lie between 0 and 1")
    graph, items = load_graph(args.graph), read_items(args.items)
    told = [item for item in items if item.path and item.evidence and item.provenance.get("root") in graph.number]
    traces = [check(t, i, graph) for t, i in zip(Oracle(graph, args.detours, args.seed).propose(told), told)]
    kept = [trace for trace in traces if all(trace.checks.values())]
    if not kept:
        raise BadInput("no item has a path in this graph", args.items)
    write_traces(args.out, kept)
    print(f"{len(kept)} traces of {len(items)} items in {args.out}: {dict(Counter(t.strategy for t in kept))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded(main))
