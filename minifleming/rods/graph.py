"""The knowledge graph: named nodes with a type, and triples (head, relation, tail).

    graph.tails("lupus", "has_symptom")                 ["fever", "malar rash", ...]
    ("lupus", "has_symptom", "fever") in graph          True
    graph.frequency("lupus", "has_symptom", "fever")    0.3, or None if the source gives none

Nodes and relations are numbered. The triples are one table, plus two compressed sparse row
indices, by head and by tail, so that all tails of (head, relation) and all heads of (tail,
relation) are one slice. bench/graph.py measures a graph of PrimeKG's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

IS_A = "is_a"


@dataclass(frozen=True)
class Adjacency:
    """Compressed sparse rows of (node, relation): row i holds ``other[start[i]:start[i + 1]]``."""

    key: np.ndarray  # int64 [rows], ascending: node * relations + relation
    start: np.ndarray  # int64 [rows + 1]
    other: np.ndarray  # int32 [edges], ascending within a row
    relations: int

    def bounds(self, node: int, relation: int) -> tuple[int, int]:
        """Returns where the row of this node and relation starts and ends in ``other``."""
        key = node * self.relations + relation
        row = int(self.key.searchsorted(key))
        if row == len(self.key) or self.key[row] != key:
            return 0, 0
        return int(self.start[row]), int(self.start[row + 1])

    def neighbors(self, node: int, relation: int) -> np.ndarray:
        """Returns the nodes across the node's edges of this relation, ascending."""
        first, last = self.bounds(node, relation)
        return self.other[first:last]

    def edges(self, node: int) -> list[tuple[int, np.ndarray]]:
        """Returns (relation, nodes across it) for every relation of the node, ascending."""
        low, high = self._rows(node)
        bounds = self.start[low : high + 1].tolist()
        found = []
        for row in range(low, high):
            ends = self.other[bounds[row - low] : bounds[row - low + 1]]
            found.append((int(self.key[row]) % self.relations, ends))
        return found

    def all_neighbors(self, node: int) -> np.ndarray:
        """Returns the nodes across all edges of the node."""
        low, high = self._rows(node)
        return self.other[self.start[low] : self.start[high]]

    def _rows(self, node: int) -> list[int]:
        return self.key.searchsorted([node * self.relations, (node + 1) * self.relations]).tolist()


