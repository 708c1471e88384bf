"""Relations by surface patterns: a sentence with linked names -> triples.

    "Podagra is a hallmark of gout."   hallmark of   backward, findings   ->   gout | has_symptom | podagra

Names that form a list are one group, so that "fever, rash and joint pain" distributes. A pattern is looked for between
each two neighbouring groups; ``L`` and ``R`` stand for them. A pattern without ``L`` may take its left group from
further back ("X presents with A and B and is caused by C"). Which relation it is, of those that a pattern may mean, is
decided by the types that the graph joins by it; a name of two nodes must fit in exactly one way. What lies in a dead
span (clauses.py) gives nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from minifleming.rods.extract.clauses import LONGEST, Span, assumed, dead_spans, touches
from minifleming.rods.extract.lexicon import Mention
from minifleming.rods.extract.pages import Sentence
from minifleming.rods.graph import Graph
from minifleming.rods.item import Triple

FURTHEST = 6  # groups that a pattern without L may go back
Signature = dict[str, set[tuple[str, str]]]  # relation -> the pairs (head type, tail type) that it joins

FINDING = ("has_symptom", "has_lab_finding", "has_imaging_finding")
CAUSE = ("caused_by", "has_mechanism")
TREATMENT = ("first_line_treatment", "other_treatment")
OTHER = re.compile(r"\b(?:also|alternatives?|alternatively|second-line|second line|third-line|added|instead)\b", re.I)


class Pattern(NamedTuple):
    relations: tuple[str, ...]
    regex: re.Pattern
    forward: bool  # the left group holds the heads


def pattern(relations: tuple[str, ...] | str, regex: str, forward: bool) -> Pattern:
    """``L``, ``R``: the groups; ``~``: up to seven words of filler; ``_of_L``: "of L", "for the L" or nothing."""
    regex = regex.replace(" _of_L", r"(?: (?:of|for|in)(?: the)? L)?")
    regex = regex.replace("~", r"(?:(?!(?:which|that|who|but|because|since|while)\b)[\w'\u2019%./-]+ ){0,7}")
    regex = re.sub(r"(?<!\\)\bL\b", "\x01", regex)
    regex = re.sub(r"(?<!\\)\bR\b", "\x02", regex)
    return Pattern((relations,) if isinstance(relations, str) else relations, re.compile(regex, re.IGNORECASE), forward)


_SIGN = r"(?:symptoms?|signs?|features?|findings?|hallmarks?|manifestations?|complications?)"
_EFFECT = r"(?:adverse|side|unwanted) (?:effects?|reactions?)"
_ARE = r"(?:is|are|was|were|includes?|included|comprises?|consists? of)[:,]?"
_BY = r"(?:by|through|with)"
PATTERNS = [
    pattern(FINDING, r"\b(?:presents?|presented|presenting|manifests?) (?:\w+ )?(?:with|as) ~R", True),
    pattern(FINDING, r"\b(?:characteri[sz]ed|marked|accompanied) by ~R", True),
    pattern(FINDING, r"\b(?:features?|has|have|had|shows?|reveals?|demonstrates?|includes?) ~R", True),
    pattern(FINDING, r"\b(?:develops?|experiences?|suffers? from|complains? of|images as) ~R", True),
    pattern(FINDING, r"\b(?:associated with|there (?:is|are)) ~R", True),
    pattern(FINDING, rf"\b(?:{_SIGN}|tests|results|attack|presentation) _of_L (?:\w+ ){{0,2}}{_ARE} ~R", True),
    pattern((*FINDING, "adverse_effect", "explains"),
            r"\b(?:causes?|leads? to|results? in|produces?|ends? in|gives? rise to) ~R", True),
    pattern(FINDING, rf"\b(?:{_SIGN}|typical|characteristic|suggestive) (?:of|in) ~R", False),
    pattern(FINDING, r"\b(?:common|frequent|seen|found|observed|present|occurs?) (?:in|with|among) ~R", False),
    pattern(FINDING, r"\bdevelops? in ~R", False),
    pattern(FINDING, r"\b(?:points? to|suggests?) ~R", False),
    pattern("explains", r"\b(?:explains?|accounts? for) ~R", True),
    pattern("explains", r"\b(?:explained by|accounted for by) ~R", False),
    pattern("detects", r"\b(?:detects?|identif(?:y|ies)|shows?|showing|reveals?|demonstrates?) ~R", True),
    pattern("detects", rf"\b(?:detected|identified|shown|demonstrated) {_BY} ~R", False),
    pattern(CAUSE, r"\b(?:caused by|due to|results? from|resulting from|arises? from|consequence of) ~R", True),
    pattern(CAUSE, r"\b(?:cause|culprit|causative agent)\b[^,;\x02]{0,40} is ~R", True),
    pattern(CAUSE, r"\b(?:causes?|the cause of|responsible for|underlies|underlie) ~R", False),
    pattern("adverse_effect", rf"\b{_EFFECT} _of_L {_ARE} ~R", True),
    pattern("adverse_effect", rf"\b(?:{_EFFECT} of|caused by|due to) ~R", False),
    pattern("confirmed_by", rf"\b(?:confirmed|verified|established|proven|diagnosed) {_BY} ~R", True),
    pattern("confirmed_by", rf"\b(?:gold standard|confirmatory test|diagnostic test) _of_L {_ARE} ~R", True),
    pattern("confirmed_by", r"\b(?:confirms?|establishes|diagnoses|to confirm|to diagnose) ~R", False),
    pattern("confirmed_by", r"\b(?:gold standard|confirmatory test|diagnostic test) for ~R", False),
    pattern("affects", r"\b(?:affects?|involves?|(?:disease|disorder|infection|inflammation) of) ~R", True),
    pattern("affects", r"\baffected (?:by|in) ~R", False),
    pattern("transmitted_by", r"\b(?:spreads?|transmitted|acquired) (?:by|through) ~R", True),
    pattern("transmitted_by", r"\b(?:spreads|transmits) ~R", False),
    pattern("encodes", r"\b(?:encodes?|encoding|codes for) ~R", True),
    pattern("encodes", r"\b(?:encoded by|product of) ~R", False),
    pattern("drug_mechanism", r"\b(?:works?|acts?) (?:by|through) ~R", True),
    pattern("drug_mechanism", rf"\bmechanism of action _of_L {_ARE} ~R", True),
    pattern("acts_on", r"\b(?:acts? on|targets?|inhibits?|blocks?|binds?(?: to)?) ~R", True),
    pattern("contraindicated_in", r"\bcontraindicated (?:in|during|with) ~R", True),
    pattern("contraindicated_in", r"\b(?:must|should) be avoided (?:in|during|by) ~R", True),
    pattern("contraindicated_in", r"\b(?:must|should|may) (?:not|never) be (?:given|used|taken|prescribed) ~R", True),
    pattern("contraindicated_in", rf"\bcontraindications? _of_L {_ARE} ~R", True),
    pattern("contraindicated_in", r"\b(?:contraindications? (?:to|for)|forbids?) ~R", False),
    pattern(TREATMENT, r"\btreated (?:\w+ )?with ~R", True),
    pattern(TREATMENT, rf"\b(?:treatment|therapy|management|options?|choice) _of_L {_ARE} ~R", True),
    pattern(TREATMENT, r"\bgiven ~R instead", True),
    pattern(TREATMENT, r"\b(?:treats?|to treat|(?:treatment|therapy|drug|medicine|choice) (?:for|of|in)) ~R", False),
    pattern(TREATMENT, r"\b(?:used|prescribed|given) (?:for|in) ~R", False),
    pattern("has_prevalence", r"\bis (?:a|an) (?:[\w-]+ ){0,2}R", True),
]
AFTER = [  # what follows a group and speaks of the title: "Methimazole is given first"
    pattern(FINDING, r"\s(?:is|are) (?:(?:very|often|usually) )?(?:common|typical|frequent|characteristic)\b", False),
    pattern(FINDING, rf"\s(?:is|are) (?:a|the) (?:most )?(?:\w+ )?{_SIGN}(?! (?:of|for|in)\b)", False),
    pattern("confirmed_by", r"\s(?:is|are) (?:the|a) (?:confirmatory|diagnostic) test\b(?! (?:of|for|in)\b)", False),
    pattern(TREATMENT, r"\s(?:is|are|can be|may be) (?:usually |often )?(?:given first|added)\b", False),
    pattern(TREATMENT, r"\s(?:is|are) the (?:first-line )?(?:drug of choice|treatment of choice|treatment|therapy)\b"
            r"(?! (?:of|for|in)\b)", False),
]
KINDS = [{"Symptom", "LabFinding", "ImagingFinding", "AdverseEffect", "Condition"},
         {"Drug", "Procedure", "Diet", "SupportiveCare"}, {"Pathogen", "Gene", "Cause", "Deficiency", "Exposure"}]
SEPARATOR = re.compile(
    r"\s*(?:,|;|:|/|\+|&|(?:,\s*)?\b(?:and|or|as well as|along with|plus|and/or)\b)\s*"
    r"(?:(?:in (?:patients|people|those) with|a|an|the|to|of|with|from|by|sometimes|often|later|occasionally|even|also|"
    r"mild|severe|acute|chronic|progressive|recurrent|marked)\s+){0,3}", re.IGNORECASE)
ELLIPSIS = re.compile(r"\s*,? but (?:rather |only )?(of|by|with|in|to|from|for|on) ")
BROKEN = re.compile(r"[^,;]*(?:[,;:)]|\b(?:and|but|which)\b|\bby \w+ing\b)")  # an earlier subject is possible
VERB = r"(?:is|are|was|were|has|have|may|can|must|should|presents?|causes?|affects?|responds?|leads?|shows?)\b"
SAME_SUBJECT = re.compile(rf"\s*,?\s*(?:and|or|but) (?:\w+ly )?{VERB}")
NEW_CLAUSE = re.compile(rf"\s*{VERB}")


class Group(NamedTuple):
    """Mentions that form a list."""

    start: int
    end: int
    mentions: tuple[Mention, ...]

    @property
    def implied(self) -> bool:
        return self.start == self.end


def signatures(graph: Graph) -> Signature:
    """Which pairs of types each relation joins in a graph."""
    found: Signature = {}
    for head, relation, tail in graph.triples:
        found.setdefault(relation, set()).add((graph.type_of(head), graph.type_of(tail)))
    return found


class PatternRelator:
    """Triples by the patterns above. ``counts`` says why candidates were refused."""

    how = "pattern"

    def __init__(self, graph: Graph):
        self.types = dict(zip(graph.names, graph.types))
        self.signature = signatures(graph)
        self.counts: Counter[str] = Counter()

    def relate(self, sentence: Sentence, entities: list[Mention]) -> list[Triple]:
        text = sentence.text
        if len(text) > LONGEST or assumed(text):
            self.counts["too long" if len(text) > LONGEST else "asked or supposed"] += bool(entities)
            return []
        dead = dead_spans(text, entities)
        groups = grouped(text, entities, dead, self.types)
        found: list[Triple] = []
        self.subject = 0  # the group on the left of the last triple
        for i in range(len(groups)):
            if i + 1 < len(groups):
                found += self._between(text, groups, i, dead)
            found += self._after(text, groups, i, dead)
        return list(dict.fromkeys(found))

    def _between(self, text: str, groups: list[Group], i: int, dead: list[Span]) -> list[Triple]:
        """What the words between groups i and i + 1 say."""
        left, right = groups[i], groups[i + 1]
        before = text[groups[i - 1].end if i else 0 : left.start][-80:]
        gap = text[left.end : right.start]
        ellipsis = ELLIPSIS.match(gap)
        words = resumed(text[: left.start], ellipsis[1]) + gap[ellipsis.end() :] if ellipsis else gap
        after = text[right.end : groups[i + 2].start if i + 2 < len(groups) else len(text)][:40]
        marked = f"{before}\x01{words}\x02{after}"
        found: list[Triple] = []
        for rule in PATTERNS:
            match = rule.regex.search(marked)
            if not match:
                continue
            start = left.end + max(0, match.start() - len(before) - 1) if not ellipsis else left.end + 1
            if ellipsis:
                start = left.end + gap.index("but")
            if touches(dead, start, right.end):
                self.counts["denied"] += 1
                continue
            far = "\x01" not in match[0] and BROKEN.match(gap[: start - left.end + len(match[0])])
            order = list(range(i, max(-1, i - (FURTHEST if far else 0) - 1), -1))
            if far and SAME_SUBJECT.match(gap):
                order.insert(0, self.subject)
            live = [j for j in order if not touches(dead, groups[j].start, groups[j].end)
                    and (j == i or not groups[j].implied)]
            relations = treatment(rule.relations, before + gap + after)
            found += self._first(groups, live, right, relations, rule.forward)
        return found

    def _first(self, groups: list[Group], order: list[int], right: Group, relations: tuple[str, ...],
               forward: bool) -> list[Triple]:
        """With the first of the groups in ``order`` that fits."""
        for j in order:
            found = self._join(groups[j], right, relations, forward)
            if found:
                self.subject = j
                return found
        return []

    def _after(self, text: str, groups: list[Group], i: int, dead: list[Span]) -> list[Triple]:
        """What the words after group i say of the title, where it is implied."""
        group, title = groups[i], groups[-1]
        if group.implied or not title.implied or touches(dead, group.start, group.end):
            return []
        words = text[group.end : groups[i + 1].start]
        found: list[Triple] = []
        for rule in AFTER:
            match = rule.regex.match(words)
            if match and not touches(dead, group.end, group.end + match.end()):
                found += self._join(group, title, treatment(rule.relations, words), rule.forward)
        return found

    def _join(self, left: Group, right: Group, relations: tuple[str, ...], forward: bool) -> list[Triple]:
        heads, tails = (left, right) if forward else (right, left)
        found: list[Triple] = []
        for head in heads.mentions:
            for tail in tails.mentions:
                fits = [(h, r, t) for r in relations for h in head.names for t in tail.names
                        if h != t and (self.types[h], self.types[t]) in self.signature.get(r, ())]
                if len(fits) == 1:
                    found += fits
                elif fits:
                    self.counts["ambiguous"] += 1
        return found


def treatment(relations: tuple[str, ...], words: str) -> tuple[str, ...]:
    """Of the two relations for a treatment, the one that the words around it say."""
    return (TREATMENT[1] if OTHER.search(words) else TREATMENT[0],) if relations == TREATMENT else relations


def resumed(before: str, preposition: str) -> str:
    """What an elliptic "but by" takes up again: the last word with this preposition, as in "caused by"."""
    words = re.findall(rf"\b\w+ {preposition}\b", before)
    return f" {words[-1] if words else preposition} "


def grouped(text: str, mentions: list[Mention], dead: list[Span], types: dict[str, str]) -> list[Group]:
    """Lists of like mentions as one group each; a list does not go on over the edge of a dead span."""
    groups: list[Group] = []
    for mention in mentions:
        last = groups[-1] if groups else None
        if last and not last.implied and mention.end > mention.start and alike(last.mentions[-1], mention, types) \
                and SEPARATOR.fullmatch(text, last.end, mention.start) and not clause(text, last, mention) \
                and touches(dead, last.start, last.end) == touches(dead, mention.start, mention.end):
            groups[-1] = Group(last.start, mention.end, (*last.mentions, mention))
        else:
            groups.append(Group(mention.start, mention.end, (mention,)))
    return groups


def clause(text: str, last: Group, mention: Mention) -> bool:
    """Does a new clause start at the mention: "reveals A, and B is common"?"""
    return (len(last.mentions) == 1 and re.match(r",\s*and\b", text[last.end : last.end + 8]) is not None
            and NEW_CLAUSE.match(text, mention.end) is not None)


def alike(a: Mention, b: Mention, types: dict[str, str]) -> bool:
    first, second = {types[name] for name in a.names}, {types[name] for name in b.names}
    return bool(first & second) or any(first & kind and second & kind for kind in KINDS)
