"""Is a distractor right after all? The graph is incomplete, so every graph given with ``--support-graph`` is asked as well.

    item      ... What is the first-line treatment of this disease?   A hydroxychloroquine   B methotrexate
    also      methotrexate treats lupus                               B is supported: the item is dropped and counted

A distractor is *supported* where another graph has an edge, in either direction, between it and the other end of its
discriminating triple (or something more special), unless the edge says that there is none ("lacks_phenotype"). Names
are compared without case and punctuation.
"""

from __future__ import annotations

import re

from minifleming.rods.graph import Graph
from minifleming.rods.item import Item

DENIES = ("lacks_", "does_not_")


class Support:
    """The other graphs, and what they say of an item's distractors."""

    def __init__(self, graphs: list[Graph]):
        graphs = sorted(graphs, key=lambda graph: graph.source)  # their order must not change what is counted
        self.graphs = [(graph, by_plain_name(graph)) for graph in graphs]

    def __call__(self, item: Item) -> str:
        """Why the item must go ("supported by hpo 2025-01-16"), or ''."""
        asked = item.nodes(item.answer)
        for label, triple in item.discriminating.items():
            place = dict(zip(asked, item.nodes(label)))
            ends = [place.get(name, name) for name in (triple[0], triple[2])]
            for graph, known in self.graphs:
                if joined(graph, known.get(plain(ends[0]), []), known.get(plain(ends[1]), [])):
                    return f"supported by {graph.source}"
        return ""


def joined(graph: Graph, heads: list[int], tails: list[int]) -> bool:
    """Is there an edge that does not deny, in either direction, between a head and a tail or a more special one?"""
    below = {n for tail in tails for n in graph.below(tail)} if heads else set()
    return any(not below.isdisjoint(ends.tolist())
               for head in heads for rows in (graph.out, graph.into) for relation, ends in rows.of_node(head)
               if not graph.relations[relation].startswith(DENIES))


def by_plain_name(graph: Graph) -> dict[str, list[int]]:
    known: dict[str, list[int]] = {}
    for number, name in enumerate(graph.names):
        known.setdefault(plain(name), []).append(number)
    return known


def plain(name: str) -> str:
    """Without case and punctuation, and without the type in brackets that tells nodes of one name apart."""
    name = re.sub(r" \(\w+\)$", "", name)
    return " ".join(re.findall(r"\w+", name.casefold()))
