"""The text that the tiny base is trained on: facts of the graph, recitals and option look-ups.

The paper starts from a base that can read and knows medicine (Qwen2.5-7B). Ours learns only this:

    statements   " malar rash points to lupus . lupus is treated with hydroxychloroquine . ..."
                 single facts, in both directions, and short chains of them
    links        " the cause of Gaucher disease is GBA1 ."
                 single facts in the wording of a question
    findings     " fever , rash and joint pain point to familial Mediterranean fever ."
                 combinations of the training split only (rods/synthesize.py), none held out
    recitals     " e1 e2 e3 e4 e5 e3 e4 e1 e2 e3"
                 random names, then pieces of that list again: predict what followed a name
    look_ups     "\\n e1 (A)\\n e2 (B)\\n e3 (C)\\n e4 (D) so e3 (C) so e1 (A)"
                 random names with marks: predict the mark next to a name

Look-ups and recitals start with a few names and grow to all of them (``known``): the skill is
learned on sixteen names and transfers to the others; on thousands at once it is not learned.

There are no questions, no answers and no reasoning in it. Each text is a list of segments
(text, learned): what cannot be predicted, such as the names in a list, is not learned.
"""

from __future__ import annotations

from collections import Counter

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
STATED = ("has_symptom", "has_lab_finding", "has_imaging_finding", "has_mechanism", "confirmed_by",
          "detects", "first_line_treatment", "drug_mechanism", "acts_on", "caused_by", "encodes",
          "transmitted_by", "affects", "contraindicated_in", "adverse_effect", "explains")


class Corpus:
    """Draws texts of a graph, given a random generator."""

    def __init__(self, graph: Graph):
        self.graph, self.walker = graph, Walker(graph)
        order = np.random.default_rng(0).permutation(len(graph.names))
        self.order = [graph.names[i] for i in order]
        self.facts = [t for t in graph.triples if t[1] in STATED]
        self.follow: dict[str, list[Triple]] = {}
        for triple in self.facts:
            self.follow.setdefault(triple[0], []).append(triple)
        # The n facts of a (subject, relation) weigh sqrt(n) together: long lists do not dominate.
        sizes = Counter(triple[:2] for triple in self.facts)
        weights = np.array([sizes[triple[:2]] ** -0.5 for triple in self.facts])
        self.weights = weights / weights.sum()

    def text(self, kind: str, tokens: int, known: int, rng: np.random.Generator) -> list[Segment]:
        """Return a text of about ``tokens`` tokens; ``kind`` is one of the names above."""
        if kind == "statements":
            return self.statements(tokens // 6, rng)
        if kind == "links":
            return self.links(tokens // 8, rng)
        if kind == "findings":
            return self.findings(tokens // 10, rng)
        return self.look_ups(known, rng) if kind == "look_ups" else self.recital(tokens, known, rng)

    def statements(self, count: int, rng: np.random.Generator) -> list[Segment]:
        """Return ``count`` facts; where possible, half of them start where the last one ended."""
        segments: list[Segment] = []
        drawn = iter(rng.choice(len(self.facts), count, p=self.weights))
        end = None
        for _ in range(count):
            onward = self.follow.get(end, [])
            if onward and rng.random() < 0.5:
                start, relation, end = onward[rng.integers(len(onward))]
                verb = phrase(relation).verb
            else:
                start, relation, end = self.facts[next(drawn)]
                forward = rng.random() < 0.5
                verb = phrase(relation, forward).verb
                if not forward:
                    start, end = end, start
            segments += fact(f"{start} {verb}", end)
        return segments

    def links(self, count: int, rng: np.random.Generator) -> list[Segment]:
        """Return ``count`` single facts in the wording in which a question asks for them."""
        segments: list[Segment] = []
        for number in rng.choice(len(self.facts), count, p=self.weights):
            head, relation, tail = self.facts[number]
            segments += fact(f"the {phrase(relation).link} of {head} is", tail)
        return segments

    def findings(self, count: int, rng: np.random.Generator) -> list[Segment]:
        """Return ``count`` lists of findings with the root that they point to; none is held out."""
        segments: list[Segment] = []
        while len(segments) < 3 * count:
            root = self.graph.names[self.walker.roots[rng.integers(len(self.walker.roots))]]
            evidence = self.walker.draw_evidence(root, (2, 4), rng)
            if evidence and not is_held_out(Walk(root, evidence, ())):
                segments += fact(f"{listing([step.end for step in evidence])} point to", root)
        return segments

    def names(self, count: int, known: int, rng: np.random.Generator) -> list[str]:
        """Return different random names among the first ``known`` of a fixed order."""
        drawn = rng.choice(min(known, len(self.order)), count, replace=False)
        return [f" {self.order[i]}" for i in drawn]

    def look_ups(self, known: int, rng: np.random.Generator) -> list[Segment]:
        """Return random names with marks, then look-ups in random order, with repetition."""
        count = int(rng.choice([4, 4, 4, 3, 5, 6]))
        names = self.names(count, known, rng)
        marks = [MARK.format(label=label) for label in LABELS[:count]]
        segments = [("\n" + name + mark, False) for name, mark in zip(names, marks)]
        for i in rng.integers(count, size=LOOK_UPS):
            segments += [(f" so{names[i]}", False), (marks[i], True)]
        return segments

    def recital(self, length: int, known: int, rng: np.random.Generator) -> list[Segment]:
        """Return random names, then pieces of that list in any order; at least ``length`` names.

        This teaches to find an earlier name and repeat what followed it. Look-ups give too little
        to predict for that, and a list that is repeated whole is learned by position.
        """
        names = self.names(int(rng.integers(4, min(known, length // 2))), known, rng)
        segments = [(name, False) for name in names]
        while len(segments) < length:
            start, size = rng.integers(len(names) - 1), rng.integers(2, 5)
            piece = names[start : start + size]
            segments.append((piece[0], False))
            segments += [(name, True) for name in piece[1:]]
        return segments


def fact(text: str, name: str) -> list[Segment]:
    """Return the segments of a sentence that ends with a name; name and stop are learned."""
    return [(f" {text}", False), (f" {name}", True), (" .", True)]


def template_text(graph: Graph, walker: Walker) -> list[str]:
    """Return the wording of all templates without names, for training the tokenizer's merges."""
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
    texts.append(" so ? . , and point to points lacks consider : back wait")
    texts += ["user", "assistant", "system"]
    return texts * 20


def without_names(text: str, graph: Graph) -> str:
    for name in sorted(graph.names, key=len, reverse=True):
        text = text.replace(f" {name}", "")
    return text
