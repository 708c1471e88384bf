"""Conjunctive queries over the triples of a graph, for the checker of proofs.

A query is a list of triples in which some names are variables: (x, has_symptom, fever), (x,
treated_by, y). ``solve`` joins one triple after the other, over two sorted arrays that share no
code with graph.py.

A finding matches itself and all its is_a descendants. Between variables, relations with equal
wording in a question (phrases.py) are one.
"""

from __future__ import annotations

import itertools

import numpy as np

from minifleming.rods.graph import IS_A, Graph
from minifleming.rods.item import Triple
from minifleming.rods.phrases import phrase

Binding = dict[str, str]  # variable -> node
Table = tuple[np.ndarray, np.ndarray]  # keys of (node, relation), ascending, and the far nodes


class Disconnected(ValueError):
    """The triples of a query share no name."""


class Facts:
    """Look-ups in the triples of a graph, by name, in two sorted arrays of (node, relation)."""

    def __init__(self, graph: Graph):
        self.names, self.size = graph.names, len(graph)
        self.node_id, self.relation_id = graph.node_id, graph.relation_id
        self.types = dict(zip(graph.names, graph.types))
        head, relation, tail = graph.table.T.astype(np.int64)
        self._by_head = self._sorted(head, relation, tail)
        self._by_tail = self._sorted(tail, relation, head)
        self._equal_wording: dict[tuple[str, bool], list[tuple[str, bool]]] = {}

    def _sorted(self, near: np.ndarray, relation: np.ndarray, far: np.ndarray) -> Table:
        key = near * len(self.relation_id) + relation
        order = np.argsort(key, kind="stable")
        return key[order], far[order].astype(np.int32)

    def _find(self, table: Table, near: str, relation: str) -> set[str]:
        if near not in self.node_id or relation not in self.relation_id:
            return set()
        key = self.node_id[near] * len(self.relation_id) + self.relation_id[relation]
        low, high = np.searchsorted(table[0], [key, key + 1])
        return {self.names[i] for i in table[1][low:high]}

    def tails(self, head: str, relation: str) -> set[str]:
        return self._find(self._by_head, head, relation)

    def heads(self, tail: str, relation: str) -> set[str]:
        return self._find(self._by_tail, tail, relation)

    def descendants(self, name: str) -> set[str]:
        """Returns the name and everything below it by is_a."""
        found = {name}
        pending = [name]
        while pending:
            children = self.heads(pending.pop(), IS_A) - found
            found |= children
            pending += children
        return found

    def across(self, near: str, relation: str, forward: bool) -> set[str]:
        """Returns the far ends of the edges of any relation of equal wording."""
        found = set()
        for other, way in self.equal_wording(relation, forward):
            found |= self.tails(near, other) if way else self.heads(near, other)
        return found

    def equal_wording(self, relation: str, forward: bool) -> list[tuple[str, bool]]:
        key = (relation, forward)
        if key not in self._equal_wording:
            link = phrase(relation, forward).link
            edges = itertools.product(self.relation_id, (True, False))
            self._equal_wording[key] = [edge for edge in edges if phrase(*edge).link == link]
        return self._equal_wording[key]

    def is_edge(self, triple: Triple) -> bool:
        head, relation, tail = triple
        return tail in self.tails(head, relation)

    def holds(self, triple: Triple) -> bool:
        """Returns whether the triple is an edge, or follows from one by is_a."""
        head, relation, tail = triple
        return not self.tails(head, relation).isdisjoint(self.descendants(tail))

    def nodes_with(self, relation: str, finding: str) -> set[str]:
        """Returns the heads of the relation to the finding or to one of its descendants."""
        nodes = set()
        for name in self.descendants(finding):
            nodes |= self.heads(name, relation)
        return nodes

    def are_related(self, a: str, b: str) -> bool:
        return a in self.descendants(b) or b in self.descendants(a)


def solve(query: list[Triple], variables: set[str], wanted: tuple[str, ...],
          facts: Facts) -> set[tuple[str, ...]]:
    """Returns the values of ``wanted`` in all solutions of the query.

    The names in ``variables`` stand for any node. Raises Disconnected if triples share no name.
    """
    rows: list[Binding] = [{}]
    pending = list(query)
    bound: set[str] = set()
    while pending:
        free = variables - bound
        triple = min(pending, key=lambda triple: (triple[0] in free) + (triple[2] in free))
        pending.remove(triple)
        head, relation, tail = triple
        if head in free and tail in free:
            raise Disconnected
        if head not in variables and tail not in variables:
            rows = rows if facts.holds(triple) else []
        elif tail not in variables:
            rows = bind(rows, head, facts.nodes_with(relation, tail))
        elif head not in variables or head in bound:
            rows = walk(rows, head, relation, tail, True, facts)
        else:
            rows = walk(rows, tail, relation, head, False, facts)
        bound |= {head, tail} & variables
    rows = [row for row in rows if row.keys() >= set(wanted)]
    return {tuple(map(row.get, wanted)) for row in rows}


def walk(rows: list[Binding], near: str, relation: str, far: str, forward: bool,
         facts: Facts) -> list[Binding]:
    """Returns the rows with an edge from ``near``, a bound variable or a name, to ``far``."""
    found = []
    for row in rows:
        found += bind([row], far, facts.across(row.get(near, near), relation, forward))
    return found


def bind(rows: list[Binding], name: str, values: set[str]) -> list[Binding]:
    """Returns the rows in which ``name`` has one of the values; a row without it once per value."""
    found = []
    for row in rows:
        if name not in row:
            found += [row | {name: value} for value in values]
        elif row[name] in values:
            found.append(row)
    return found
