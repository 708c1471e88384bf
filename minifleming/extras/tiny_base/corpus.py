"""The text that the tiny base is trained on: what the graph states, recitals, and option look-ups.

The paper starts from a base that can read and knows medicine (Qwen2.5-7B). Ours learns just this:

    statements   " malar rash points to lupus . lupus is treated with hydroxychloroquine . ..."
                 single facts, in both directions, and short chains of them
    links        " the cause of Gaucher disease is GBA1 ."
                 single facts in the words of a question
    findings     " fever , rash and joint pain point to familial Mediterranean fever ."
                 combinations of the training split alone (rods/synthesize.py): the held-out ones never occur
    recitals     " e1 e2 e3 e4 e5 e3 e4 e1 e2 e3"
                 random names, and pieces of them again: say what followed a name
    look-ups     "\\n e1 (A)\\n e2 (B)\\n e3 (C)\\n e4 (D) so e3 (C) so e1 (A)"
                 over random names: find the mark that stood beside a name

Look-ups and recitals start with a few names and grow to all of them (``known``): a skill that is found on sixteen
names carries over, and on thousands at once it is not found.

There are no questions, no answers and no reasoning in it. Each text is a list of segments
(text, learned): what cannot be predicted, such as the names in a list, is not learned.
"""

from __future__ import annotations

import numpy as np

from minifleming.rods.graph import Graph
from minifleming.rods.item import LABELS, Triple
from minifleming.rods.phrases import EMBEDDED_RELATIONS, PHRASES, listing, phrase
from minifleming.rods.question import ItemBuilder
from minifleming.rods.synthesize import is_held_out
from minifleming.rods.walk import Walk, Walker

Segment = tuple[str, bool]
OPTION = " {text} ({label})"  # a name is one token, and so is its mark
MARK = " ({label})"
LOOK_UPS = 10
STATED = ("has_symptom", "has_lab_finding", "has_imaging_finding", "has_mechanism", "confirmed_by", "detects",
          "first_line_treatment", "drug_mechanism", "acts_on", "caused_by", "encodes", "transmitted_by", "affects",
          "contraindicated_in", "adverse_effect", "explains")


