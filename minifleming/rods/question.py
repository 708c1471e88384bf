"""[3/10] From a walk to a question: mask nodes, word the rest, add distractors and a proof (§3.1).

Masking: the visible part of the walk is the question, the masked part is the answer.

    visible   root has each finding of the evidence; root -r1-> x1 -r2-> ... -> answer
    named     the findings and the relations; the root and the nodes before the answer stay hidden
    target    the last node

Each item carries a *proof*, which proof.py checks from the item's JSON and the graph:

    1. every hop of the path and every visible triple is an edge of the graph;
    2. the answer is the only node that satisfies the visible part;
    3. each distractor has a discriminating triple: a visible triple that does not hold with it in
       the answer's place.

``ItemBuilder`` words questions in the plain style. extras/wording has its subclasses: other styles,
Chinese, chains with qualifiers, questions with two targets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from minifleming.rods.distractors import Distractor, DistractorSearch
from minifleming.rods.graph import Graph
from minifleming.rods.item import LABELS, TIERS, Item, Triple
from minifleming.rods.phrases import EMBEDDED_RELATIONS, PHRASES, listing, phrase
from minifleming.rods.walk import Step, Walk, Walker

Option = tuple[str, ...]  # the nodes of an option: one, or two if there are two targets
UNKNOWN = {True: "(the one that {of} is joined to)", False: "(the one that is joined to {of})"}


class ItemBuilder:
    """Turns walks into items in the plain style: one wording per relation, one target."""

    language = "en"

    def __init__(self, walker: Walker, num_options: int = 4, findings: tuple[int, int] = (2, 4)):
        self.walker, self.graph = walker, walker.graph
        self.num_options = num_options
        self.findings = findings  # fewest and most findings per question
        self.search = DistractorSearch(walker)

    def build(self, walk: Walk, rng: np.random.Generator, prefix: str = "kg",
              option_deficit: Mapping[str, int] = {}) -> Item | None:  # noqa: B006 (read only)
        """Returns the item of a walk, or None if too few distractors can be proven wrong.

        The id is ``prefix``, the path length and a hash of what is asked, so equal items have
        equal ids.
        """
        if not self.can_render(walk):
            return None
        answer = self.targets(walk)
        found = self.distractors(walk, rng, option_deficit)
        if len(found) < self.num_options - 1:
            return None
        options = [answer, *list(found)[: self.num_options - 1]]
        options = [options[i] for i in rng.permutation(len(options))]
        texts = list(map(self.option_text, options))
        wrong = {label: found[option] for label, option in zip(LABELS, options) if option != answer}
        question, absent = self.render(walk, options, wrong, rng)
        if len(set(texts)) < len(texts):
            return None
        digest = hashlib.sha256("\x1f".join([question, *texts]).encode()).hexdigest()
        rarity = self.walker.weight[self.graph.node_id[walk.root]]
        return Item(
            id=f"{prefix}-{walk.hops}-{digest[:12]}",
            question=question,
            options=dict(zip(LABELS, texts)),
            answer=LABELS[options.index(answer)],
            source=self.graph.source,
            language=self.language,
            tier=self.tier(walk),
            hops=walk.hops,
            rarity=round(float(rarity), 6),
            path=triples_of([walk.evidence[0], *walk.chain]),
            visible=self.visible(walk),
            absent=triples_of(absent),
            masked="; ".join(answer),
            discriminating={label: distractor.lacks for label, distractor in wrong.items()},
            provenance=self.provenance(walk, options, wrong, absent),
        )

    # What the subclasses change.

    def can_render(self, walk: Walk) -> bool:
        """Returns whether the question of this walk can be worded."""
        return True

    def targets(self, walk: Walk) -> Option:
        """Returns the nodes that the question asks for."""
        return (walk.answer,)

    def distractors(self, walk: Walk, rng: np.random.Generator,
                    option_deficit: Mapping[str, int]) -> dict[Option, Distractor]:
        """Returns the wrong options, the best first."""
        found = self.search.find(walk, self.num_options - 1, rng, option_deficit)
        return {(name,): distractor for name, distractor in found.items()}

    def render(self, walk: Walk, options: list[Option], wrong: dict[str, Distractor],
               rng: np.random.Generator) -> tuple[str, tuple[Step, ...]]:
        """Returns the text of the question, and the findings that it calls absent."""
        return plain_question(walk, self.graph), ()

    def option_text(self, option: Option) -> str:
        return "; ".join(option)

    def visible(self, walk: Walk) -> list[Triple]:
        """Returns the triples that the question states."""
        return triples_of([*walk.evidence, *walk.chain])

    def provenance(self, walk: Walk, options: list[Option], wrong: dict[str, Distractor],
                   absent: tuple[Step, ...]) -> dict:
        """Returns what the checker and the teachers read: root, hidden nodes, diagnoses."""
        diagnoses = {label: distractor.diagnosis for label, distractor in wrong.items()}
        lacks = {}
        for label, diagnosis in diagnoses.items():
            if diagnosis:
                missing = self.search.missing_findings(walk, diagnosis)
                lacks[label] = [step.end for step in missing]
        hidden = [walk.root, *(step.end for step in walk.chain[:-1])] if walk.chain else []
        return {"root": walk.root, "hidden": hidden, "rivals": diagnoses, "lacks": lacks}

    def gives_away(self, item: Item) -> bool:
        """Returns whether the question contains the answer.

        For example "expanded FXN GAA repeat" among the findings, when the cause, FXN, is the
        answer.
        """
        return any(name in item.question for name in item.nodes(item.answer))

    def tier(self, walk: Walk) -> str:
        """Returns the difficulty: the length of the chain plus the ambiguity of the findings.

        Ambiguity is 0 if only the root has one of the findings, 1 if the most specific finding
        leaves up to three other candidates, else 2. Easy is up to 1, moderate 2, difficult from
        3.
        """
        fewest = min(len(self.walker.nodes_with_finding(step)) for step in walk.evidence)
        ambiguity = 0 if fewest == 1 else 1 if fewest <= 4 else 2
        difficulty = len(walk.chain) + ambiguity
        return TIERS[min(max(difficulty, 1), 3) - 1]


def triples_of(steps: Iterable[Step]) -> list[Triple]:
    return [step.triple for step in steps]


def plain_question(walk: Walk, graph: Graph) -> str:
    """Returns the findings, then the question. Spaces around each name let it be one token."""
    kind = graph.type_of(walk.root).lower()
    if not walk.chain:
        return f"{plain_findings(walk, kind)} . Which {kind} is it ?"
    return f"{plain_findings(walk, kind)} . What is {plain_target(walk, kind)} ?"


def plain_findings(walk: Walk, kind: str) -> str:
    """Returns "A patient has fever , rash and joint pain"."""
    subject = "A patient" if kind == "disease" else f"A {kind}"
    return f"{subject} has {listing([step.end for step in walk.evidence])}"


def plain_target(walk: Walk, kind: str) -> str:
    """Returns "the action of the first-line treatment of this disease"."""
    target = f"this {kind}"
    for step in walk.chain:
        if step.relation in EMBEDDED_RELATIONS:  # in the words of the tiny tokenizer
            link = phrase(step.relation, step.forward).link
            target = f"the {link} of {target}"
        else:
            target = f"the {noun_phrase(step, target)}"
    return target


def noun_phrase(step: Step, before: str, qualifier: str = "") -> str:
    """Returns the end of the step in words: "first-line treatment of this disease".

    A ``qualifier`` follows the noun: "disease (the one with fever) first treated with ...".
    """
    words = phrase(step.relation, step.forward)
    if words.noun:
        noun, _, rest = words.noun.partition(" ")
    else:
        noun = words.link
        rest = "of {of}" if step.relation in PHRASES else UNKNOWN[step.forward]
    rest = rest.replace("{of}", before)  # not str.format: a name may contain braces
    return f"{noun} (the one with {qualifier}) {rest}" if qualifier else f"{noun} {rest}"
