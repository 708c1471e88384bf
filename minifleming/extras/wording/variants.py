"""Variants of a node, which a question must neither offer as wrong nor name: data.exclude_variants.

Two nodes are variants if their names share a family or their words, or if the diseases share a
gene. "Stormorken syndrome" and "Stormorken-Sjaastad-Langslet syndrome" have one gene. So do some
different diseases; these are not offered either, since the answer must not depend on how a
catalogue splits them.

"Retinitis pigmentosa 12" and "Retinitis pigmentosa 30" share a family. Entries of a numbered series
differ in their gene and hardly in their findings, and each is described from a few patients.
Molecules and chromosomes are no such series: HLA-B27 and HLA-B51, vitamin A and vitamin K, or
trisomy 18 and trisomy 21 may be told apart in a question.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from functools import cache

import numpy as np

from minifleming.rods.distractors import DistractorSearch
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.rods.walk import Walk

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
FUNCTION_WORDS = set("of with and or the in to by for a an disease type".split())
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


GENE_RELATIONS = ("associated_gene", "associated_with_gene", "has_gene")


class VariantSearch(DistractorSearch):
    """A search for distractors that excludes variants of the answer."""

    def too_similar(self, candidate: str, node: str) -> bool:
        return super().too_similar(candidate, node) or are_variants(self.graph, candidate, node)


def similar_names(a: str, b: str) -> bool:
    return same_family(a, b) or overlap(a, b)


def are_variants(graph: Graph, a: str, b: str) -> bool:
    """Returns whether the two have similar names or a gene in common."""
    if similar_names(a, b):
        return True
    for relation in GENE_RELATIONS:
        if not set(graph.tails(a, relation)).isdisjoint(graph.tails(b, relation)):
            return True
    return False


def revisits_variant(walk: Walk, graph: Graph) -> bool:
    """Returns whether the chain returns to a variant of a node that it has left."""
    names = [walk.root, *(step.end for step in walk.chain)]
    for name, later in itertools.combinations(names, 2):
        related = similar_names(name, later) or graph.is_a_related(name, later)
        if related and graph.type_of(name) == graph.type_of(later):
            return True
    return False


def masked_names(item: Item) -> list[str]:
    return [*item.nodes(item.answer), *item.provenance["hidden"]]


def names_masked_node(item: Item) -> bool:
    """Returns whether the question has a masked name as separate words, or anywhere in Chinese."""
    surface_forms = item.provenance.get("told", {})
    for name in masked_names(item):
        if name in surface_forms and surface_forms[name] in item.question:
            return True
        if name not in surface_forms and has_words(item.question, name):
            return True
    return False


def leaks_masked_name(item: Item) -> bool:
    """Returns whether the question or a finding gives away all or part of a masked name.

    For example the finding "Ataxia" for "Ataxia, type 2", or "Tufted angioma" for "Angioma,
    tufted". Findings count by their names in the graph, since the question may be in another
    language.
    """
    qualifiers = item.provenance.get("pins", [])
    evidence = [tail.casefold() for _, _, tail in item.evidence]
    findings = evidence + [tail.casefold() for _, _, tail in (*item.absent, *qualifiers)]
    text = "\n".join([item.question.casefold(), *evidence])
    for name in masked_names(item):
        name = name.casefold()
        if has_words(text, name) or any(finding in name for finding in evidence):
            return True
        if any(overlap(name, finding) for finding in findings):
            return True
    return False


def has_words(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None
