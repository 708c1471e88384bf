"""Every relator on every sentence of the pages: triples with their page and sentence, and the prompts for a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from minifleming.extras.extract.clauses import link
from minifleming.extras.extract.lexicon import Lexicon, Mention
from minifleming.extras.extract.pages import Page, Sentence
from minifleming.rods.item import Triple
from minifleming.rods.triples import COLUMNS


class Relator(Protocol):
    how: str  # what the output's last column says
    counts: Counter[str]  # refused candidates by reason

    def relate(self, sentence: Sentence, entities: list[Mention]) -> list[Triple]:
        """The triples that the sentence states of the entities linked in it, none twice."""


class Extracted(NamedTuple):
    triple: Triple
    sentence: Sentence
    how: str


def linked(pages: list[Page], names: Lexicon) -> Iterator[tuple[Sentence, list[Mention]]]:
    for page in pages:
        yield from zip(page.sentences, link(names, page))


def extract(pages: list[Page], names: Lexicon, relators: list[Relator]) -> list[Extracted]:
    """Every relator on every sentence, pages in the order of their names."""
    return [Extracted(triple, sentence, relator.how)
            for sentence, entities in linked(sorted(pages), names) for relator in relators
            for triple in relator.relate(sentence, entities)]


def table(found: list[Extracted], types: dict[str, str]) -> str:
    """The TSV. The source is the page's name."""
    rows = [(*COLUMNS, "source", "sentence", "how")]
    for (head, relation, tail), sentence, how in found:
        rows.append((head, types[head], relation, tail, types[tail], sentence.page, sentence.text, how))
    return "".join("\t".join(row) + "\n" for row in rows)


def prompted(pages: list[Page], names: Lexicon) -> list[tuple[Sentence, list[str]]]:
    """Sentences that tell at least two nodes, and these nodes in the order of the sentence."""
    found = []
    for sentence, entities in linked(sorted(pages), names):
        told = list(dict.fromkeys(name for m in entities if m.end > m.start for name in m.names))
        if len(told) > 1:
            found.append((sentence, told))
    return found


def prompt(sentence: Sentence, told: list[str], types: dict[str, str], signature: dict) -> str:
    """One line, with "\\n" for a line break as generate.py reads it. A backslash of the sentence becomes a slash."""
    kinds = {types[name] for name in told}
    relations = [r for r in sorted(signature) if any(h in kinds and t in kinds for h, t in signature[r])]
    lines = [f"Sentence: {sentence.text}", "Entities: " + "; ".join(f"{name} ({types[name]})" for name in told),
             "Relations: " + ", ".join(relations),
             "Write every triple that the sentence states, one a line, as: head | relation | tail",
             "Use only these entities and relations. Write nothing that the sentence denies. If there is none: none"]
    return "\\n".join(line.replace("\\", "/") for line in lines)
