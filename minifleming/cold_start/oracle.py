"""[4/10] The graph as teacher: writes an item's path out as reasoning (arXiv:2509.15279 §3.2).

    evidence    (lupus, has_symptom, fever)   (lupus, has_symptom, rash)
    chain       (lupus, treatment, hydroxychloroquine)
    reasoning   " fever and rash point to lupus . lupus is treated with hydroxychloroquine .
                  so hydroxychloroquine (B)"

A share of the blind traces, and every trace of a refinement round, starts with a detour to a rival
disease. A trace depends on (seed, item, strategy, sample), not on the other items of the call.
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


class Oracle:
    """A Teacher (see trace.py) whose knowledge is the graph."""

    name = "oracle"

    def __init__(self, graph: Graph, detour_fraction: float = 0.3, seed: int = 0):
        self.graph = graph
        self.detour_fraction = detour_fraction
        self.seed = seed

    def propose(self, items: Sequence[Item], strategy: str = "blind", samples: int = 1,
                earlier: Sequence[Trace] = ()) -> list[list[Trace]]:
        """Returns ``samples`` traces per item; ``earlier`` is not needed here."""
        proposals = []
        for item in items:
            proposals.append([self.make_trace(item, strategy, i) for i in range(samples)])
        return proposals

    def make_trace(self, item: Item, strategy: str, sample: int) -> Trace:
        """Returns one trace; it is empty if the item has no path here, or no rival to detour to."""
        if not has_path(item, self.graph):
            return new_trace(item, "", "", strategy, self.name)
        rng = seeded_rng(self.seed, item.id, strategy, str(sample))
        rng.random()  # unused; recorded traces depend on the draws that follow
        style = strategy
        if strategy == "blind" and rng.random() < self.detour_fraction:
            style = ROUNDS[rng.integers(len(ROUNDS))]
        rival = pick_rival(item, self.graph, rng) if style in ROUNDS else None
        if rival is None:
            text, answer = ("", "") if strategy in ROUNDS else (write_path(item), item.answer)
            return new_trace(item, text, answer, strategy, self.name)
        text = write_detour(item, style, rival, self.graph) + write_path(item)
        return new_trace(item, text, item.answer, strategy, self.name, detour=style)

    def resolve(self, items: Sequence[Item], reasonings: Sequence[str]) -> list[str]:
        """Returns the label of the only option that each reasoning's edges lead to, or ""."""
        labels = []
        for item, reasoning in zip(items, reasonings):
            reached = []
            for label in item.options:
                node = item.nodes(label)[-1]
                if support(reasoning, node, self.graph) == "chain":
                    reached.append(label)
            labels.append(reached[0] if len(reached) == 1 else "")
        return labels


def seeded_rng(seed: int, *key: str) -> np.random.Generator:
    """Returns an independent generator for each (seed, key)."""
    digest = hashlib.sha256("\x1f".join((str(seed), *key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


# The straight path


def has_path(item: Item, graph: Graph) -> bool:
    """True if the item was synthesized from a path that starts in this graph."""
    return bool(item.path and item.evidence) and item.provenance.get("root") in graph.node_id


def write_path(item: Item) -> str:
    """Returns the findings, the disease they point to, the chain from there, and the option.

    If the question qualifies a node of the chain by a finding, that finding follows the node.
    """
    root = item.provenance["root"]
    findings = [tail if head == root else head for head, _, tail in item.evidence]
    verb = "points" if len(findings) == 1 else "point"
    clauses = [f"{listing(findings)} {verb} to {root} ."]
    node = root
    for head, relation, tail in item.path[1:]:
        forward = head == node
        clauses.append(f"{statement(head, relation, tail, forward)} .")
        node = tail if forward else head
        for qualified, relation, finding in item.provenance.get("pins", []):
            if qualified == node:
                clauses.append(f"{statement(node, relation, finding)} .")
    return f" {' '.join(clauses)} so {item.options[item.answer]} ({item.answer})"


# Detours, which precede the straight path


class Rival(NamedTuple):
    """A disease that shares findings with the item's root."""

    name: str
    label: str  # the option that belongs to it
    shared: str  # a finding of both
    missing: str  # a finding of the root that the rival lacks


def write_detour(item: Item, style: str, rival: Rival, graph: Graph) -> str:
    """Returns a detour to rival R, in the style of a refinement round.

        backtrack      fever points to R . R lacks rash . back .           take R, test it, leave it
        explore        consider R : fever points to R . R lacks rash .     test R before using it
        self-correct   R is treated with T . wait , R lacks rash .         follow R, notice the slip

    Every statement is true in the graph, so a detour teaches checking and not falsehoods.
    """
    pointing = f"{rival.shared} points to {rival.name} ."
    lacking = f"{rival.name} lacks {rival.missing} ."
    if style == "backtrack":
        return f" {pointing} {lacking} back ."
    if style == "explore":
        return f" consider {rival.name} : {pointing} {lacking}"
    return f" {rival_edge(item, rival, graph) or pointing} wait , {lacking}"


def rival_edge(item: Item, rival: Rival, graph: Graph) -> str | None:
    """Returns the edge between the rival and its option, if the item's path has two edges."""
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
        if name:
            first_label.setdefault(name, label)
    names = list(first_label)
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
