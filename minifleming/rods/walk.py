"""Topological multi-hop sampling (arXiv:2509.15279 §3.1): from a root through edges that leave no choice.

A walk of n hops is a question in the making:

    evidence                      root            chain of n - 1 functional edges
    fever, malar rash, proteinuria -> lupus -> hydroxychloroquine -> toll-like receptor inhibition

1. The *root* is drawn with weight  w(v) = boost(v) * (1 + degree(v))^-rarity : rare diseases and little
   connected ones come more often. It is a node of a type that has evidence relations (see ``EVIDENCE``).
2. The *chain* takes n - 1 edges, in either direction, none back to a visited node. An edge is taken only
   where it is functional: the node has exactly one neighbour by that relation in that direction. Among
   the functional edges at a node the next node is drawn with the weight of step 1, which favours rare drugs.
3. The *evidence* is a random set of the root's findings that no other node has all of: together they
   determine the root, and so, the chain being functional, the last node.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from minifleming.rods.graph import Graph

EVIDENCE = ("has_symptom", "has_lab_finding", "has_imaging_finding", "has_phenotype")
NOT_WALKED = EVIDENCE + ("has_prevalence", "other_treatment")
RARE = ("has_prevalence", "rare disease")


@dataclass(frozen=True)
class Step:
    """An edge as it is walked: from ``start`` to ``end``; ``forward`` if start is its head."""

    start: str
    relation: str
    end: str
    forward: bool

    @property
    def triple(self) -> tuple[str, str, str]:
        return (self.start, self.relation, self.end) if self.forward else (self.end, self.relation, self.start)


@dataclass(frozen=True)
class Walk:
    root: str
    evidence: tuple[Step, ...]  # root -> finding, in the order in which they are told
    chain: tuple[Step, ...]

    @property
    def answer(self) -> str:
        return self.chain[-1].end if self.chain else self.root

    @property
    def hops(self) -> int:
        return 1 + len(self.chain)


class Walker:
    """Draws walks from one graph. Pure given its random generator."""

    def __init__(self, graph: Graph, rarity: float = 0.5, rare_boost: float = 2.0, roots: int = 0):
        """``roots`` limits the root nodes to that many, a fixed choice by the hash of their names; 0 takes all."""
        self.graph = graph
        weight = (1.0 + graph.degrees()) ** -rarity
        for name in graph.heads(RARE[1], RARE[0]):
            weight[graph.number[name]] *= rare_boost
        self.weight = weight  # [nodes]
        codes = [graph.code[r] for r in EVIDENCE if r in graph.code]
        self.roots = [v for v in range(len(graph.names)) if np.isin(graph.out.relations_of(v), codes).any()]
        if roots:
            self.roots.sort(key=lambda v: hashlib.sha256(graph.names[v].encode()).digest())
            self.roots = sorted(self.roots[:roots])
        self.asked = {graph.names[v] for v in self.roots}
        root_weight = weight[self.roots]
        self.root_share = root_weight / max(root_weight.sum(), 1e-300)
        self._steps: dict[str, list[Step]] = {}
        self._findings: dict[str, list[Step]] = {}
        self._places: dict[tuple[str, bool], list[str]] = {}

    def walk(self, hops: int, findings: tuple[int, int], rng: np.random.Generator) -> Walk | None:
        """One walk of exactly ``hops`` edges, or None if this draw came to a dead end."""
        if not self.roots:
            return None
        root = self.graph.names[self.roots[rng.choice(len(self.roots), p=self.root_share)]]
        chain = self.chain(root, hops - 1, rng)
        evidence = None if chain is None else self.evidence(root, findings, rng, {step.end for step in chain})
        return None if evidence is None else Walk(root, evidence, chain)

    def chain(self, root: str, length: int, rng: np.random.Generator) -> tuple[Step, ...] | None:
        node, visited, taken = root, {root}, []
        for _ in range(length):
            steps = [s for s in self.functional_steps(node) if s.end not in visited]
            if not steps:
                return None
            weight = np.array([self.weight[self.graph.number[s.end]] for s in steps])
            taken.append(steps[rng.choice(len(steps), p=weight / weight.sum())])
            node = taken[-1].end
            visited.add(node)
        return tuple(taken)

    def evidence(self, root: str, size: tuple[int, int], rng: np.random.Generator,
                 avoid: set[str] = frozenset()) -> tuple[Step, ...] | None:
        """The shortest prefix, of at least ``size[0]`` findings, of a random order that only the root has.

        Findings in ``avoid`` (those that the chain comes through) are not told.
        """
        steps = [step for step in self.findings(root) if step.end not in avoid]
        order = [steps[i] for i in rng.permutation(len(steps))]
        rivals: set[str] | None = None
        for count, step in enumerate(order[: size[1]], 1):
            others = set(self.graph.heads(step.end, step.relation))
            rivals = others if rivals is None else rivals & others
            if count >= size[0] and rivals == {root}:
                return tuple(order[:count])
        return None

    def findings(self, root: str) -> list[Step]:
        if root not in self._findings:
            self._findings[root] = [Step(root, r, t, True) for r in EVIDENCE for t in self.graph.tails(root, r)]
        return self._findings[root]

    def functional_steps(self, node: str) -> list[Step]:
        """The edges at ``node`` whose relation and direction lead to exactly one neighbour."""
        if node not in self._steps:
            found = []
            for relation in self.graph.relations:
                if relation in NOT_WALKED:
                    continue
                for forward, ends in ((True, self.graph.tails(node, relation)),
                                      (False, self.graph.heads(node, relation))):
                    if len(ends) == 1:
                        found.append(Step(node, relation, ends[0], forward))
            self._steps[node] = found
        return self._steps[node]

    def places(self, step: Step) -> list[str]:
        """Every node that stands where ``step.end`` does: at that end of some edge of the relation."""
        key = (step.relation, step.forward)
        if key not in self._places:
            index = 2 if step.forward else 0
            self._places[key] = sorted({t[index] for t in self.graph.triples if t[1] == step.relation})
        return self._places[key]
