"""Topological multi-hop sampling (arXiv:2509.15279 §3.1): from a root through edges that leave no choice.

A walk of n hops is a question in the making:

    evidence                      root            chain of n - 1 edges
    fever, malar rash, proteinuria -> lupus -> hydroxychloroquine -> toll-like receptor inhibition

1. The *root* is drawn with weight  w(v) = boost(v) * (1 + degree(v))^-rarity : rare diseases and little
   connected ones come more often. It is a node that has evidence relations (see ``EVIDENCE``).
2. The *chain* takes n - 1 edges, in either direction, none back to a visited node. An edge is taken only
   where it is functional: the node has exactly one neighbour by that relation in that direction, and by all
   that a question calls by the same words (a symmetric relation reads the same both ways). Among
   the functional edges at a node the next node is drawn with the weight of step 1, which favours rare drugs.
   With ``pins`` an edge to one of several nodes may be taken too, if that node has a finding, told in the
   question, that none of the others has: "the disease with that gene that presents with cataract".
3. The *evidence* is a random set of the root's findings that no other node has all of: together they
   determine the root, and so, the chain leaving no choice, the last node.

Who has a finding has every more general one (``is_a``): what counts as a bearer of "seizure" includes the bearers of
"focal seizure". Findings that are known to be seen in fewer than ``TYPICAL`` of the patients are not told.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from minifleming.extras.wording.kin import Implied
from minifleming.rods.graph import IS_A, Graph
from minifleming.rods.phrases import link

EVIDENCE = ("has_symptom", "has_lab_finding", "has_imaging_finding", "has_phenotype")
NOT_WALKED = EVIDENCE + ("has_prevalence", "other_treatment")
UNWALKED = (IS_A, "lacks_phenotype", "lacks_onset", "lacks_inheritance", "lacks_qualifier", "has_inheritance_qualifier",
            "does_not_express")
RARE = ("has_prevalence", "rare disease")
TYPICAL = 0.05  # the upper bound of "very rare" in the Human Phenotype Ontology
MOST_PINNED = 64  # neighbours among which one is singled out


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
    pins: tuple[Step, ...] = ()  # node of the chain -> the finding that singles it out

    @property
    def answer(self) -> str:
        return self.chain[-1].end if self.chain else self.root

    @property
    def hops(self) -> int:
        return 1 + len(self.chain)


class Walker:
    """Draws walks from one graph. Pure given its random generator."""

    def __init__(self, graph: Graph, rarity: float = 0.5, rare_boost: float = 2.0, roots: int = 0,
                 evidence: tuple[str, ...] = EVIDENCE, pins: bool = False, by_name: bool = False):
        """``roots`` limits the root nodes to that many, a fixed choice by the hash of their names; 0 takes all.

        ``by_name``: who has "chronic cough" has "cough", whether or not the graph says so (kin.py).
        """
        self.graph, self.pins = graph, pins
        self.told = tuple(r for r in evidence if r in graph.code)
        self.unwalked = {graph.code[r] for r in (*NOT_WALKED, *UNWALKED, *evidence) if r in graph.code}
        weight = (1.0 + graph.degrees()) ** -rarity
        for name in graph.heads(RARE[1], RARE[0]):
            weight[graph.number[name]] *= rare_boost
        self.weight = weight  # [nodes]
        bears = np.isin(graph.table[:, 1], [graph.code[r] for r in self.told])
        self.roots = np.unique(graph.table[bears, 0]).tolist()
        if roots:
            self.roots.sort(key=lambda v: hashlib.sha256(graph.names[v].encode()).digest())
            self.roots = sorted(self.roots[:roots])
        self.is_root = np.isin(np.arange(len(graph.names)), self.roots)  # [nodes]
        root_weight = weight[self.roots]
        self.root_share = root_weight / max(root_weight.sum(), 1e-300)
        self._edge = cumulative(self.root_share) if self.roots else None
        self._steps: dict[str, list[Step]] = {}
        self._findings: dict[str, list[Step]] = {}
        self._places: dict[tuple[str, bool], list[str]] = {}
        self._bearers: dict[tuple[str, str], np.ndarray] = {}
        self._links: dict[tuple[int, bool], str] = {}
        self.implied = Implied(graph, self.told) if by_name else None

    def walk(self, hops: int, findings: tuple[int, int], rng: np.random.Generator) -> Walk | None:
        """One walk of exactly ``hops`` edges, or None if this draw came to a dead end."""
        if not self.roots:
            return None
        root = self.graph.names[self.roots[draw(self._edge, rng)]]
        route = self.route(root, hops - 1, rng)
        if route is None:
            return None
        chain, pins = route
        ends = {step.end for step in chain}
        if any(pin.end in ends for pin in pins):
            return None  # it would be told, and is asked for or hidden
        passed = ends | {pin.end for pin in pins}
        evidence = self.evidence(root, findings, rng, passed)
        return None if evidence is None else Walk(root, evidence, chain, pins)

    def route(self, root: str, length: int, rng: np.random.Generator) -> tuple[tuple, tuple] | None:
        """The steps of a chain of ``length`` edges and its pins, or None at a dead end."""
        node, visited, taken, pins = root, {root}, [], []
        for _ in range(length):
            steps = [s for s in self.functional_steps(node) if s.end not in visited]
            if self.pins:
                steps += [s for s in self.branches(node) if s.end not in visited]
            if not steps:
                return None
            weight = np.array([self.weight[self.graph.number[s.end]] for s in steps])
            step = steps[draw(cumulative(weight / weight.sum()), rng)]
            if self.pins and step not in self.functional_steps(node):
                pin = self.pin(step, rng)
                if pin is None:
                    return None
                pins.append(pin)
            taken.append(step)
            node = step.end
            visited.add(node)
        return tuple(taken), tuple(pins)

    def evidence(self, root: str, size: tuple[int, int], rng: np.random.Generator,
                 avoid: set[str] = frozenset()) -> tuple[Step, ...] | None:
        """The shortest prefix, of at least ``size[0]`` findings, of a random order that only the root has.

        Findings in ``avoid`` (those that the chain comes through) are not told.
        """
        steps = [step for step in self.findings(root) if step.end not in avoid]
        order = [steps[i] for i in rng.permutation(len(steps))]
        rivals: np.ndarray | None = None
        for count, step in enumerate(order[: size[1]], 1):
            others = self.bearers(step.relation, step.end)
            rivals = others if rivals is None else common(rivals, others)
            if count >= size[0] and len(rivals) == 1:
                return tuple(order[:count])
        return None

    def pin(self, step: Step, rng: np.random.Generator) -> Step | None:
        """A finding of ``step.end`` that no other node across the same relation from ``step.start`` has."""
        graph = self.graph
        rows = graph.out if step.forward else graph.into
        ends = rows.of(graph.number[step.start], graph.code[step.relation])
        findings = self.findings(step.end)
        for i in rng.permutation(len(findings)):
            if len(common(ends, self.bearers(findings[i].relation, findings[i].end))) == 1:
                return findings[i]
        return None

    def findings(self, root: str) -> list[Step]:
        """The edges from ``root`` to its findings, without those known to be hardly ever seen."""
        if root not in self._findings:
            self._findings[root] = [Step(root, r, t, True) for r in self.told for t in self.graph.tails(root, r)
                                    if self.typical(root, r, t)]
        return self._findings[root]

    def typical(self, root: str, relation: str, finding: str) -> bool:
        share = self.graph.frequency(root, relation, finding)
        return share is None or share >= TYPICAL

    def bearers(self, relation: str, finding: str) -> np.ndarray:
        """The numbers of all nodes that have the finding or a more special one, ascending."""
        key = (relation, finding)
        if key not in self._bearers:
            graph = self.graph
            below = graph.below(graph.number[finding])
            if self.implied:
                below = sorted({*below, *self.implied.by(finding)})
            heads = [graph.into.of(node, graph.code[relation]) for node in below]
            self._bearers[key] = heads[0] if len(heads) == 1 else np.unique(np.concatenate(heads))
        return self._bearers[key]

    def functional_steps(self, node: str) -> list[Step]:
        """The edges at ``node`` whose relation and direction lead to exactly one neighbour."""
        if node not in self._steps:
            self._steps[node] = self._across(node, lambda size: size == 1)
        return self._steps[node]

    def branches(self, node: str) -> list[Step]:
        """The edges at ``node`` to one of several neighbours that has findings by which it can be told."""
        return [step for step in self._across(node, lambda size: 1 < size <= MOST_PINNED)
                if self.is_root[self.graph.number[step.end]]]

    def places(self, step: Step) -> list[str]:
        """Every node that stands where ``step.end`` does: at that end of some edge of the relation."""
        key = (step.relation, step.forward)
        if key not in self._places:
            table = self.graph.table
            ends = table[table[:, 1] == self.graph.code[step.relation], 2 if step.forward else 0]
            self._places[key] = sorted(self.graph.names[i] for i in np.unique(ends))
        return self._places[key]

    def _across(self, node: str, fits) -> list[Step]:
        """The edges of the walked relations, in either direction, where their number ``fits``."""
        graph, number = self.graph, self.graph.number[node]
        edges = [(relation, not forward, ends) for forward, rows in ((True, graph.out), (False, graph.into))
                 for relation, ends in rows.of_node(number) if relation not in self.unwalked]
        reached: dict[str, set[int]] = {}
        for relation, back, ends in edges:
            reached.setdefault(self.link(relation, back), set()).update(ends.tolist())
        edges = [edge for edge in edges if fits(len(reached[self.link(*edge[:2])]))]
        return [Step(node, graph.relations[relation], graph.names[end], not back)
                for relation, back, ends in sorted(edges, key=lambda edge: edge[:2]) for end in ends]

    def link(self, relation: int, back: bool) -> str:
        """What a question calls the other end; what is called alike counts as one relation."""
        key = (relation, back)
        if key not in self._links:
            self._links[key] = link(self.graph.relations[relation], not back)
        return self._links[key]


def common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What stands in both, of two ascending arrays without repetition."""
    short, long = (a, b) if len(a) <= len(b) else (b, a)
    if not len(short):
        return short
    place = np.minimum(long.searchsorted(short), len(long) - 1)
    return short[long[place] == short]


def cumulative(share: np.ndarray) -> np.ndarray:
    edge = share.cumsum()
    return edge / edge[-1]


def draw(edge: np.ndarray, rng: np.random.Generator) -> int:
    """An index with probabilities whose running sum is ``edge``: what ``rng.choice(n, p=share)`` does."""
    return int(edge.searchsorted(rng.random(), side="right"))
