"""Variants of a node, which a question must neither offer as wrong nor name: the field data.exclude_variants.

Two nodes are variants if their names share a family or their words, or if the diseases share a
gene. "Stormorken syndrome" and "Stormorken-Sjaastad-Langslet syndrome" have one gene. So do some
different diseases; these are not offered either, since the answer must not depend on how a
catalogue splits them.
"""

from __future__ import annotations

import re

from minifleming.rods.distractors import DistractorSearch
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.rods.walk import Walk

from .similar_names import overlap, same_family

GENE_RELATIONS = ("associated_gene", "associated_with_gene", "has_gene")


class VariantSearch(DistractorSearch):
    """A search for distractors that excludes variants of the answer."""

    def too_similar(self, candidate: str, node: str) -> bool:
        return super().too_similar(candidate, node) or are_variants(self.graph, candidate, node)


def are_variants(graph: Graph, a: str, b: str) -> bool:
    """Returns whether the two have similar names or a gene in common."""
    return same_family(a, b) or overlap(a, b) or share_gene(graph, a, b)


def share_gene(graph: Graph, a: str, b: str) -> bool:
    for relation in GENE_RELATIONS:
        if not set(graph.tails(a, relation)).isdisjoint(graph.tails(b, relation)):
            return True
    return False


def revisits_variant(walk: Walk, graph: Graph) -> bool:
    """Returns whether the chain returns to a variant of a node that it has left."""
    names = [walk.root, *(step.end for step in walk.chain)]
    for i, name in enumerate(names):
        for later in names[i + 1 :]:
            if graph.type_of(name) == graph.type_of(later) and (
                    same_family(name, later) or overlap(name, later) or graph.is_a_related(name, later)):
                return True
    return False


def masked_names(item: Item) -> list[str]:
    return [*item.nodes(item.answer), *item.provenance["hidden"]]


def names_masked_node(item: Item) -> bool:
    """Returns whether the question has a masked name as separate words, or anywhere in Chinese."""
    surface_forms = item.provenance.get("told", {})
    for name in masked_names(item):
        if name in surface_forms:
            found = surface_forms[name] in item.question
        else:
            found = has_words(item.question, name)
        if found:
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
