"""Similarity of names: "Retinitis pigmentosa 12" and "Retinitis pigmentosa 30" share a family.

Entries of a numbered series differ in their gene and hardly in their findings, and each is
described from a few patients, so a question about one must not offer another as a wrong option.
Molecules and chromosomes are no such series: HLA-B27 and HLA-B51, vitamin A and vitamin K, or
trisomy 18 and trisomy 21 may be told apart in a question.
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
NO_SERIES = re.compile(  # "hla-b27", but no virus: "hiv-1"
    r"(?:\b(?:vitamin|interferon|interleukin|complement|factor|protein|immunoglobulin|hemoglobin|"
    r"trisomy|monosomy|chromosome)[\s-]+|"
    rf"(?<!\w)(?!beta-)[a-z0-9]{{0,3}}[a-uw-z0-9]-){MARK}$")
INHERITED = re.compile(
    r"\b(?:autosomal|x-linked|y-linked|mitochondrial|dominant|recessive|semidominant|familial|"
    r"hereditary|congenital|isolated|sporadic|digenic|early-onset|late-onset|early|late|infantile|"
    r"juvenile|adult|neonatal|severe|mild|classic|atypical)\b")
SHORTEST_STEM = 8  # characters of a family that another family may extend
FUNCTION_WORDS = {"of", "with", "and", "or", "the", "in", "to", "by", "for", "a", "an", "disease", "type"}
NEGATIONS = {"no", "not", "without", "absent", "absence", "lack"}


@cache
def family(name: str) -> str:
    """Returns the name without type, number, inheritance and what follows a comma or bracket."""
    name = name.casefold()
    text = re.split(r"[,;(\[]", name)[0].strip() or name.strip()
    text = " ".join(INHERITED.sub(" ", text).split()) or text
    while not NO_SERIES.search(text):
        shorter = TAIL.sub("", text).strip(" ,-")
        if not shorter or shorter == text:
            break
        text = shorter
    return re.sub(rf"^{TYPE} {MARK} ", "", text)


def same_family(a: str, b: str) -> bool:
    """Returns whether the families are equal, or one starts or ends with the words of the other."""
    short, long = sorted((family(a), family(b)), key=len)
    if short == long:
        return True
    extends = long.startswith(short + " ") or long.endswith(" " + short)
    return len(short) >= SHORTEST_STEM and extends


@cache
def content_words(name: str) -> frozenset[str]:
    """Returns the words of a name, without numbers and function words."""
    return frozenset(re.findall(r"[^\W\d_]{2,}", name.casefold())) - FUNCTION_WORDS


def part_of(a: str, b: str) -> bool:
    """Returns whether ``b`` implies ``a`` by its words: "chronic cough" implies "cough"."""
    first, second = content_words(a), content_words(b)
    return bool(first) and first <= second and not NEGATIONS & (second - first)


def overlap(a: str, b: str) -> bool:
    """Returns whether one name implies the other: "Tufted angioma" and "Angioma, tufted"."""
    return part_of(a, b) or part_of(b, a)


class ImpliedFindings:
    """Findings that imply another one by their name, whether or not the graph has the is_a edge."""

    def __init__(self, graph: Graph, relations: Iterable[str]):
        relation_ids = [graph.relation_id[relation] for relation in relations]
        rows = graph.table[np.isin(graph.table[:, 1], relation_ids)]
        self.names = graph.names
        self.with_word: dict[str, set[int]] = {}
        for node in np.unique(rows[:, 2]).tolist():
            for word in content_words(graph.names[node]):
                self.with_word.setdefault(word, set()).add(node)

    def by(self, finding: str) -> list[int]:
        """Returns the ids of the findings whose names have every word of this one, ascending."""
        with_words = [self.with_word.get(word, set()) for word in content_words(finding)]
        if not with_words:
            return []
        nodes = set.intersection(*with_words)
        return sorted(node for node in nodes if part_of(finding, self.names[node]))
