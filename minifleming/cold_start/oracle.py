"""[4/10] The graph as teacher: writes an item's path out as reasoning (arXiv:2509.15279 §3.2).

    evidence    (lupus, has_symptom, fever)   (lupus, has_symptom, rash)
    chain       (lupus, treatment, hydroxychloroquine)
    reasoning   " fever and rash point to lupus . lupus is treated with hydroxychloroquine .
                  so hydroxychloroquine (B)"

Three settings make selection and refinement testable without a language model:

    detour_fraction   this share of the blind traces starts with a detour, see ``write_detour``
    error_rate        this share of all traces is wrong: half conclude a rival's wrong option, half
                      reach the right option from a finding that the disease does not have
    strategy          a round of refinement requests that detour

A trace depends on (seed, item, strategy, sample number), not on the other items of the call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minifleming.cold_start.trace import ROUNDS, Trace, new_trace
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.rods.phrases import listing, statement
from minifleming.rods.reasoning import support
from minifleming.rods.walk import EVIDENCE

MAX_DRAWS = 50  # random edges tried by `foreign_finding`


class Oracle:
    """A Teacher (see trace.py) whose knowledge is the graph."""

    name = "oracle"

    def __init__(
        self, graph: Graph, detour_fraction: float = 0.3, error_rate: float = 0.0, seed: int = 0
    ):
        self.graph = graph
        self.detour_fraction = detour_fraction
        self.error_rate = error_rate
        self.seed = seed

    def propose(
        self,
        items: Sequence[Item],
        strategy: str = "blind",
        samples: int = 1,
        earlier: Sequence[Trace] = (),
    ) -> list[list[Trace]]:
        proposals = []
        for item in items:
            proposals.append([self.make_trace(item, strategy, i) for i in range(samples)])
        return proposals

    def make_trace(self, item: Item, strategy: str, sample: int) -> Trace:
        """Returns one trace; it is empty if the item has no path here, or no rival to detour to."""
        empty = new_trace(item, "", "", strategy, self.name)
        if not has_path(item, self.graph):
            return empty
        rng = seeded_rng(self.seed, item.id, strategy, str(sample))
        is_corrupted = rng.random() < self.error_rate
        style = strategy
        if strategy == "blind" and rng.random() < self.detour_fraction:
            style = ROUNDS[rng.integers(len(ROUNDS))]
        if is_corrupted:
            wrong = corrupt(item, self.graph, rng)
            if wrong is not None:
                return new_trace(item, *wrong, strategy, self.name)
        detour = write_detour(item, style, self.graph, rng) if style in ROUNDS else ""
        if detour is None and strategy in ROUNDS:
            return empty
        reasoning = (detour or "") + write_path(item, findings_of(item))
        return new_trace(
            item, reasoning, item.answer, strategy, self.name, detour=style if detour else ""
        )

    def resolve(self, items: Sequence[Item], reasonings: Sequence[str]) -> list[str]:
        return [self.resolve_one(item, text) for item, text in zip(items, reasonings)]

    def resolve_one(self, item: Item, reasoning: str) -> str:
        """Returns the label of the only option that the stated hops lead to; "" otherwise."""
        reached = []
        for label in item.options:
            node = item.nodes(label)[-1]
            if support(reasoning, node, self.graph) == "chain":
                reached.append(label)
        return reached[0] if len(reached) == 1 else ""


def seeded_rng(seed: int, *key: str) -> np.random.Generator:
    """Returns an independent generator for each (seed, key)."""
    digest = hashlib.sha256("\x1f".join((str(seed), *key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


# The straight path


def has_path(item: Item, graph: Graph) -> bool:
    """True if the item was synthesised from a path that starts in this graph."""
    return bool(item.path and item.evidence) and item.provenance.get("root") in graph.number


def findings_of(item: Item) -> list[str]:
    root = item.provenance["root"]
    return [tail if head == root else head for head, _, tail in item.evidence]


def write_path(item: Item, findings: list[str]) -> str:
    """Returns the findings, the disease they point to, the chain from there, and the option.

    A node of the chain that the question qualifies by a finding is followed by that finding.
    """
    root = item.provenance["root"]
    qualifiers = {}
    for head, relation, tail in item.provenance.get("pins", []):
        qualifiers[head] = (relation, tail)
    verb = "points" if len(findings) == 1 else "point"
    clauses = [f"{listing(findings)} {verb} to {root} ."]
    node = root
    for head, relation, tail in item.path[1:]:
        forward = head == node
        clauses.append(f"{statement(head, relation, tail, forward)} .")
        node = tail if forward else head
        if node in qualifiers:
            clauses.append(f"{statement(node, *qualifiers[node])} .")
    return f" {' '.join(clauses)} so {item.options[item.answer]} ({item.answer})"


# Detours: text before the straight path


class Rival(NamedTuple):
    """A disease that shares findings with the item's root."""

    name: str
    label: str  # the option that belongs to it
    shared: str  # a finding of both
    missing: str  # a finding of the root that the rival lacks


