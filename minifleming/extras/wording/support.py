"""Drops items with a distractor that another graph supports (data.support_graphs).

    item          What is the first-line treatment of this disease?
                  A hydroxychloroquine   B methotrexate
    other graph   methotrexate treats lupus: B is supported, so the item is dropped and counted

The graph of the items is incomplete. A distractor is *supported* if another graph has an edge, in
either direction, between it and the other end of its discriminating triple (or a descendant of
that end), unless the relation denies ("lacks_phenotype"). Names are compared without case and
punctuation.
"""

from __future__ import annotations

import re
from collections import Counter

from minifleming.rods.graph import Graph
from minifleming.rods.item import Item, Triple

DENIALS = ("lacks_", "does_not_")


class Support:
    """Looks up the distractors of items in other graphs, and counts the items that it rejects."""

    def __init__(self, graphs: list[Graph]):
        self.counts: Counter[str] = Counter()  # reason -> items
        self.graphs = []
        # sorted: the counts must not depend on the order of the graphs
        for graph in sorted(graphs, key=lambda graph: graph.source):
            self.graphs.append((graph, nodes_by_plain_name(graph)))

    def __call__(self, item: Item) -> str:
        """Returns why the item is rejected, "supported by hpo 2025-01-16", or ''."""
        for label, triple in item.discriminating.items():
            for graph, nodes in self.graphs:
                if is_supported(in_place(item, label, triple), graph, nodes):
                    reason = f"supported by {graph.source}"
                    self.counts[reason] += 1
                    return reason
        return ""


def in_place(item: Item, label: str, triple: Triple) -> tuple[str, str]:
    """Returns the two ends of the triple, with the distractor in place of the answer."""
    replace = dict(zip(item.nodes(item.answer), item.nodes(label)))
    head, _, tail = triple
    return replace.get(head, head), replace.get(tail, tail)


def is_supported(ends: tuple[str, str], graph: Graph, nodes: dict[str, list[int]]) -> bool:
    """Returns whether an edge that does not deny joins the first end to the second.

    A descendant of the second end counts as the second end.
    """
    heads, tails = (nodes.get(plain(name), []) for name in ends)
    if not heads:
        return False
    below: set[int] = set()
    for tail in tails:
        below.update(graph.descendants(tail))
    for head in heads:
        for relation, others in (*graph.out.edges(head), *graph.into.edges(head)):
            denies = graph.relations[relation].startswith(DENIALS)
            if not denies and not below.isdisjoint(others.tolist()):
                return True
    return False


def nodes_by_plain_name(graph: Graph) -> dict[str, list[int]]:
    nodes: dict[str, list[int]] = {}
    for node, name in enumerate(graph.names):
        nodes.setdefault(plain(name), []).append(node)
    return nodes


def plain(name: str) -> str:
    """Returns the name without case, punctuation and the type in brackets of ambiguous names."""
    name = re.sub(r" \(\w+\)$", "", name)
    return " ".join(re.findall(r"\w+", name.casefold()))
