"""From a walk to an item: mask nodes, phrase the rest, find distractors, prove the answer.

Masking (arXiv:2509.15279 §3.1): the visible part of the subgraph is the question, the masked part the answer.

    visible   root has every finding of the evidence; root -r1-> x1 -r2-> ... -rn-> answer; the pins of the chain
    named     the findings and the relations; the root and the nodes between it and the answer are masked too
    asked     the last node, or with ``both`` the root and the last node: then an option is a pair

The *proof* of an item, checked again, from its JSON alone, by check.py:
    1. every hop of the path and every visible triple is an edge of the graph, and no absent one is;
    2. the answer is the only one that satisfies the visible part;
    3. each distractor lacks its discriminating triple: one visible triple, with it in the answer's place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from minifleming.extras.wording.kin import overlap, part_of, same_family
from minifleming.extras.wording.wording import Wording, sayable
from minifleming.rods.distractors import distractors, has, lacked, mixed, pairs, related
from minifleming.rods.item import LABELS, TIERS, Item
from minifleming.rods.walk import Step, Walk, Walker

PLAIN = Wording()
ABSENT = 2  # at most so many absent findings are told
OFTEN = 0.3  # in a rival, to be worth telling that it is absent: "frequent" in the Human Phenotype Ontology


def make_item(walk: Walk, walker: Walker, options: int, rng: np.random.Generator, prefix: str,
              owed: Mapping[str, int] = MappingProxyType({}), wording: Wording = PLAIN, both: bool = False,
              apart: bool = False) -> Item | None:
    """The item of a walk with ``options`` options, or None if too few distractors can be proven wrong.

    Its id is made of ``prefix``, the path length and a hash of what is asked: equal items have equal ids in any file.
    """
    both = both and bool(walk.chain)
    answer = (walk.root, walk.answer) if both else (walk.answer,)
    if not (sayable(walk, wording) and all(map(wording.tellable, answer))) or (apart and circles(walk, walker)):
        return None
    if both:
        found = mixed(walk, pairs(walk, walker, rng, apart, wording.tellable))
    else:
        single = distractors(walk, walker, options - 1, rng, owed, apart, wording.tellable)
        found = {(name,): reason for name, reason in single.items()}
    if len(found) < options - 1:
        return None
    chosen = dict(list(found.items())[: options - 1])
    order = [answer, *chosen]
    order = [order[i] for i in rng.permutation(len(order))]
    wrong = {label: chosen[names] for label, names in zip(LABELS, order) if names != answer}
    absent = ()
    if wording.style == "vignette":
        names = {name for pair in order for name in pair}.union(step.end for step in walk.chain)
        absent = absent_findings(walk, walker, [rival for rival, _ in wrong.values() if rival], rng, wording, names)
    question = wording.question(walk, walker.graph, rng, both, tuple(step.end for step in absent))
    told = [wording.option(names) for names in order]
    if len(set(told)) < len(told):
        return None
    digest = hashlib.sha256("\x1f".join([question, *told]).encode()).hexdigest()
    return Item(
        id=f"{prefix}-{walk.hops}-{digest[:12]}",
        question=question,
        options=dict(zip(LABELS, told)),
        answer=LABELS[order.index(answer)],
        source=walker.graph.source,
        language=wording.language,
        tier=tier_of(walk, walker),
        hops=walk.hops,
        rarity=round(float(walker.weight[walker.graph.number[walk.root]]), 6),
        path=[walk.evidence[0].triple] + [step.triple for step in walk.chain],
        visible=[step.triple for step in (*walk.evidence, *walk.chain, *walk.pins)],
        absent=[step.triple for step in absent],
        masked=Wording().option(answer),
        discriminating={label: lacks for label, (_, lacks) in wrong.items()},
        provenance=provenance(walk, walker, wrong) | nodes_of(walk, order, wording, absent),
    )


def circles(walk: Walk, walker: Walker) -> bool:
    """Does the chain come back to a variety of a node that it has left? "... its gene ... the disease of that gene"."""
    graph, names = walker.graph, [walk.root, *(step.end for step in walk.chain)]
    return any(graph.type_of(a) == graph.type_of(b) and (same_family(a, b) or overlap(a, b) or related(graph, a, b))
               for i, a in enumerate(names) for b in names[i + 1 :])


def provenance(walk: Walk, walker: Walker, wrong: dict) -> dict:
    """What the teachers and the checker read: root, masked nodes that are not asked for, rivals and what they lack."""
    rivals = {label: rival for label, (rival, _) in wrong.items()}
    lacks = {label: [step.end for step in lacked(walk, walker, rival)] for label, rival in rivals.items() if rival}
    known = {
        "root": walk.root,
        "hidden": [walk.root, *(step.end for step in walk.chain[:-1])] if walk.chain else [],
        "rivals": rivals,
        "lacks": lacks,
    }
    return known | ({"pins": [step.triple for step in walk.pins]} if walk.pins else {})


def nodes_of(walk: Walk, order: list[tuple[str, ...]], wording: Wording, absent: tuple[Step, ...]) -> dict:
    """Which nodes the options stand for, and how names are told, where that is not plain to see."""
    known: dict = {}
    if len(order[0]) > 1 or wording.language != "en":
        known["nodes"] = {label: list(names) for label, names in zip(LABELS, order)}
    if wording.language != "en":
        names = [walk.root, *(step.end for step in (*walk.evidence, *walk.chain, *absent))]
        names += [name for pair in order for name in pair]
        known["told"] = {name: wording.told(name) for name in dict.fromkeys(names) if wording.tellable(name)}
    return known


def absent_findings(walk: Walk, walker: Walker, rivals: list[str], rng: np.random.Generator,
                    wording: Wording, avoid: set[str]) -> tuple[Step, ...]:
    """Up to ``ABSENT`` findings that a rival often has and the root has not, those excluded for the root first.

    What the name of a finding of the root says ("chronic cough") is not absent ("cough"). None in ``avoid`` is told:
    what is asked for or hidden, and the options.
    """
    graph, root = walker.graph, walker.graph.number[walk.root]
    has_told = [step.end for step in walker.findings(walk.root)]
    excluded = set(graph.tails(walk.root, "lacks_phenotype"))
    steps = {}
    for rival in rivals:
        for step in walker.findings(rival):
            often = graph.frequency(rival, step.relation, step.end)
            if (often is None or often >= OFTEN) and wording.tellable(step.end) and (
                    wording.found(step.end)) and step.end not in avoid:
                if not any(has(walker.bearers(relation, step.end), root) for relation in walker.told) and not any(
                        part_of(step.end, told) for told in has_told):
                    steps.setdefault(step.end, Step(walk.root, step.relation, step.end, True))
    names = [list(steps)[i] for i in rng.permutation(len(steps))]
    names.sort(key=lambda name: name not in excluded)
    return tuple(steps[name] for name in names[: int(rng.integers(1, ABSENT + 1))])


def tier_of(walk: Walk, walker: Walker) -> str:
    """Difficulty by structure: the edges of the chain plus how ambiguous the findings are.

    Ambiguity is 0 if one of the findings is the root's alone, 1 if the most telling one leaves up to three other
    candidates, 2 beyond that. Easy up to 1, moderate 2, difficult from 3: every tier has every path length.
    """
    telling = min(len(walker.bearers(step.relation, step.end)) for step in walk.evidence)
    ambiguity = 0 if telling == 1 else 1 if telling <= 4 else 2
    return TIERS[min(max(len(walk.chain) + ambiguity, 1), 3) - 1]


def leaks(item: Item) -> bool:
    """Does the question tell a masked node, or by a finding all or part of its name ("Ataxia" for "Ataxia, type 2",
    "Tufted angioma" for "Angioma, tufted")?

    Findings are those that are told: present, absent, and of pins. Names are looked for in them too, as the graph
    writes them: the question may be in another language.
    """
    names = [name.casefold() for name in masked_names(item)]
    findings = [tail.casefold() for _, _, tail in item.evidence]
    told = [*findings, *(tail.casefold() for _, _, tail in item.absent),
            *(tail.casefold() for _, _, tail in item.provenance.get("pins", []))]
    text = "\n".join([item.question.casefold(), *findings])
    return any(is_told(name, text) or any(finding in name for finding in findings)
               or any(overlap(name, finding) for finding in told) for name in names)


def tells_masked(item: Item) -> bool:
    """Does the question tell a masked node as words of its own, or, in another language, anywhere?"""
    told = item.provenance.get("told", {})
    return any(told[name] in item.question if name in told else is_told(name, item.question)
               for name in masked_names(item))


def masked_names(item: Item) -> list[str]:
    return [*item.nodes(item.answer), *item.provenance["hidden"]]


def is_told(name: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None