class Corpus:
    """Draws texts of a graph, given a random generator."""

    def __init__(self, graph: Graph):
        self.graph, self.walker = graph, Walker(graph)
        self.order = [graph.names[i] for i in np.random.default_rng(0).permutation(len(graph.names))]
        self.facts = [t for t in graph.triples if t[1] in STATED]
        self.weights = self._weights()
        self.follow: dict[str, list[Triple]] = {}
        for triple in self.facts:
            self.follow.setdefault(triple[0], []).append(triple)

    def _weights(self) -> np.ndarray:
        """The n facts of a (subject, relation) weigh sqrt(n) together, so that lists do not drown single facts."""
        sizes: dict[tuple[str, str], int] = {}
        for head, relation, _ in self.facts:
            sizes[head, relation] = sizes.get((head, relation), 0) + 1
        weights = np.array([sizes[h, r] ** -0.5 for h, r, _ in self.facts])
        return weights / weights.sum()

    def text(self, kind: str, tokens: int, known: int, rng: np.random.Generator) -> list[Segment]:
        """One text of about ``tokens`` tokens: statements, links, findings, look_ups or recitals."""
        if kind == "statements":
            return self.statements(tokens // 6, rng)
        if kind == "links":
            return self.links(tokens // 8, rng)
        if kind == "findings":
            return self.findings(tokens // 10, rng)
        return self.look_ups(known, rng) if kind == "look_ups" else self.recital(tokens, known, rng)

    def statements(self, count: int, rng: np.random.Generator) -> list[Segment]:
        """``count`` facts; half the time the next one goes on from where the last one ended."""
        segments: list[Segment] = []
        drawn = iter(rng.choice(len(self.facts), count, p=self.weights))
        at = None
        for _ in range(count):
            onward = self.follow.get(at, [])
            if onward and rng.random() < 0.5:
                head, relation, tail = onward[rng.integers(len(onward))]
                forward = True
            else:
                head, relation, tail = self.facts[next(drawn)]
                forward = rng.random() < 0.5
            verb = phrase(relation, forward).verb
            first, second = (head, tail) if forward else (tail, head)
            segments += [(f" {first} {verb}", False), (f" {second}", True), (" .", True)]
            at = second
        return segments

    def links(self, count: int, rng: np.random.Generator) -> list[Segment]:
        """``count`` single facts in the words in which a question asks for them."""
        segments: list[Segment] = []
        for number in rng.choice(len(self.facts), count, p=self.weights):
            head, relation, tail = self.facts[number]
            segments += [(f" the {phrase(relation).link} of {head} is", False), (f" {tail}", True), (" .", True)]
        return segments

    def findings(self, count: int, rng: np.random.Generator) -> list[Segment]:
        """``count`` times: findings that together point to one root. Held-out combinations never occur."""
        segments: list[Segment] = []
        while len(segments) < 3 * count:
            root = self.graph.names[self.walker.roots[rng.integers(len(self.walker.roots))]]
            evidence = self.walker.draw_evidence(root, (2, 4), rng)
            if evidence and not is_held_out(Walk(root, evidence, ())):
                told = listing([step.end for step in evidence])
                segments += [(f" {told} point to", False), (f" {root}", True), (" .", True)]
        return segments

    def names(self, count: int, known: int, rng: np.random.Generator) -> list[str]:
        """Different random names among the first ``known`` of a fixed order."""
        return [f" {self.order[i]}" for i in rng.choice(min(known, len(self.order)), count, replace=False)]

    def look_ups(self, known: int, rng: np.random.Generator) -> list[Segment]:
        """Options over random names, then some of them looked up, in random order and with repetition."""
        count = int(rng.choice([4, 4, 4, 3, 5, 6]))
        names = self.names(count, known, rng)
        segments = [("\n" + name + MARK.format(label=k), False) for k, name in zip(LABELS, names)]
        for i in rng.integers(count, size=LOOK_UPS):
            segments += [(f" so{names[i]}", False), (MARK.format(label=LABELS[i]), True)]
        return segments


    def recital(self, length: int, known: int, rng: np.random.Generator) -> list[Segment]:
        """Random names, then pieces of that list said again, in any order, ``length`` names in all.

        Looking back for what followed a name is learned here. Look-ups alone give too little to predict for it,
        and a list said again as a whole is learned by position: what stood n names ago.
        """
        names = self.names(int(rng.integers(4, min(known, length // 2))), known, rng)
        segments = [(name, False) for name in names]
        while len(segments) < length:
            start, size = rng.integers(len(names) - 1), rng.integers(2, 5)
            segments += [(name, i > 0) for i, name in enumerate(names[start : start + size])]
        return segments


def template_text(graph: Graph, walker: Walker) -> list[str]:
    """Everything the templates say, without the names: what the tokenizer's merges are trained on."""
    rng = np.random.default_rng(0)
    builder = ItemBuilder(walker)
    texts = []
    for relation in EMBEDDED_RELATIONS:
        ahead, back = PHRASES[relation]
        for text in (ahead.verb, back.verb, ahead.link, back.link):
            texts += [f" {word}" for word in text.split()]
    for hops in (1, 2, 3, 4) * 100:
        walk = walker.walk(hops, (2, 4), rng)
        item = walk and builder.build(walk, rng, "t")
        if item:
            texts.append(without_names(item.question, graph))
    texts += [" so ? . , and point to points lacks consider : back wait", "user", "assistant", "system"]
    return texts * 20


def without_names(text: str, graph: Graph) -> str:
    for name in sorted(graph.names, key=len, reverse=True):
        text = text.replace(f" {name}", "")
    return text
