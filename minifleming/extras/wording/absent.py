"""Absent findings of a vignette: "The patient has no cough." Competing diagnoses have them, the root has not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minifleming.rods.distractors import contains
from minifleming.rods.walk import Step, Walk, Walker

from .similar_names import part_of

MAX_ABSENT = 2
FREQUENT = 0.3  # the lower bound of "frequent" in the Human Phenotype Ontology


def draw_absent(walk: Walk, walker: Walker, diagnoses: list[str], rng: np.random.Generator,
                can_name: Callable[[str], bool]) -> tuple[Step, ...]:
    """Returns up to ``MAX_ABSENT`` findings that a diagnosis often has and the root has not.

    Findings that the graph excludes for the root come first. ``can_name`` rejects findings that the
    question must not name.
    """
    steps: dict[str, Step] = {}
    for diagnosis in diagnoses:
        for step in walker.findings(diagnosis):
            frequency = walker.graph.frequency(diagnosis, step.relation, step.end)
            often = frequency is None or frequency >= FREQUENT
            if often and can_name(step.end) and not root_has(walk.root, step.end, walker):
                steps.setdefault(step.end, Step(walk.root, step.relation, step.end, True))
    names = list(steps)
    names = [names[i] for i in rng.permutation(len(names))]
    excluded = walker.graph.tails(walk.root, "lacks_phenotype")
    names.sort(key=lambda name: name not in excluded)
    return tuple(steps[name] for name in names[: int(rng.integers(1, MAX_ABSENT + 1))])


def root_has(root: str, finding: str, walker: Walker) -> bool:
    """Returns whether the root has the finding by the graph, or by the name of one of its findings."""
    node = walker.graph.node_id[root]
    for relation in walker.evidence_relations:
        nodes = walker.nodes_with_finding(Step(root, relation, finding, True))
        if contains(nodes, node):
            return True
    return any(part_of(finding, step.end) for step in walker.findings(root))