class Graph:
    """Names, types and relations by number; edges by head (``out``) and by tail (``into``)."""

    def __init__(self, nodes: dict[str, str], triples: list[tuple[str, str, str]], source: str = "",
                 frequency: list[float] | None = None):
        """``nodes`` maps each name to its type. ``frequency`` is in [0, 1]; NaN for unknown.

        Of equal triples the first one counts.
        """
        relations = sorted({relation for _, relation, _ in triples})
        node_id = numbered(nodes)
        relation_id = numbered(relations)
        rows = [(node_id[h], relation_id[r], node_id[t]) for h, r, t in triples]
        table = np.array(rows, np.int32).reshape(-1, 3)
        known = None if frequency is None else np.array(frequency, np.float32)
        self._fill(list(nodes), list(nodes.values()), relations, table, source, known)

    @classmethod
    def from_table(cls, names: list[str], types: list[str], relations: list[str], table: np.ndarray,
                   source: str = "", frequency: np.ndarray | None = None) -> Graph:
        """Returns a graph from ids: ``table`` int32 [triples, 3] holds head, relation and tail.

        ``relations`` must be sorted. Of equal rows the first one counts.
        """
        graph = cls.__new__(cls)
        graph._fill(names, types, relations, table, source, frequency)
        return graph

    def _fill(self, names, types, relations, table, source, frequency) -> None:
        self.names, self.types, self.relations, self.source = names, types, relations, source
        key = _sort_key(*table.T, len(names), len(relations))
        _, first = np.unique(key, return_index=True)
        first.sort()
        self.table = table[first]  # [triples, 3], in the order of the source
        head, relation, tail = self.table.T
        self.out, order = _adjacency(head, relation, tail, len(names), len(relations))
        self.into, _ = _adjacency(tail, relation, head, len(names), len(relations))
        self.frequencies = None  # [triples], in the order of ``out``
        if frequency is not None:
            self.frequencies = frequency[first][order]

    @cached_property
    def node_id(self) -> dict[str, int]:
        return numbered(self.names)

    @cached_property
    def relation_id(self) -> dict[str, int]:
        return numbered(self.relations)

    @cached_property
    def triples(self) -> list[tuple[str, str, str]]:
        """All triples by name, in the order of the source. Slow for millions of triples."""
        names, relations = self.names, self.relations
        return [(names[h], relations[r], names[t]) for h, r, t in self.table.tolist()]

    @cached_property
    def type_ids(self) -> np.ndarray:
        """A number for each node's type. [nodes]"""
        types = np.array(self.types, dtype=object).astype(str)
        return np.unique(types, return_inverse=True)[1]

    def __len__(self) -> int:
        return len(self.table)

    def __contains__(self, triple: tuple[str, str, str]) -> bool:
        return self._position(*triple) is not None

    def frequency(self, head: str, relation: str, tail: str) -> float | None:
        """Returns the share of heads that show this tail, or None if it is unknown."""
        if self.frequencies is None:
            return None
        position = self._position(head, relation, tail)
        if position is None or np.isnan(self.frequencies[position]):
            return None
        return float(self.frequencies[position])

    def tails(self, head: str, relation: str) -> list[str]:
        return self._across(self.out, head, relation)

    def heads(self, tail: str, relation: str) -> list[str]:
        return self._across(self.into, tail, relation)

    def ends(self, relation: str, tails: bool) -> list[str]:
        """Returns the different tails, or else heads, of all edges of the relation, sorted."""
        edges = self.table[self.table[:, 1] == self.relation_id[relation]]
        ends = np.unique(edges[:, 2 if tails else 0])
        return sorted(map(self.names.__getitem__, ends))

    def degrees(self) -> np.ndarray:
        """Returns the number of edges of each node, in either direction. [nodes]"""
        size = len(self.names)
        as_head = np.bincount(self.table[:, 0], minlength=size)
        as_tail = np.bincount(self.table[:, 2], minlength=size)
        return as_head + as_tail

    def type_of(self, name: str) -> str:
        return self.types[self.node_id[name]]

    def descendants(self, node: int) -> list[int]:
        """Returns the node and everything below it by is_a, ascending."""
        if IS_A not in self.relation_id:
            return [node]
        relation = self.relation_id[IS_A]
        found = {node}
        pending = [node]
        while pending:
            for child in self.into.neighbors(pending.pop(), relation).tolist():
                if child not in found:
                    found.add(child)
                    pending.append(child)
        return sorted(found)

    def is_a_related(self, a: str, b: str) -> bool:
        """Returns whether one of the two is an ancestor of the other by is_a, or both are equal."""
        first, second = self.node_id[a], self.node_id[b]
        return first in self.descendants(second) or second in self.descendants(first)

    def connected(self, a: str, b: str) -> bool:
        """Returns whether an edge of any relation, in either direction, joins the two."""
        node, other = self.node_id[a], self.node_id[b]
        return other in self.out.all_neighbors(node) or other in self.into.all_neighbors(node)

    def _position(self, head: str, relation: str, tail: str) -> int | None:
        """Returns where the edge is in ``out.other``, or None if there is no such edge."""
        if head not in self.node_id or tail not in self.node_id or relation not in self.relation_id:
            return None
        first, last = self.out.bounds(self.node_id[head], self.relation_id[relation])
        position = first + int(self.out.other[first:last].searchsorted(self.node_id[tail]))
        if position == last or self.out.other[position] != self.node_id[tail]:
            return None
        return position

    def _across(self, side: Adjacency, name: str, relation: str) -> list[str]:
        if name not in self.node_id or relation not in self.relation_id:
            return []
        ends = side.neighbors(self.node_id[name], self.relation_id[relation])
        return list(map(self.names.__getitem__, ends))


def numbered(names) -> dict[str, int]:
    return {name: i for i, name in enumerate(names)}


def _sort_key(near: np.ndarray, relation: np.ndarray, far: np.ndarray, nodes: int,
              relations: int) -> np.ndarray:
    """Returns one integer per triple, in the order of (near, relation, far)."""
    return (near.astype(np.int64) * relations + relation) * nodes + far


def _adjacency(near: np.ndarray, relation: np.ndarray, far: np.ndarray, nodes: int,
               relations: int) -> tuple[Adjacency, np.ndarray]:
    """Returns the rows of all nodes, and the order of the triples in them."""
    key = _sort_key(near, relation, far, nodes, relations)
    order = np.argsort(key)
    rows = key[order] // nodes if nodes else key
    row, start = np.unique(rows, return_index=True)
    start = np.append(start, len(key)).astype(np.int64)
    return Adjacency(row, start, far[order].astype(np.int32), relations), order
