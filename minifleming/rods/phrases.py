"""How a relation is worded: as a statement, as a link in a question, as a whole question.

The table is `assets/phrases.tsv`, one row per relation and direction. Three users share it:
questions (question.py), reasoning traces (cold_start/oracle.py) and the reader of stated hops
(reasoning.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).parents[1] / "assets" / "phrases.tsv"
NUM_EMBEDDED = 18  # the first relations are the embedded graph's; the tiny tokenizer knows them


class Phrase(NamedTuple):
    """How an edge is worded when it is read from one end (NEAR) to the other (FAR)."""

    verb: str  # "NEAR verb FAR"
    link: str  # "the LINK of NEAR" is FAR
    noun: str = ""  # FAR around NEAR: "disease first treated with {of}"
    questions: tuple[str, ...] = ()  # whole questions that ask for FAR, around "{of}"
    zh: str = ""  # the link in a Chinese question


def _read_table() -> dict[str, tuple[Phrase, Phrase]]:
    """Returns relation -> (phrase from its head, phrase from its tail)."""
    phrases = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines()[1:]:
        relation, direction, verb, link, noun, questions, zh = line.split("\t")
        alternatives = tuple(questions.split(" | ")) if questions else ()
        phrases[relation, direction] = Phrase(verb, link, noun, alternatives, zh)
    return {relation: (phrases[relation, "forward"], phrases[relation, "backward"])
            for relation, direction in phrases if direction == "forward"}


PHRASES = _read_table()
EMBEDDED_RELATIONS = tuple(PHRASES)[:NUM_EMBEDDED]


def phrase(relation: str, forward: bool = True) -> Phrase:
    """Returns the wording of an edge, read from its head if ``forward``, else from its tail.

    A relation that the table lacks is worded by its name.
    """
    if relation in PHRASES:
        return PHRASES[relation][0 if forward else 1]
    plain = relation.replace("_", " ")
    if forward:
        return Phrase(plain, f"'{plain}' partner")
    return Phrase(f"is {plain} of", f"reverse '{plain}' partner")


def statement(head: str, relation: str, tail: str, forward: bool = True) -> str:
    """Returns one edge as a clause that starts at its head if ``forward``, else at its tail."""
    near, far = (head, tail) if forward else (tail, head)
    return f"{near} {phrase(relation, forward).verb} {far}"


def listing(names: list[str]) -> str:
    """Returns "a", "a and b" or "a , b and c". Spaces around the comma keep each name one token."""
    if len(names) == 1:
        return names[0]
    return " , ".join(names[:-1]) + " and " + names[-1]


def asks_for(question: str, relation: str, forward: bool) -> bool:
    """Returns whether the question uses the relation, in this direction, in any of its wordings."""
    words = phrase(relation, forward)
    if words.zh and words.zh in question:
        return True
    noun = words.noun.replace(" ", "{of}", 1)  # a qualifier may follow the first word
    text = question.casefold()
    for wording in (words.link, noun, *words.questions):
        parts = [part.strip(" ?").casefold() for part in wording.split("{of}")]
        if wording and all(part in text for part in parts):
            return True
    return False
