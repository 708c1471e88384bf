"""Wrong answers by *relation-preserving perturbation* (arXiv:2509.15279 §1, item 1).

Walk the same relations from a *rival* of the root: a node of its type that shares at least one of the findings and
lacks another. What stands at the end has the answer's type and its relation, and belongs to a competing diagnosis.

    lupus     fever, malar rash, proteinuria -> hydroxychloroquine     the answer
    measles   fever                          -> vitamin A              shares fever, lacks malar rash

The graph is incomplete: that an edge is absent does not make it false. So a candidate that has any edge at all to the
node before the answer is not used (a second treatment, say, is no wrong answer), nor what is more special or more
general than the answer; and with ``apart`` neither is a variety of it: of its family by name (kin.py), or of its gene.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from minifleming.extras.wording.kin import overlap, same_family
from minifleming.rods.graph import Graph
from minifleming.rods.item import Triple
from minifleming.rods.walk import Step, Walk, Walker

GENES = ("associated_gene", "associated_with_gene", "has_gene")
MOST_RIVALS = 256  # are tried, those first that share most findings; where there are more, the search ends
CHOICE = 8  # with so many times the distractors that are needed


def distractors(walk: Walk, walker: Walker, enough: int, rng: np.random.Generator,
                owed: Mapping[str, int] = MappingProxyType({}), apart: bool = False,
                usable: Callable[[str], bool] = lambda name: True) -> dict[str, tuple[str, Triple]]:
    """Wrong answers with the rival they belong to and the visible triple they lack, the best first.

    Rivals come first; when they give fewer than ``enough``, other nodes that stand in the answer's place of its
    relation fill up, with no rival (''). Among either, what is ``owed`` most comes first (see mix.py), then the rival
    that shares more findings; ties are in random order. ``usable`` says which names may stand as an option.
    """
    graph = walker.graph
    shared = rivals(walk, walker)
    names = sorted(shared)
    names = [names[i] for i in rng.permutation(len(names))]
    names.sort(key=lambda name: -shared[name])
    choice = CHOICE * enough if len(names) > MOST_RIVALS else len(names)
    found: dict[str, tuple[str, Triple]] = {}
    for rival in names[:MOST_RIVALS]:
        if len(found) >= choice:
            break
        for end in ends_of(rival, walk.chain, graph):
            lacks = lacking(walk, walker, end, apart) if usable(end) else None
            if lacks is not None and end not in found:
                found[end] = (rival, lacks)
                break
    found = dict(sorted(found.items(), key=lambda pair: -owed.get(pair[0], 0)))
    if walk.chain and len(found) < enough:
        places = walker.places(walk.chain[-1])
        places = [places[i] for i in rng.permutation(len(places))]
        for end in sorted(places, key=lambda name: -owed.get(name, 0)):
            lacks = lacking(walk, walker, end, apart) if usable(end) else None
            if lacks is not None:
                found.setdefault(end, ("", lacks))
            if len(found) == enough:
                break
    return found


def pairs(walk: Walk, walker: Walker, rng: np.random.Generator, apart: bool = False,
          usable: Callable[[str], bool] = lambda name: True) -> dict[tuple[str, str], tuple[str, Triple]]:
    """Wrong (root, end) pairs, where both are asked: a rival and what its own chain leads to, which is not the answer.

    The discriminating triple is the first finding that the rival lacks. The rival that shares most comes first.
    """
    graph, shared = walker.graph, rivals(walk, walker)
    names = sorted(shared)
    names = [names[i] for i in rng.permutation(len(names))]
    names.sort(key=lambda name: -shared[name])
    found: dict[tuple[str, str], tuple[str, Triple]] = {}
    for rival in names[:MOST_RIVALS]:
        missing = lacked(walk, walker, rival)
        if not missing or not usable(rival) or related(graph, rival, walk.root) or (
                apart and kin(graph, rival, walk.root)):
            continue
        for end in ends_of(rival, walk.chain, graph):
            if end != rival and usable(end) and lacking(walk, walker, end, apart) is not None:
                found[rival, end] = (rival, missing[0].triple)
                break
    return found


def mixed(walk: Walk, found: dict[tuple[str, str], tuple[str, Triple]]) -> dict[tuple[str, str], tuple[str, Triple]]:
    """The pairs, and first of all a right root with a wrong end, and a wrong root with the right end: else one half of
    a pair would give away the other."""
    if len(found) < 2:
        return found
    (first, (rival, lacks)), second = next(iter(found.items())), list(found)[1]
    return {(walk.root, second[1]): ("", walk.chain[-1].triple), (first[0], walk.answer): (rival, lacks)} | found


def rivals(walk: Walk, walker: Walker) -> dict[str, int]:
    """Roots of the root's type that share some, not all, of the evidence: how many findings they share."""
    graph = walker.graph
    root = graph.number[walk.root]
    bearers = [walker.bearers(step.relation, step.end) for step in walk.evidence]
    nodes, shared = np.unique(np.concatenate(bearers), return_counts=True)
    fit = (shared < len(walk.evidence)) & walker.is_root[nodes] & (graph.kind[nodes] == graph.kind[root])
    return {graph.names[node]: count for node, count in zip(nodes[fit].tolist(), shared[fit].tolist())}


