"""Is one name a variety of another? "Retinitis pigmentosa 12" and "Retinitis pigmentosa 30" share a family.

Entries of a numbered series are told apart by their gene and hardly by their findings, and each is described from a few
patients: a question about one must not offer another as wrong. Molecules and chromosomes are no such series: HLA-B27
and HLA-B51, vitamin A and vitamin K, trisomy 18 and trisomy 21 share a word, and are what a question may be about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import numpy as np

from minifleming.rods.graph import Graph

TYPE = r"(?:type|subtype|form|grade|stage|class|group|variant|complementation group)"
MARK = r"(?:\d+[a-z]{0,2}\d*|[ivx]+[a-z]?|[a-z]\d*|alpha|beta|gamma|delta)"
TAIL = re.compile(rf"(?:[\s,-]+(?:{TYPE}\s+)?{MARK}|[\s,-]+{TYPE})$")
NO_SERIES = re.compile(r"(?:\b(?:vitamin|interferon|interleukin|complement|factor|protein|immunoglobulin|hemoglobin|"
                       r"trisomy|monosomy|chromosome)[\s-]+|"
                       rf"(?<!\w)(?!beta-)[a-z0-9]{{0,3}}[a-uw-z0-9]-){MARK}$")  # "hla-b27"; no virus: "hiv-1"
INHERITED = re.compile(r"\b(?:autosomal|x-linked|y-linked|mitochondrial|dominant|recessive|semidominant|familial|"
                       r"hereditary|congenital|isolated|sporadic|digenic|early-onset|late-onset|early|late|infantile|juvenile|"
                       r"adult|neonatal|severe|mild|classic|atypical)\b")


@cache
def family(name: str) -> str:
    """The name without its type, number, inheritance and everything after a comma, semicolon or bracket."""
    text = re.split(r"[,;(\[]", name.casefold())[0].strip() or name.casefold().strip()
    text = " ".join(INHERITED.sub(" ", text).split()) or text
    while not NO_SERIES.search(text) and (shorter := TAIL.sub("", text).strip(" ,-")) and shorter != text:
        text = shorter
    return re.sub(rf"^{TYPE} {MARK} ", "", text)


def same_family(a: str, b: str) -> bool:
    """True if the families are equal, or the words of one stand at the end or the start of the other."""
    first, second = sorted((family(a), family(b)), key=len)
    return first == second or (len(first) >= 8 and (second.startswith(first + " ") or second.endswith(" " + first)))


LITTLE = {"of", "with", "and", "or", "the", "in", "to", "by", "for", "a", "an", "disease", "type"}
NEGATES = {"no", "not", "without", "absent", "absence", "lack"}


@cache
def words(name: str) -> frozenset[str]:
    """The words that carry a name: no numbers, no little words, in any order."""
    return frozenset(re.findall(r"[^\W\d_]{2,}", name.casefold())) - LITTLE


def part_of(a: str, b: str) -> bool:
    """Does b say all that a says, and no "no"? "cough" is part of "chronic cough"."""
    return bool(words(a)) and words(a) <= words(b) and not NEGATES & (words(b) - words(a))


def overlap(a: str, b: str) -> bool:
    """Does one name say all that the other says? "Tufted angioma" and "Angioma, tufted"."""
    return part_of(a, b) or part_of(b, a)


class Implied:
    """The findings that say another by their name, whether or not the graph joins them by is_a."""

    def __init__(self, graph: Graph, relations: Iterable[str]):
        codes = [graph.code[relation] for relation in relations]
        found = np.unique(graph.table[np.isin(graph.table[:, 1], codes), 2]).tolist()
        self.names = graph.names
        self.having: dict[str, set[int]] = {}  # word -> findings
        for node in found:
            for word in words(graph.names[node]):
                self.having.setdefault(word, set()).add(node)

    def by(self, finding: str) -> list[int]:
        """The numbers of the findings whose names have every word of this one, ascending."""
        having = [self.having.get(word, set()) for word in words(finding)]
        together = set.intersection(*having) if having else set()
        return sorted(node for node in together if part_of(finding, self.names[node]))
