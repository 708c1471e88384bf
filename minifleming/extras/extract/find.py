"""Finds the triples of every sentence of the pages, and writes them with their provenance."""

from __future__ import annotations

from typing import NamedTuple

from minifleming.extras.extract.clauses import link
from minifleming.extras.extract.lexicon import Lexicon
from minifleming.extras.extract.pages import Page, Sentence
from minifleming.extras.extract.relations import PatternRelator
from minifleming.rods.item import Triple
from minifleming.rods.triples import COLUMNS


class Extracted(NamedTuple):
    triple: Triple
    sentence: Sentence


def extract(pages: list[Page], names: Lexicon, relator: PatternRelator) -> list[Extracted]:
    """Returns the triples of all pages, in the order of the pages' names."""
    found = []
    for page in sorted(pages):
        for sentence, mentions in zip(page.sentences, link(names, page)):
            for triple in relator.relate(sentence, mentions):
                found.append(Extracted(triple, sentence))
    return found


def table(found: list[Extracted], types: dict[str, str]) -> str:
    """Returns the triples as TSV. The source is the page's name."""
    rows = [(*COLUMNS, "source", "sentence", "how")]
    for (head, relation, tail), sentence in found:
        triple = (head, types[head], relation, tail, types[tail])
        rows.append((*triple, sentence.page, sentence.text, "pattern"))
    return "".join("\t".join(row) + "\n" for row in rows)