def lacked(walk: Walk, walker: Walker, rival: str) -> list[Step]:
    """The told findings that ``rival`` does not have, in the order in which they are told."""
    number = walker.graph.number[rival]
    return [step for step in walk.evidence if not has(walker.bearers(step.relation, step.end), number)]


def ends_of(node: str, chain: tuple[Step, ...], graph: Graph) -> list[str]:
    """Every node that the chain's relations lead to from ``node``, in the graph's order."""
    ends = [node]
    for step in chain:
        across = graph.tails if step.forward else graph.heads
        ends = list(dict.fromkeys(far for near in ends for far in across(near, step.relation)))
    return ends


def lacking(walk: Walk, walker: Walker, candidate: str, apart: bool) -> Triple | None:
    """The visible triple that ``candidate`` lacks in the answer's place; None if it may be right."""
    graph = walker.graph
    if candidate == walk.answer or graph.type_of(candidate) != graph.type_of(walk.answer):
        return None
    if related(graph, candidate, walk.answer) or (apart and kin(graph, candidate, walk.answer)):
        return None
    if not walk.chain:
        missing = lacked(walk, walker, candidate)
        return missing[0].triple if missing else None
    last = walk.chain[-1]
    below = [graph.names[node] for node in graph.below(graph.number[last.start])]  # who has these has last.start too
    if candidate == walk.root or candidate in below or any(connected(graph, name, candidate) for name in below):
        return None
    return last.triple


def connected(graph: Graph, a: str, b: str) -> bool:
    """Is there an edge of any relation, in either direction, between the two?"""
    node, other = graph.number[a], graph.number[b]
    return any((rows.all_of(node) == other).any() for rows in (graph.out, graph.into))


def related(graph: Graph, a: str, b: str) -> bool:
    """Is one above or below the other by is_a?"""
    first, second = graph.number[a], graph.number[b]
    return first in graph.below(second) or second in graph.below(first)


def kin(graph: Graph, a: str, b: str) -> bool:
    """Is one a variety of the other, or the other under another name: by family, by words, or by its gene?

    "Stormorken syndrome" and "Stormorken-Sjaastad-Langslet syndrome" have one gene; so do diseases that differ, and
    neither is offered beside the other: who asks about one must not have to know how the catalogue splits them.
    """
    return same_family(a, b) or overlap(a, b) or any(
        not set(graph.tails(a, relation)).isdisjoint(graph.tails(b, relation)) for relation in GENES)


def has(ascending: np.ndarray, number: int) -> bool:
    place = int(ascending.searchsorted(number))
    return place < len(ascending) and int(ascending[place]) == number
