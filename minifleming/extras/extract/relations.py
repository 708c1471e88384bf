"""Finds relations within one sentence, clause by clause.

    "Gout, which affects the joints, presents with fever and is treated with colchicine."
     [gout] [which affects the joints] [presents with fever] [and is treated with colchicine]

Names that form a list are one group and share the relation. A group looks for a partner in three
places and stops at the first that gives a triple: its own clause (the nearest), the subject that
its clause inherits (the name before "which", else the sentence's first group), and the page's
topic. Types and a cue word decide whether a pair is a triple (cues.py). Negated spans (clauses.py)
give no triple.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from minifleming.extras.extract.clauses import (
    ASSUMED,
    LONGEST,
    Span,
    clause_spans,
    link,
    negated_spans,
    touches,
)
from minifleming.extras.extract.cues import (
    TREATMENT,
    pattern,
    precedence,
    relation_of,
    signatures,
)
from minifleming.extras.extract.lexicon import Lexicon, Mention
from minifleming.extras.extract.pages import Page, Sentence
from minifleming.rods.graph import Graph
from minifleming.rods.item import Triple

NEAR = 8  # groups: maximum distance of a partner in the same clause
SEPARATOR, PRONOUN, RELATIVE = pattern("separator"), pattern("pronoun"), pattern("relative")
SHOWS, FURTHER = pattern("shows"), pattern("further")


class Group(NamedTuple):
    """Mentions that form a list."""

    start: int
    end: int
    mentions: tuple[Mention, ...]


class Clause(NamedTuple):
    start: int
    end: int
    text: str  # for a clause without a verb ("but by infection") with the clause before it
    groups: list[Group]
    subject: Group | None  # inherited
    offset: int  # where ``text`` starts in the sentence


class Extracted(NamedTuple):
    triple: Triple
    sentence: Sentence


class Relator:
    """Finds triples by the names of a graph, the types of its nodes and cue words."""

    def __init__(self, graph: Graph):
        self.names = Lexicon(graph)
        self.types = self.names.types
        self.signature = signatures(graph)

    def extract(self, pages: list[Page]) -> list[Extracted]:
        """Returns the triples of all pages, in the order of the pages' names."""
        found = []
        for page in sorted(pages):
            for sentence, mentions in zip(page.sentences, link(self.names, page)):
                for triple in self.relate(sentence.text, mentions):
                    found.append(Extracted(triple, sentence))
        return found

    def relate(self, text: str, mentions: list[Mention]) -> list[Triple]:
        """Returns the triples of one sentence."""
        if len(text) > LONGEST or ASSUMED.search(text):
            return []  # not prose, or the sentence as a whole is asked, supposed or denied
        negated = negated_spans(text, mentions)
        topics = [Group(m.start, m.end, (m,)) for m in mentions if m.implied][:1]
        named = [m for m in mentions if not m.implied]
        found: list[Triple] = []
        for clause in clauses(text, named, negated, self.types):
            found += self._relate_clause(clause, negated, topics)
        return list(dict.fromkeys(found))

    def _relate_clause(self, clause: Clause, negated: list[Span],
                       topics: list[Group]) -> list[Triple]:
        """Joins groups of the clause, then the others with the inherited subject or the topic."""
        groups = [g for g in clause.groups if not touches(negated, g.start, g.end)]
        found, joined = self._join_within(clause, groups)
        if touches(negated, clause.start, clause.end):
            return found
        partners = []
        if clause.subject and not touches(negated, clause.subject.start, clause.subject.end):
            partners.append(clause.subject)
        if not (PRONOUN.match(clause.text) and clause.start):
            partners += topics
        for i, group in enumerate(groups):
            if i in joined:
                continue
            for partner in partners:
                triples = self._join(partner, group, clause)
                if triples:
                    found += triples
                    break
        return found

    def _join_within(self, clause: Clause, groups: list[Group]) -> tuple[list[Triple], set[int]]:
        """Gives each group, as a tail, one head: by precedence of the relation, then the nearest.

        Returns the triples and the indices of the groups in them.
        """
        found: list[Triple] = []
        joined: set[int] = set()
        for i, tail in enumerate(groups):
            names = {mention.name for mention in tail.mentions}
            options = []
            for j in range(max(0, i - NEAR), min(len(groups), i + NEAR + 1)):
                triples = self._join(groups[j], tail, clause) if i != j else []
                if triples and triples[0][2] in names:
                    options.append((precedence(triples[0][1]), abs(i - j), j, triples))
            if not options:
                continue
            *_, j, triples = min(options)
            found += triples
            joined.add(j)
            if triples[0][1] != "detects" or not SHOWS.search(clause.text):
                joined.add(i)  # a finding that a test shows is the patient's, too
        return found, joined

    def _join(self, left: Group, right: Group, clause: Clause) -> list[Triple]:
        """Returns the triples of every pair of mentions."""
        found: list[Triple] = []
        for a, b in product(left.mentions, right.mentions):
            types = self.types[a.name], self.types[b.name]
            fit = relation_of(*types, clause.text, self.signature)
            if not fit or a.name == b.name:
                continue
            relation, forward = fit
            if relation in TREATMENT:
                drug, group = (b, right) if forward else (a, left)
                relation = TREATMENT[is_further(clause, group, drug)]
            head, tail = (a, b) if forward else (b, a)
            found.append((head.name, relation, tail.name))
        return found


def is_further(clause: Clause, group: Group, drug: Mention) -> bool:
    """Says whether a drug of a list is not the first choice: "A, alternatively B"."""
    before = clause.text[: max(0, drug.start - clause.offset)]
    after = ""
    if drug == group.mentions[-1] and not drug.implied:
        after = clause.text[drug.end - clause.offset :]
    later = [g.start for g in clause.groups if g.start > drug.start]
    if later:  # words before the next name may belong to it
        between = after[: max(0, min(later) - drug.end)]
        after = re.split(r"[,;]|\b(?:and|or|with)\b", between)[0]
    return FURTHER.search(before + " " + after) is not None


def clauses(text: str, named: list[Mention], negated: list[Span],
            types: dict[str, str]) -> Iterator[Clause]:
    """Yields the clauses of a sentence with their groups and the subject that each inherits."""
    first: Group | None = None
    last: Group | None = None
    before = ""
    for start, end, has_verb in clause_spans(text, named):
        mentions = [m for m in named if start <= m.start < end]
        groups = group_lists(text, mentions, negated, types)
        words = text[start:end]
        subject = last if RELATIVE.match(words) else first
        if has_verb:
            yield Clause(start, end, words, groups, subject, start)
        else:
            yield Clause(start, end, before + words, groups, subject, start - len(before))
        if groups:
            first = first or groups[0]
            last = groups[-1]
        before = words


def group_lists(text: str, mentions: list[Mention], negated: list[Span],
                types: dict[str, str]) -> list[Group]:
    """Groups the mentions of each list; a list ends at the edge of a negated span."""
    groups: list[Group] = []
    for mention in mentions:
        start = mention.start
        last = groups[-1] if groups else None
        if (last and types[last.mentions[-1].name] == types[mention.name]
                and SEPARATOR.fullmatch(text, last.end, start)
                and touches(negated, last.start, last.end) == touches(negated, start, mention.end)):
            groups[-1] = Group(last.start, mention.end, (*last.mentions, mention))
        else:
            groups.append(Group(start, mention.end, (mention,)))
    return groups
