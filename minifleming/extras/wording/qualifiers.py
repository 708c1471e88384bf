"""Chains with qualifiers: an edge to one of several nodes, which a finding of its own singles out.

    ... gene FXN -> disease (the one with cataract) associated with FXN -> ...

The core takes an edge only if it leads to one node. With data.qualifiers an edge to one of
several nodes may be taken too, if the node has a finding, named in the question, that none of the
other nodes has.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minifleming.rods.graph import Graph
from minifleming.rods.walk import Step, Walk, Walker, intersect

from .variants import ImpliedFindings

MAX_NODES = 64  # nodes among which a qualifier may single out one


@dataclass(frozen=True)
class QualifiedStep(Step):
    """A step whose end is singled out by ``qualifier``, the edge from the end to its finding."""

    qualifier: Step = field(compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        return self.end, self.qualifier.end


def qualifier_of(step: Step) -> str:
    """Returns the finding that singles out the end of the step; '' if it needs none."""
    return step.qualifier.end if isinstance(step, QualifiedStep) else ""


def qualifiers_of(walk: Walk) -> tuple[Step, ...]:
    return tuple(step.qualifier for step in walk.chain if isinstance(step, QualifiedStep))


class ExtendedWalker(Walker):
    """A walker that takes qualified steps, and that reads findings by their names."""

    def __init__(self, graph: Graph, *args, qualifiers: bool = False, by_name: bool = False, **how):
        """``by_name``: a node with "chronic cough" has "cough", with or without the is_a edge."""
        super().__init__(graph, *args, **how)
        self.qualifiers = qualifiers
        self.implied = ImpliedFindings(graph, self.evidence_relations) if by_name else None

    def more_specific(self, finding: str) -> list[int]:
        nodes = super().more_specific(finding)
        return sorted({*nodes, *self.implied.by(finding)}) if self.implied else nodes

    def draw_chain(self, root: str, length: int,
                   rng: np.random.Generator) -> tuple[Step, ...] | None:
        chain = super().draw_chain(root, length, rng)
        if chain is None:
            return None
        ends = {step.end for step in chain}
        if not ends.isdisjoint(map(qualifier_of, chain)):
            return None  # the question would name a node that it asks for or hides
        return chain

    def next_steps(self, node: str) -> list[Step]:
        steps = super().next_steps(node)
        return steps + self.branches(node) if self.qualifiers else steps

    def branches(self, node: str) -> list[Step]:
        """Returns the steps to one of several nodes that has findings of its own."""
        steps = self.steps_to(node, 2, MAX_NODES)
        return [step for step in steps if self.is_root[self.graph.node_id[step.end]]]

    def draw_step(self, node: str, visited: set[str], rng: np.random.Generator) -> Step | None:
        step = super().draw_step(node, visited, rng)
        if step is None or step in super().next_steps(node):
            return step
        qualifier = self.draw_qualifier(step, rng)
        if qualifier is None:
            return None
        return QualifiedStep(step.start, step.relation, step.end, step.forward, qualifier)

    def draw_qualifier(self, step: Step, rng: np.random.Generator) -> Step | None:
        """Returns a finding of the step's end that no other node across the same edge has."""
        graph = self.graph
        side = graph.out if step.forward else graph.into
        ends = side.neighbors(graph.node_id[step.start], graph.relation_id[step.relation])
        findings = self.findings(step.end)
        for i in rng.permutation(len(findings)):
            if len(intersect(ends, self.nodes_with_finding(findings[i]))) == 1:
                return findings[i]
        return None
