"""From a walk to an item: mask the last node, phrase the rest, find distractors, prove the answer.

Masking (arXiv:2509.15279 §3.1): the visible part of the subgraph is the question, the masked node the answer.

    visible   root has every finding of the evidence; root -r1-> x1 -r2-> ... -rn-> answer
    named     the findings and the relations; the root and the nodes between it and the answer are not

Distractors are made by *relation-preserving perturbation* (§1, item 1): walk the same relations from a rival
of the root, a node of its type that shares at least one of the findings and lacks another. What stands at
the end has the answer's type and its relation, and belongs to a competing diagnosis.

The *proof* of an item, checked here at creation and again, from its JSON alone, by check.py:
    1. every hop of the path and every visible triple is an edge of the graph;
    2. the answer is the only node that satisfies the visible part;
    3. each distractor lacks its discriminating triple: one visible triple, with it in the answer's place.
A distractor that has any edge at all to the node before the answer is not used: the graph is incomplete, and
a second treatment, say, is no wrong answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from minifleming.rods.graph import Graph
from minifleming.rods.item import LABELS, TIERS, Item, Triple
from minifleming.rods.phrases import listing, phrase
from minifleming.rods.walk import Step, Walk, Walker


def make_item(walk: Walk, walker: Walker, options: int, rng: np.random.Generator, prefix: str,
              owed: Mapping[str, int] = MappingProxyType({})) -> Item | None:
    """The item of a walk with ``options`` options, or None if too few distractors can be proven wrong.

    Its id is made of ``prefix``, the path length and a hash of what is asked: equal items have equal ids in any file.
    """
    found = distractors(walk, walker, options - 1, rng, owed)
    if len(found) < options - 1:
        return None
    chosen = dict(list(found.items())[: options - 1])
    order = [walk.answer, *chosen]
    order = [order[i] for i in rng.permutation(len(order))]
    labelled = dict(zip(LABELS, order))
    answer = LABELS[order.index(walk.answer)]
    visible = [step.triple for step in (*walk.evidence, *walk.chain)]
    question = question_text(walk, walker.graph)
    digest = hashlib.sha256("\x1f".join([question, *order]).encode()).hexdigest()
    return Item(
        id=f"{prefix}-{walk.hops}-{digest[:12]}",
        question=question,
        options=labelled,
        answer=answer,
        source=walker.graph.source,
        tier=tier_of(walk, walker.graph),
        hops=walk.hops,
        rarity=round(float(walker.weight[walker.graph.number[walk.root]]), 6),
        path=[walk.evidence[0].triple] + [step.triple for step in walk.chain],
        visible=visible,
        masked=walk.answer,
        discriminating={label: chosen[text][1] for label, text in labelled.items() if text != walk.answer},
        provenance={
            "root": walk.root,
            "hidden": [walk.root, *(step.end for step in walk.chain[:-1])] if walk.chain else [],
            "rivals": {label: chosen[text][0] for label, text in labelled.items() if text != walk.answer},
        },
    )


def tier_of(walk: Walk, graph: Graph) -> str:
    """Difficulty by structure: the edges of the chain plus how ambiguous the findings are.

    Ambiguity is 0 if one of the findings is the root's alone, 1 if the most telling one leaves up to three other
    candidates, 2 beyond that. Easy up to 1, moderate 2, difficult from 3: every tier has every path length.
    """
    telling = min(len(graph.heads(step.end, step.relation)) for step in walk.evidence)
    ambiguity = 0 if telling == 1 else 1 if telling <= 4 else 2
    return TIERS[min(max(len(walk.chain) + ambiguity, 1), 3) - 1]


def question_text(walk: Walk, graph: Graph) -> str:
    """The findings, then what is asked for. Names stand between spaces, so that a name can be one token."""
    kind = graph.type_of(walk.root).lower()
    subject = "A patient" if kind == "disease" else f"A {kind}"
    names = listing([step.end for step in walk.evidence])
    asked = f"Which {kind} is it"
    if walk.chain:
        asked = f"What is the {_link(walk.chain[-1])}"
        for step in reversed(walk.chain[:-1]):
            asked += f" of the {_link(step)}"
        asked += f" of this {kind}"
    return f"{subject} has {names} . {asked} ?"


def distractors(walk: Walk, walker: Walker, enough: int, rng: np.random.Generator,
                owed: Mapping[str, int] = MappingProxyType({})) -> dict[str, tuple[str, Triple]]:
    """Wrong answers with the rival they belong to and the visible triple they lack, the best first.

    Rivals come first; when they give fewer than ``enough``, other nodes that stand in the answer's place of its
    relation fill up, with no rival (''). Among either, what is ``owed`` most comes first (see mix.py), then the rival
    that shares more findings; ties are in random order.
    """
    graph = walker.graph
    shared = _rivals(walk, walker)
    names = sorted(shared)
    names = [names[i] for i in rng.permutation(len(names))]
    names.sort(key=lambda name: -len(shared[name]))
    found: dict[str, tuple[str, Triple]] = {}
    for rival in names:
        for end in _ends(rival, walk.chain, graph):
            lacks = _lacks(walk, graph, end)
            if lacks is not None and end not in found:
                found[end] = (rival, lacks)
                break
    found = dict(sorted(found.items(), key=lambda pair: -owed.get(pair[0], 0)))
    if walk.chain and len(found) < enough:
        places = walker.places(walk.chain[-1])
        places = [places[i] for i in rng.permutation(len(places))]
        for end in sorted(places, key=lambda name: -owed.get(name, 0)):
            lacks = _lacks(walk, graph, end)
            if lacks is not None:
                found.setdefault(end, ("", lacks))
            if len(found) == enough:
                break
    return found


def _link(step: Step) -> str:
    words = phrase(step.relation)
    return words.link if step.forward else words.link_back


def _rivals(walk: Walk, walker: Walker) -> dict[str, list[str]]:
    """Roots of the root's type that share some, not all, of the evidence, with what they share."""
    graph, shared = walker.graph, {}
    for step in walk.evidence:
        for other in graph.heads(step.end, step.relation):
            if other != walk.root and other in walker.asked and graph.type_of(other) == graph.type_of(walk.root):
                shared.setdefault(other, []).append(step.end)
    return {name: ends for name, ends in shared.items() if len(ends) < len(walk.evidence)}


def _ends(node: str, chain: tuple[Step, ...], graph: Graph) -> list[str]:
    """Every node that the chain's relations lead to from ``node``, in the graph's order."""
    ends = [node]
    for step in chain:
        across = graph.tails if step.forward else graph.heads
        ends = list(dict.fromkeys(far for near in ends for far in across(near, step.relation)))
    return ends


def _lacks(walk: Walk, graph: Graph, candidate: str) -> Triple | None:
    """The visible triple that ``candidate`` lacks in the answer's place; None if it may be right."""
    if candidate == walk.answer or graph.type_of(candidate) != graph.type_of(walk.answer):
        return None
    if not walk.chain:
        missing = [step for step in walk.evidence if (candidate, step.relation, step.end) not in graph]
        return missing[0].triple if missing else None
    last = walk.chain[-1]
    if candidate in (walk.root, last.start) or connected(graph, last.start, candidate):
        return None
    return last.triple


def connected(graph: Graph, a: str, b: str) -> bool:
    """Is there an edge of any relation, in either direction, between the two?"""
    node, other = graph.number[a], graph.number[b]
    for rows in (graph.out, graph.into):
        if other in rows.other[rows.start[node] : rows.start[node + 1]]:
            return True
    return False
