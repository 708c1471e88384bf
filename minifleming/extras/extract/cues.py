"""Decides which relation a clause states of a pair: the types allow it, and a cue word says it.

    Disease, Drug + "mainstay"        ->  first_line_treatment  "Allopurinol remains the mainstay."
    Disease, Drug + "contraindicated" ->  contraindicated_in    "Aspirin is contraindicated in gout."

Cues and their order of precedence are in english.toml. A pair of types with a single meaning (a
drug and a drug action) needs no cue. For a relation without cues the words of phrases.py count.
"""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from pathlib import Path

from minifleming.rods.graph import Graph
from minifleming.rods.phrases import phrase

Signature = dict[str, set[tuple[str, str]]]  # relation -> the pairs (head type, tail type) it joins

ENGLISH = tomllib.loads((Path(__file__).parent / "english.toml").read_text(encoding="utf-8"))
TREATMENT = ("first_line_treatment", "other_treatment")
SELF_EVIDENT = {"drug_mechanism", "acts_on", "encodes"}  # the types alone determine the relation


def compile_pattern(text: str) -> re.Pattern:
    """Returns the regular expression of an entry of english.toml."""
    text = text.replace("<verb>", ENGLISH["patterns"]["verb"])
    text = text.replace("<modal>", ENGLISH["patterns"]["modal"])
    return re.compile(text.replace("\n", ""), re.IGNORECASE)


def pattern(name: str) -> re.Pattern:
    return compile_pattern(ENGLISH["patterns"][name])


def cue_pattern(words: str) -> re.Pattern:
    parts = []
    for word in words.split():
        text = word.replace("&", r" (?:\w+ )?").replace(".", r"\b")
        if len(word) < 4:
            text += r"(?:s|es|ed|ing)?\b"
        parts.append(text)
    return re.compile(rf"\b(?:{'|'.join(parts)})", re.IGNORECASE)


CUES: dict[str, re.Pattern] = {}  # relation -> its cues, in order of precedence
for row in ENGLISH["cues"]:
    CUES |= dict.fromkeys(row["relations"], cue_pattern(row["words"]))
ORDER = list(CUES)
ADVERSE = pattern("adverse")


def signatures(graph: Graph) -> Signature:
    """Returns the pairs of types that each relation of a graph joins."""
    found: Signature = {}
    for head, relation, tail in graph.triples:
        found.setdefault(relation, set()).add((graph.type_of(head), graph.type_of(tail)))
    return found


@lru_cache(maxsize=4096)
def has_cue(relation: str, text: str) -> bool:
    if relation in SELF_EVIDENT:
        return True
    if relation in CUES:
        return CUES[relation].search(text) is not None
    words = phrase(relation)
    return words.verb in text.lower() or words.link in text.lower()


def precedence(relation: str) -> int:
    """Returns the place in the order of precedence; relations without cues come last."""
    return ORDER.index(relation) if relation in CUES else len(ORDER)


def states(relation: str, pair: tuple[str, str], text: str, signature: Signature) -> bool:
    """Says whether the text states the relation of two nodes with these types."""
    if pair not in signature[relation] or not has_cue(relation, text):
        return False
    # "Colchicine for gout may cause nausea": a disease as an effect needs a word of its own
    disease_as_effect = relation == "adverse_effect" and pair == ("Drug", "Disease")
    return not disease_as_effect or ADVERSE.search(text) is not None


def relation_of(a: str, b: str, text: str, signature: Signature) -> tuple[str, bool] | None:
    """Returns the relation of two types that the text states, and whether ``a`` is its head."""
    best = None
    for relation in signature:
        for pair, forward in (((a, b), True), ((b, a), False)):
            if best and precedence(relation) >= precedence(best[0]):
                continue
            if states(relation, pair, text, signature):
                best = (relation, forward)
    return best
