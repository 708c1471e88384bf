"""Walks of toy graphs for the tests of this folder."""

from functools import cache

import numpy as np

from minifleming.extras.wording.qualifiers import ExtendedWalker
from minifleming.rods.walk import Step, Walk
from tests.rods.toy_graphs import genetics

GRAPH = genetics(0)
WALKER = ExtendedWalker(GRAPH, qualifiers=True)
TREATED = Step("d1", "first_line_treatment", "x1", True)


def rng(seed=0):
    return np.random.default_rng(seed)


def walk_of(findings: str, *chain, root="d1") -> Walk:
    return Walk(root, tuple(Step(root, "has_symptom", s, True) for s in findings.split()), chain)


@cache
def walks(count=60, hops=(1, 2, 3)) -> list[Walk]:
    """Walks of the core's and of qualified steps."""
    source, made = rng(3), []
    while len(made) < count:
        walk = WALKER.walk(hops[len(made) % len(hops)], (1, 4), source)
        made += [walk] if walk else []
    return made
