"""[2/10] Walks on the knowledge graph: a disease, its findings and a chain of edges (§3.1).

A walk of n hops is one question in the making:

    evidence                        root     chain of n - 1 edges
    fever, malar rash, proteinuria  lupus -> hydroxychloroquine -> toll-like receptor inhibition

1. The *root* is drawn with weight w(v) = boost(v) * (1 + degree(v))^-rarity: rare and poorly
   connected diseases are sampled more often. Only nodes with findings are roots.
2. The *chain* takes n - 1 edges, in either direction, and visits no node twice. It takes only
   functional edges: the words that a question uses for this relation and direction lead to exactly
   one neighbor. Among the functional edges one is drawn with the weight of step 1.
3. The *evidence* is a random set of findings of the root that no other node has all of. It
   therefore determines the root, and the chain determines the last node: the answer.

A node with a finding also has each more general one: the nodes with "seizure" include those with
"focal seizure". Findings seen in fewer than ``TYPICAL`` of the patients are not used as evidence.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from minifleming.rods.graph import IS_A, Graph
from minifleming.rods.phrases import phrase

EVIDENCE = ("has_symptom", "has_lab_finding", "has_imaging_finding", "has_phenotype")
NOT_WALKED = (*EVIDENCE, IS_A, "has_prevalence", "other_treatment", "lacks_phenotype",
              "lacks_onset", "lacks_inheritance", "lacks_qualifier", "has_inheritance_qualifier",
              "does_not_express")
PREVALENCE, RARE = "has_prevalence", "rare disease"
TYPICAL = 0.05  # the upper bound of "very rare" in the Human Phenotype Ontology


@dataclass(frozen=True)
class Step:
    """One edge as walked from ``start`` to ``end``; ``forward`` if ``start`` is its head."""

    start: str
    relation: str
    end: str
    forward: bool

    @property
    def triple(self) -> tuple[str, str, str]:
        if self.forward:
            return self.start, self.relation, self.end
        return self.end, self.relation, self.start

    @property
    def names(self) -> tuple[str, ...]:
        """The names that no finding of the evidence may have."""
        return (self.end,)


@dataclass(frozen=True)
class Walk:
    root: str
    evidence: tuple[Step, ...]  # root -> finding, in the order of the question
    chain: tuple[Step, ...]

    @property
    def answer(self) -> str:
        return self.chain[-1].end if self.chain else self.root

    @property
    def hops(self) -> int:
        return 1 + len(self.chain)


class Walker:
    """Draws walks from one graph; the random generator is the only source of randomness."""

    def __init__(self, graph: Graph, rarity: float = 0.5, rare_boost: float = 2.0,
                 num_diseases: int = 0, evidence: tuple[str, ...] = EVIDENCE):
        """``num_diseases`` limits the roots to a fixed choice of that many; 0 takes all."""
        self.graph = graph
        self.evidence_relations = [r for r in evidence if r in graph.relation_id]
        self.not_walked = {*NOT_WALKED, *evidence}
        self.weight = (1.0 + graph.degrees()) ** -rarity  # [nodes]
        for name in graph.heads(RARE, PREVALENCE):
            self.weight[graph.node_id[name]] *= rare_boost

        relation_ids = [graph.relation_id[r] for r in self.evidence_relations]
        is_evidence = np.isin(graph.table[:, 1], relation_ids)
        roots = np.unique(graph.table[is_evidence, 0]).tolist()
        if num_diseases:
            roots.sort(key=lambda node: hashlib.sha256(graph.names[node].encode()).digest())
            roots = sorted(roots[:num_diseases])
        self.roots = roots
        self.is_root = np.isin(np.arange(len(graph.names)), roots)  # [nodes]
        total = max(self.weight[roots].sum(), 1e-300)
        self.root_probability = self.weight[roots] / total
        self._steps: dict[str, list[Step]] = {}
        self._findings: dict[str, list[Step]] = {}
        self._with_finding: dict[tuple[str, str], np.ndarray] = {}

    def walk(self, hops: int, findings: tuple[int, int], rng: np.random.Generator) -> Walk | None:
        """Returns a walk of ``hops`` edges, or None if this draw comes to a dead end."""
        if not self.roots:
            return None
        root = self.graph.names[self.roots[draw(self.root_probability, rng)]]
        chain = self.draw_chain(root, hops - 1, rng)
        if chain is None:
            return None
        avoid = set().union(*(step.names for step in chain))
        evidence = self.draw_evidence(root, findings, rng, avoid)
        return None if evidence is None else Walk(root, evidence, chain)

    def draw_chain(self, root: str, length: int,
                   rng: np.random.Generator) -> tuple[Step, ...] | None:
        """Returns ``length`` steps from ``root``, or None at a dead end."""
        chain = []
        visited = {root}
        node = root
        for _ in range(length):
            step = self.draw_step(node, visited, rng)
            if step is None:
                return None
            chain.append(step)
            visited.add(step.end)
            node = step.end
        return tuple(chain)

    def draw_step(self, node: str, visited: set[str], rng: np.random.Generator) -> Step | None:
        """Returns one of the steps that may be taken from ``node``, or None if there is none."""
        steps = [step for step in self.next_steps(node) if step.end not in visited]
        if not steps:
            return None
        weight = np.array([self.weight[self.graph.node_id[step.end]] for step in steps])
        return steps[draw(weight / weight.sum(), rng)]

    def next_steps(self, node: str) -> list[Step]:
        """Returns the functional steps from ``node``."""
        if node not in self._steps:
            self._steps[node] = self.steps_to(node, 1, 1)
        return self._steps[node]

    def steps_to(self, node: str, fewest: int, most: int) -> list[Step]:
        """Returns the steps from ``node`` whose wording leads to ``fewest`` to ``most`` neighbors.

        Relations with equal wording count as one, as do both directions of a symmetric relation.
        """
        edges = self.walkable_edges(node)
        reached: dict[str, set[int]] = {}
        for relation, forward, ends in edges:
            reached.setdefault(phrase(relation, forward).link, set()).update(ends)
        steps = []
        for relation, forward, ends in edges:
            if fewest <= len(reached[phrase(relation, forward).link]) <= most:
                steps += [Step(node, relation, self.graph.names[end], forward) for end in ends]
        return steps

    def walkable_edges(self, node: str) -> list[tuple[str, bool, list[int]]]:
        """Returns (relation, forward, ids of the ends) of the edges that a chain may take."""
        graph = self.graph
        edges = []
        for side, forward in ((graph.out, True), (graph.into, False)):
            for relation_id, ends in side.edges(graph.node_id[node]):
                relation = graph.relations[relation_id]
                if relation not in self.not_walked:
                    edges.append((relation, forward, ends.tolist()))
        return sorted(edges, key=lambda edge: (edge[0], not edge[1]))

    def draw_evidence(self, root: str, size: tuple[int, int], rng: np.random.Generator,
                      avoid: set[str] = frozenset()) -> tuple[Step, ...] | None:
        """Returns findings that only ``root`` has together, or None if the draw has no such set.

        They are the shortest such prefix, of ``size[0]`` to ``size[1]`` findings, in random order.
        Findings in ``avoid`` are not used.
        """
        steps = [step for step in self.findings(root) if step.end not in avoid]
        order = [steps[i] for i in rng.permutation(len(steps))]
        candidates = None
        for count, step in enumerate(order[: size[1]], 1):
            nodes = self.nodes_with_finding(step)
            candidates = nodes if candidates is None else intersect(candidates, nodes)
            if count >= size[0] and len(candidates) == 1:
                return tuple(order[:count])
        return None

    def findings(self, root: str) -> list[Step]:
        """Returns the edges from ``root`` to its findings, without those known to be very rare."""
        if root not in self._findings:
            steps = []
            for relation in self.evidence_relations:
                for finding in self.graph.tails(root, relation):
                    frequency = self.graph.frequency(root, relation, finding)
                    if frequency is None or frequency >= TYPICAL:
                        steps.append(Step(root, relation, finding, True))
            self._findings[root] = steps
        return self._findings[root]

    def nodes_with_finding(self, step: Step) -> np.ndarray:
        """Returns the ids of the nodes with ``step.end`` or a more specific finding, ascending."""
        key = (step.relation, step.end)
        if key not in self._with_finding:
            relation = self.graph.relation_id[step.relation]
            heads = [self.graph.into.neighbors(n, relation) for n in self.more_specific(step.end)]
            self._with_finding[key] = np.unique(np.concatenate(heads))
        return self._with_finding[key]

    def more_specific(self, finding: str) -> list[int]:
        """Returns the ids of the findings that imply ``finding``, itself included, ascending."""
        return self.graph.descendants(self.graph.node_id[finding])


def intersect(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the common elements of two ascending arrays without duplicates."""
    short, long = (a, b) if len(a) <= len(b) else (b, a)
    if not len(short):
        return short
    place = np.minimum(long.searchsorted(short), len(long) - 1)
    return short[long[place] == short]


def draw(probability: np.ndarray, rng: np.random.Generator) -> int:
    """Returns a random index: ``rng.choice(n, p=probability)``, without its checks."""
    edges = probability.cumsum()
    return int((edges / edges[-1]).searchsorted(rng.random(), side="right"))
