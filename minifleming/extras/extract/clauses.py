"""Links names and pronouns of a page, and finds the clauses and negated spans of a sentence.

    "It does not cause fever but presents with a rash."      on the page "Gout"
     ^ gout   ~~~~~~~~~~~~~~                                 ~ negated: no triple may touch it

A negated span starts at a word such as "not", "without" or "unlike" and ends where the clause ends
("but", a new verb after "and"; for "unlike", the comma). Questions, hypotheses and denials of a
whole statement are skipped. In doubt a span counts as negated: a missed triple costs less than a
false one.
"""

from __future__ import annotations

import re

from minifleming.extras.extract.cues import ENGLISH, compile_pattern, pattern
from minifleming.extras.extract.lexicon import Lexicon, Mention
from minifleming.extras.extract.pages import Page

Span = tuple[int, int]
LONGEST = 2000  # characters; a longer "sentence" is not prose
ACTORS = ("Disease", "Drug", "Pathogen", "Gene")  # a later "it" may refer to one of these

UNRESOLVED, PERSONS_WITH = pattern("unresolved"), pattern("persons_with")
TITLE_NOUNS = {kind: compile_pattern(text) for kind, text in ENGLISH["title_nouns"].items()}
ASSUMED, DENIAL, CONTRAST = pattern("assumed"), pattern("denial"), pattern("contrast")
TURN, RESUMED = pattern("turn"), pattern("resumed")
VERB = ENGLISH["patterns"]["verb"].replace("\n", "")
STARTS_WITH_VERB, HAS_VERB = re.compile(rf"\s*{VERB}"), re.compile(rf"\b{VERB}")
AND = re.compile(r", (?:and|while) ", re.IGNORECASE)  # before a name and its verb


def link(lexicon: Lexicon, page: Page) -> list[list[Mention]]:
    """Returns the mentions of every sentence of a page, from left to right.

    Names and the page's own abbreviations are linked; "the disease" and "patients" refer to the
    title's entity. A sentence that names nothing else of the title's type gets an empty mention of
    the title at its start: "Symptoms include fever.", "It presents with fever."
    """
    texts = [sentence.text for sentence in page.sentences]
    abbreviations = lexicon.abbreviations([page.title, *texts])
    title = title_entity(lexicon, page.title)
    topic = title  # what "it" at the start of the next sentence refers to
    linked = []
    for text in texts:
        mentions = lexicon.find(text, abbreviations)
        if title and len(text) <= LONGEST:
            mentions = add_title(text, mentions, title, lexicon.types, topic)
        actors = [m.name for m in mentions if not m.implied and lexicon.types[m.name] in ACTORS]
        topic = title if not actors or actors[0] == title else None
        linked.append(mentions)
    return linked


def title_entity(lexicon: Lexicon, title: str) -> str | None:
    """Returns the node that the title names, if it names nothing else outside brackets."""
    mentions = lexicon.find(title)
    if not mentions:
        return None
    first = mentions[0]
    rest = re.sub(r"\([^)]*\)", "", title[: first.start] + title[first.end :])
    return None if re.search(r"\w", rest) else first.name


def add_title(text: str, named: list[Mention], title: str, types: dict[str, str],
              topic: str | None) -> list[Mention]:
    """Adds the words that refer to the title, and an empty mention if the sentence is about it."""
    kind = types[title]
    taken = spans_of(named)
    found = []
    for match in TITLE_NOUNS[kind].finditer(text) if kind in TITLE_NOUNS else ():
        if not touches(taken, *match.span()):
            found.append(Mention(*match.span(), title))
    rivals = any(types[m.name] == kind and m.name != title for m in named)
    first = UNRESOLVED.match(text)
    unresolved = first and not topic and not (found and found[0].start == first.start(1))
    if not rivals and not unresolved and not (kind == "Disease" and other_persons(text, named)):
        found.append(Mention(0, 0, title))
    return sorted([*named, *found], key=lambda m: (m.start, m.end))


def other_persons(text: str, named: list[Mention]) -> bool:
    """Says whether the persons have something else than the title: "patients with malaise"."""
    starts = {m.start for m in named}
    return any(match.end() in starts for match in PERSONS_WITH.finditer(text))


def negated_spans(text: str, mentions: list[Mention]) -> list[Span]:
    """Returns the parts that a sentence negates, in order. Words inside a name do not negate."""
    names = spans_of(mentions)
    found: list[Span] = []
    for cue in DENIAL.finditer(text):
        inside = any(start <= cue.start() < end for start, end in names)
        if inside or (found and cue.start() < found[-1][1]):
            continue
        turn = TURN.search(text, cue.end())
        end = turn.start() if turn else len(text)
        if CONTRAST.match(cue[0]) and "," in text[cue.end() : end]:
            end = text.index(",", cue.end())
        found.append((cue.start(), end))
    return found


def clause_spans(text: str, named: list[Mention]) -> list[tuple[int, int, bool]]:
    """Returns start and end of each clause and whether it has a verb. No cut is inside a name."""
    names = spans_of(named)
    cuts = {match.start() for match in TURN.finditer(text)}
    cuts.update(match.start() for match in RESUMED.finditer(text))
    for mention in named:  # "..., and rash is a sign of leprosy"
        joint = AND.search(text, max(0, mention.start - 30), mention.start)
        if joint and STARTS_WITH_VERB.match(text[mention.end : mention.end + 20]):
            start = max((cut for cut in cuts if cut < joint.start()), default=0)
            if HAS_VERB.search(text[start : joint.start()]):
                cuts.add(joint.start())
    inner = [cut for cut in sorted(cuts) if cut and not touches(names, cut, cut + 1)]
    spans = zip([0, *inner], [*inner, len(text)])
    return [(start, end, HAS_VERB.search(text[start:end]) is not None) for start, end in spans]


def spans_of(mentions: list[Mention]) -> list[Span]:
    return [(m.start, m.end) for m in mentions if not m.implied]


def touches(spans: list[Span], start: int, end: int) -> bool:
    return any(low < end and start < high for low, high in spans)