def write_detour(item: Item, style: str, graph: Graph, rng: np.random.Generator) -> str | None:
    """Returns the text that precedes the straight path; None if the item has no suitable rival R.

        backtrack      fever points to R . R lacks rash . back .           take R, test it, leave it
        explore        consider R : fever points to R . R lacks rash .     test R before believing it
        self-correct   R is treated with T . wait , R lacks rash .         follow R, notice the slip

    Every statement is true in the graph, so a detour teaches checking and not falsehoods.
    """
    rival = pick_rival(item, graph, rng)
    if rival is None:
        return None
    pointing = f"{rival.shared} points to {rival.name} ."
    lacking = f"{rival.name} lacks {rival.missing} ."
    if style == "backtrack":
        return f" {pointing} {lacking} back ."
    if style == "explore":
        return f" consider {rival.name} : {pointing} {lacking}"
    step = rival_step(item, rival, graph)
    return f" {step or pointing} wait , {lacking}"


def rival_step(item: Item, rival: Rival, graph: Graph) -> str | None:
    """Returns the edge from the rival to its option, for items with two-edge paths."""
    if len(item.path) != 2:
        return None
    relation = item.path[1][1]
    end = item.nodes(rival.label)[-1]
    if (rival.name, relation, end) in graph:
        return f"{statement(rival.name, relation, end)} ."
    if (end, relation, rival.name) in graph:
        return f"{statement(end, relation, rival.name, forward=False)} ."
    return None


def pick_rival(item: Item, graph: Graph, rng: np.random.Generator) -> Rival | None:
    """Returns a random rival among those that the item records, with two findings to compare."""
    first_label: dict[str, str] = {}
    for label, name in item.provenance.get("rivals", {}).items():
        first_label.setdefault(name, label)
    names = [name for name in first_label if name]
    for i in rng.permutation(len(names)):
        name = names[i]
        label = first_label[name]
        missing = item.provenance.get("lacks", {}).get(label, [])
        shared = []
        for _, relation, finding in item.evidence:
            if finding not in missing and (name, relation, finding) in graph:
                shared.append(finding)
        if shared and missing:
            one = shared[rng.integers(len(shared))]
            other = missing[rng.integers(len(missing))]
            return Rival(name, label, one, other)
    return None


# Errors on purpose


def corrupt(item: Item, graph: Graph, rng: np.random.Generator) -> tuple[str, str] | None:
    """Returns a wrong reasoning and its label; None if the item offers nothing to get wrong."""
    if rng.random() < 0.5:
        finding = foreign_finding(item, graph, rng)
        if finding is None:
            return None
        return write_path(item, [finding]), item.answer
    rival = pick_rival(item, graph, rng)
    if rival is None:
        return None
    option = f"{item.options[rival.label]} ({rival.label})"
    return f" {rival.shared} points to {rival.name} . so {option}", rival.label


def foreign_finding(item: Item, graph: Graph, rng: np.random.Generator) -> str | None:
    """Returns a finding of some disease that the item's root does not have."""
    root = item.provenance["root"]
    for i in rng.integers(len(graph.table), size=MAX_DRAWS):
        _, code, tail = graph.table[i]
        finding = graph.names[tail]
        if graph.relations[code] not in EVIDENCE:
            continue
        if not any((root, relation, finding) in graph for relation in EVIDENCE):
            return finding
    return None
