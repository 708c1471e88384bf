"""The graph as teacher: it tells an item's path as reasoning, and can go astray on purpose.

    " fever and rash point to lupus . lupus is treated with hydroxychloroquine . so hydroxychloroquine (B)"

Three things can be asked of it, so that selection and refinement are testable without a model: a share ``detours`` of
its blind traces backtrack, explore or correct themselves (detour.py); a share ``errs`` of all its traces is wrong, half
of them a rival's chain to a wrong option, half the right answer on a finding that the disease does not have; and asked
for a round of refinement, it tells that detour. What it tells of an item depends on the seed, the item, the strategy
and the sample's number, not on its neighbours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from minifleming.cold_start.detour import detour, pick_rival
from minifleming.cold_start.trace import Trace, trace_of
from minifleming.extras.teachers.prompts import ROUNDS
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.rods.phrases import listing, statement
from minifleming.rods.reasoning import support
from minifleming.rods.walk import EVIDENCE

TRIES = 50  # to find a finding that a disease does not have


class Oracle:
    name = "oracle"

    def __init__(self, graph: Graph, detours: float = 0.3, errs: float = 0.0, seed: int = 0):
        self.graph, self.detours, self.errs, self.seed = graph, detours, errs, seed

    def propose(self, items: Sequence[Item], strategy: str = "blind", samples: int = 1,
                earlier: Sequence[Trace] = ()) -> list[list[Trace]]:
        return [[self.one(item, strategy, sample) for sample in range(samples)] for item in items]

    def one(self, item: Item, strategy: str, sample: int) -> Trace:
        """One trace; an empty one if the item has no path here, or no rival for the detour that was asked for."""
        if not tells(item, self.graph):
            return trace_of(item, "", "", strategy, self.name)
        rng = keyed(self.seed, item.id, strategy, str(sample))
        astray, way = rng.random() < self.errs, strategy
        if strategy == "blind" and rng.random() < self.detours:
            way = ROUNDS[rng.integers(len(ROUNDS))]
        if astray and (wrong := err(item, self.graph, rng)):
            return trace_of(item, *wrong, strategy, self.name)
        before = detour(item, way, self.graph, rng)
        if before is None and strategy in ROUNDS:
            return trace_of(item, "", "", strategy, self.name)
        return trace_of(item, (before or "") + tell(item), item.answer, strategy, self.name, before and way or "")

    def resolve(self, items: Sequence[Item], reasonings: Sequence[str]) -> list[str]:
        """The option that the stated hops end at, if each is an edge and they end at one option; "" otherwise."""
        found = []
        for item, reasoning in zip(items, reasonings):
            ends = [k for k in item.options if support(reasoning, item.nodes(k)[-1], self.graph) == "chain"]
            found.append(ends[0] if len(ends) == 1 else "")
        return found


def keyed(seed: int, *key: str) -> np.random.Generator:
    """A generator of its own for each key."""
    digest = hashlib.sha256("\x1f".join((str(seed), *key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def tells(item: Item, graph: Graph) -> bool:
    """Has the item a path in this graph that can be told?"""
    return bool(item.path and item.evidence) and item.provenance.get("root") in graph.number


def tell(item: Item) -> str:
    """The findings, the root they point to, the chain from there with its pins, and the option at its end."""
    findings = [tail if head == item.provenance["root"] else head for head, _, tail in item.evidence]
    return told(item, findings)


def told(item: Item, findings: list[str]) -> str:
    root, pins = item.provenance["root"], {head: (r, t) for head, r, t in item.provenance.get("pins", [])}
    text = f" {listing(findings)} {'points' if len(findings) == 1 else 'point'} to {root} ."
    at = root
    for head, relation, tail in item.path[1:]:
        forward = head == at
        text, at = f"{text} {statement(head, relation, tail, forward)} .", tail if forward else head
        if at in pins:
            text = f"{text} {statement(at, *pins[at])} ."
    return f"{text} so {item.options[item.answer]} ({item.answer})"


def err(item: Item, graph: Graph, rng: np.random.Generator) -> tuple[str, str] | None:
    """A wrong reasoning and its label; None if the item has nothing to go wrong with."""
    if rng.random() < 0.5:
        finding = foreign(item, graph, rng)
        return None if finding is None else (told(item, [finding]), item.answer)
    rival = pick_rival(item, graph, rng)
    label = rival and next((k for k, name in item.provenance["rivals"].items() if name == rival[0]), None)
    if not label:
        return None
    return f" {rival[1]} points to {rival[0]} . so {item.options[label]} ({label})", label


def foreign(item: Item, graph: Graph, rng: np.random.Generator) -> str | None:
    """A finding of another disease that the item's root does not have."""
    root = item.provenance["root"]
    for i in rng.integers(len(graph.table), size=TRIES):
        _, code, tail = graph.table[i]
        finding = graph.names[tail]
        if graph.relations[code] in EVIDENCE and not any((root, r, finding) in graph for r in EVIDENCE):
            return finding
    return None
