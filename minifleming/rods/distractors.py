"""Distractors by *relation-preserving perturbation* (arXiv:2509.15279 §1, item 1).

The chain's relations are walked again from a *competing diagnosis*: a node of the root's type that
shares some, not all, of the findings. The node at the end has the answer's type and relation:

    lupus     fever, malar rash, proteinuria -> hydroxychloroquine     the answer
    measles   fever                          -> vitamin A              lacks malar rash

The graph is incomplete, so a missing edge does not prove that a statement is false. A candidate
with any edge to the node before the answer is therefore not used (a second treatment is no wrong
answer), nor is an ancestor or descendant of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from minifleming.rods.graph import Graph
from minifleming.rods.item import Triple
from minifleming.rods.walk import Step, Walk, Walker

MAX_DIAGNOSES = 256  # competing diagnoses that are tried, those that share most findings first
SURPLUS = 8  # if there are more, the search ends with this many times the distractors needed


class Distractor(NamedTuple):
    diagnosis: str  # the competing diagnosis that it belongs to; '' for none
    lacks: Triple  # the visible triple that does not hold with it in the answer's place


class DistractorSearch:
    """Finds distractors on one graph, and proves each of them wrong."""

    def __init__(self, walker: Walker, is_usable: Callable[[str], bool] = lambda name: True):
        """``is_usable`` returns whether a name may be an option."""
        self.walker, self.graph = walker, walker.graph
        self.is_usable = is_usable
        self._same_slot: dict[tuple[str, bool], list[str]] = {}

    def too_similar(self, candidate: str, node: str) -> bool:
        """Returns whether ``candidate`` may be right if ``node`` is."""
        return self.graph.is_a_related(candidate, node)

    def find(self, walk: Walk, count: int, rng: np.random.Generator,
             option_deficit: Mapping[str, int]) -> dict[str, Distractor]:
        """Returns wrong answers, the best first; fewer than ``count`` if the graph has no more.

        Ends of competing diagnoses come first; other nodes at the same end of the last relation
        fill up. Within both, a larger ``option_deficit`` comes first (see synthesize.py), then the
        diagnosis that shares more findings; ties are in random order.
        """
        diagnoses = self.ranked_diagnoses(walk, rng)
        enough = len(diagnoses) if len(diagnoses) <= MAX_DIAGNOSES else SURPLUS * count
        found: dict[str, Distractor] = {}
        for diagnosis in diagnoses[:MAX_DIAGNOSES]:
            if len(found) >= enough:
                break
            for end in ends_of(diagnosis, walk.chain, self.graph):
                lacks = self.discriminating_triple(walk, end)
                if lacks is not None and end not in found:
                    found[end] = Distractor(diagnosis, lacks)
                    break
        by_deficit = sorted(found, key=lambda end: -option_deficit.get(end, 0))
        found = {end: found[end] for end in by_deficit}
        if walk.chain and len(found) < count:
            self.fill_up(found, walk, count, rng, option_deficit)
        return found

    def fill_up(self, found: dict[str, Distractor], walk: Walk, count: int,
                rng: np.random.Generator, option_deficit: Mapping[str, int]) -> None:
        """Adds nodes at the same end of the last relation until there are ``count`` distractors."""
        ends = shuffled(self.same_slot_nodes(walk.chain[-1]), rng)
        for end in sorted(ends, key=lambda end: -option_deficit.get(end, 0)):
            lacks = self.discriminating_triple(walk, end)
            if lacks is not None:
                found.setdefault(end, Distractor("", lacks))
            if len(found) == count:
                return

    def same_slot_nodes(self, step: Step) -> list[str]:
        """Returns the nodes that edges of the step's relation and direction lead to, sorted."""
        key = (step.relation, step.forward)
        if key not in self._same_slot:
            self._same_slot[key] = self.graph.ends(*key)
        return self._same_slot[key]

    def ranked_diagnoses(self, walk: Walk, rng: np.random.Generator) -> list[str]:
        """Returns the competing diagnoses; those that share more findings come first."""
        shared = self.competing_diagnoses(walk)
        names = shuffled(sorted(shared), rng)
        return sorted(names, key=lambda name: -shared[name])

    def competing_diagnoses(self, walk: Walk) -> dict[str, int]:
        """Returns, for each root that shares some but not all findings, how many it shares."""
        graph = self.graph
        nodes = [self.walker.nodes_with_finding(step) for step in walk.evidence]
        candidates, shared = np.unique(np.concatenate(nodes), return_counts=True)
        same_type = graph.type_ids[candidates] == graph.type_ids[graph.node_id[walk.root]]
        fits = (shared < len(walk.evidence)) & self.walker.is_root[candidates] & same_type
        names = [graph.names[node] for node in candidates[fits]]
        return dict(zip(names, shared[fits].tolist()))

    def missing_findings(self, walk: Walk, diagnosis: str) -> list[Step]:
        """Returns the findings of the evidence that ``diagnosis`` does not have."""
        node = self.graph.node_id[diagnosis]
        has = self.walker.nodes_with_finding
        return [step for step in walk.evidence if not contains(has(step), node)]

    def discriminating_triple(self, walk: Walk, candidate: str) -> Triple | None:
        """Returns the visible triple that ``candidate`` lacks in the answer's place.

        None if the candidate may be right, or may not be an option.
        """
        graph = self.graph
        if candidate == walk.answer or graph.type_of(candidate) != graph.type_of(walk.answer):
            return None
        if not self.is_usable(candidate) or self.too_similar(candidate, walk.answer):
            return None
        if not walk.chain:
            missing = self.missing_findings(walk, candidate)
            return missing[0].triple if missing else None
        last = walk.chain[-1]
        # a node with a descendant of last.start has last.start too
        before = [graph.names[node] for node in graph.descendants(graph.node_id[last.start])]
        if candidate == walk.root or candidate in before:
            return None
        if any(graph.connected(name, candidate) for name in before):
            return None
        return last.triple


def ends_of(node: str, chain: tuple[Step, ...], graph: Graph) -> list[str]:
    """Returns every node that the chain's relations lead to from ``node``, in the graph's order."""
    ends = [node]
    for step in chain:
        across = graph.tails if step.forward else graph.heads
        reached: dict[str, None] = {}
        for near in ends:
            reached.update(dict.fromkeys(across(near, step.relation)))
        ends = list(reached)
    return ends


def shuffled(names: list[str], rng: np.random.Generator) -> list[str]:
    return [names[i] for i in rng.permutation(len(names))]


def contains(ascending: np.ndarray, node: int) -> bool:
    place = int(ascending.searchsorted(node))
    return place < len(ascending) and int(ascending[place]) == node
