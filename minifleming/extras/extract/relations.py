"""Relations within one sentence: clause by clause, each named thing finds its partner.

    "Gout, which affects the joints, presents with fever and is treated with colchicine."
     [gout] [which affects the joints] [presents with fever] [and is treated with colchicine]

Names that form a list are one group and share the relation. A group looks for a partner in three places, and stops at
the first that gives a triple: its own clause (the nearest), the subject that its clause inherits (the name before
"which", else the sentence's first group), and the page's topic. Types and a cue word in the clause decide whether a
pair is a triple (cues.py). What lies in a dead span (clauses.py) gives nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from minifleming.extras.extract.clauses import (
    LONGEST,
    Span,
    assumed,
    clause_spans,
    dead_spans,
    touches,
)
from minifleming.extras.extract.cues import ALSO, TREATMENT, Signature, rank, relation_of, signatures
from minifleming.extras.extract.lexicon import Mention
from minifleming.extras.extract.pages import Sentence
from minifleming.rods.graph import Graph
from minifleming.rods.item import Triple

NEAR = 8  # groups: how far a partner in the same clause may be
# Types that one list may mix: "fever and leukocytosis".
KINDS = [{"Symptom", "LabFinding", "ImagingFinding", "AdverseEffect", "Condition"},
         {"Drug", "Procedure", "Diet", "SupportiveCare"}, {"Pathogen", "Gene", "Cause", "Deficiency", "Exposure"}]
SEPARATOR = re.compile(r"\s*(?:[,;:/+&]|(?:,\s*)?\b(?:and|or|as well as|along with|plus)\b)\s*(?:[\w-]+\s+){0,3}", re.I)
SHOWS = re.compile(r"\b(?:shows?|reveals?|demonstrates?|displays?|finds?)\b", re.IGNORECASE)
PRONOUN = re.compile(r"\W*(?:and|but|or|as|because|since)?\s*\b(?:it|they|this|these|those)\b", re.IGNORECASE)
RELATIVE = re.compile(r",?\s*\b(?:which|who|whose|that)\b", re.IGNORECASE)


class Group(NamedTuple):
    """Mentions that form a list."""

    start: int
    end: int
    mentions: tuple[Mention, ...]

    @property
    def implied(self) -> bool:
        return self.start == self.end


class Clause(NamedTuple):
    start: int
    end: int
    text: str  # with its cues; of a clause without a verb ("but by infection") also the clause before
    groups: list[Group]
    subject: Group | None  # the one that it inherits
    offset: int  # where its text starts in the sentence


class PatternRelator:
    """Triples by types and cues. ``counts`` says why candidates were refused."""

    how = "pattern"

    def __init__(self, graph: Graph):
        self.types = dict(zip(graph.names, graph.types))
        self.signature: Signature = signatures(graph)
        self.counts: Counter[str] = Counter()

    def relate(self, sentence: Sentence, entities: list[Mention]) -> list[Triple]:
        text = sentence.text
        if len(text) > LONGEST or assumed(text):
            self.counts["too long" if len(text) > LONGEST else "asked or supposed"] += bool(entities)
            return []
        dead = dead_spans(text, entities)
        found: list[Triple] = []
        topics = [Group(m.start, m.end, (m,)) for m in entities if m.end == m.start][:1]
        named = [m for m in entities if m.end > m.start]
        for clause in clauses(text, named, dead, self.types):
            found += self._clause(clause, dead, topics)
        return list(dict.fromkeys(found))

    def _clause(self, clause: Clause, dead: list[Span], topics: list[Group]) -> list[Triple]:
        """The triples of a clause: partners within it, then the inherited subject, then the topic."""
        live = [group for group in clause.groups if not touches(dead, group.start, group.end)]
        self.counts["denied"] += len(clause.groups) - len(live)
        found, joined = self._within(clause, live)
        if touches(dead, clause.start, clause.end):
            return found
        outside = [clause.subject] if clause.subject and not touches(dead, *clause.subject[:2]) else []
        topics = [] if PRONOUN.match(clause.text) and clause.start else topics
        for group in (g for i, g in enumerate(live) if i not in joined):
            found += next(filter(None, (self._join(other, group, clause) for other in (*outside, *topics))), [])
        return found

    def _within(self, clause: Clause, live: list[Group]) -> tuple[list[Triple], set[int]]:
        """Each group as a tail takes one head, by precedence and nearness; the triples and the groups in them."""
        found: list[Triple] = []
        joined: set[int] = set()
        for i, tail in enumerate(live):
            options = []
            for j in range(max(0, i - NEAR), min(len(live), i + NEAR + 1)):
                triples = [] if i == j else self._join(live[j], tail, clause)
                names = {name for mention in tail.mentions for name in mention.names}
                if triples and triples[0][2] in names:
                    options.append((rank(triples[0][1]), abs(i - j), j, triples))
            if options:
                *_, j, triples = min(options)
                found += triples
                shown = triples[0][1] == "detects" and SHOWS.search(clause.text)  # the patient has it, too
                joined |= {j} if shown else {i, j}
        return found, joined

    def _join(self, left: Group, right: Group, clause: Clause) -> list[Triple]:
        """Every pair of two groups that types and cues join; a name of two nodes must fit in exactly one way."""
        found: list[Triple] = []
        for a in left.mentions:
            for b in right.mentions:
                fits = [(x, fit, y) for x in a.names for y in b.names if x != y
                        if (fit := relation_of(self.types[x], self.types[y], clause.text, self.signature))]
                self.counts["ambiguous"] += len(fits) > 1
                for x, (relation, forward), y in fits if len(fits) == 1 else ():
                    head, tail, group, drug = (x, y, right, b) if forward else (y, x, left, a)
                    if relation in TREATMENT:
                        relation = TREATMENT[further(clause, group, drug)]
                    found.append((head, relation, tail))
        return found


def further(clause: Clause, group: Group, drug: Mention) -> bool:
    """Is this drug of a list one more besides the first: "A, alternatively B"? All that follow it are, too."""
    before = clause.text[: max(0, drug.start - clause.offset)]
    after = clause.text[drug.end - clause.offset :] if drug == group.mentions[-1] and not group.implied else ""
    later = min((g.start for g in clause.groups if g.start > drug.start), default=None)
    if later is not None:  # words before the next name may be that name's
        after = re.split(r"[,;]|\b(?:and|or|with)\b", after[: max(0, later - drug.end)])[0]
    return ALSO.search(before + " " + after) is not None


def clauses(text: str, named: list[Mention], dead: list[Span], types: dict[str, str]) -> Iterator[Clause]:
    """The clauses of a sentence with their groups and the subject that each inherits."""
    first: Group | None = None
    last: Group | None = None
    before = ""
    for start, end, complete in clause_spans(text, named):
        groups = grouped(text, [m for m in named if start <= m.start < end], dead, types)
        words = text[start:end]
        yield Clause(start, end, words if complete else before + words, groups,
                     last if RELATIVE.match(words) else first, start if complete else start - len(before))
        first, last, before = first or next(iter(groups), None), groups[-1] if groups else last, words


def grouped(text: str, mentions: list[Mention], dead: list[Span], types: dict[str, str]) -> list[Group]:
    """Lists of like mentions as one group each; a list does not go on over the edge of a dead span."""
    groups: list[Group] = []
    for mention in mentions:
        last = groups[-1] if groups else None
        if last and alike(last.mentions[-1], mention, types) and SEPARATOR.fullmatch(text, last.end, mention.start) \
                and touches(dead, last.start, last.end) == touches(dead, mention.start, mention.end):
            groups[-1] = Group(last.start, mention.end, (*last.mentions, mention))
        else:
            groups.append(Group(mention.start, mention.end, (mention,)))
    return groups


def alike(a: Mention, b: Mention, types: dict[str, str]) -> bool:
    first, second = {types[name] for name in a.names}, {types[name] for name in b.names}
    return bool(first & second) or any(first & kind and second & kind for kind in KINDS)
