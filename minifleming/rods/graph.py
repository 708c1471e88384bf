"""The knowledge graph: named nodes with a type, and triples (head, relation, tail).

    graph.tails("lupus", "has_symptom")           ["fever", "malar rash", ...]
    ("lupus", "has_symptom", "fever") in graph    True
    graph.frequency("lupus", "has_symptom", "fever")    0.3, or None where the source gives none

Held as numbers: a table of the triples in the order of their source, and compressed sparse rows, once by head and
once by tail, so that "the tails of h by r" and "the heads of t by r" are both one slice. bench/graph.py measures it at
PrimeKG's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

IS_A = "is_a"


@dataclass(frozen=True)
class Rows:
    """Compressed sparse rows of (node, relation): the edges of the i-th are ``other[start[i]:start[i+1]]``."""

    key: np.ndarray  # int64 [rows], ascending: node * relations + relation
    start: np.ndarray  # int64 [rows + 1]
    other: np.ndarray  # int32 [edges], ascending within a row
    relations: int

    def span(self, node: int, relation: int) -> tuple[int, int]:
        """Where the edges of this node and relation stand: from, to."""
        key = node * self.relations + relation
        row = int(self.key.searchsorted(key))
        if row == len(self.key) or self.key[row] != key:
            return 0, 0
        return int(self.start[row]), int(self.start[row + 1])

    def of(self, node: int, relation: int) -> np.ndarray:
        """The nodes at the other end of ``node``'s edges of this relation, ascending."""
        first, last = self.span(node, relation)
        return self.other[first:last]

    def of_node(self, node: int) -> list[tuple[int, np.ndarray]]:
        """(relation, nodes at the other end) of every relation at ``node``, ascending."""
        low, high = self.key.searchsorted([node * self.relations, (node + 1) * self.relations]).tolist()
        bounds = self.start[low : high + 1].tolist()
        return [(int(key) % self.relations, self.other[a:b])
                for key, a, b in zip(self.key[low:high], bounds, bounds[1:])]

    def all_of(self, node: int) -> np.ndarray:
        """The nodes at the other end of any edge of ``node``."""
        low, high = self.key.searchsorted([node * self.relations, (node + 1) * self.relations]).tolist()
        return self.other[self.start[low] : self.start[high]]


class Graph:
    """Names, types and relations by number; edges by head (``out``) and by tail (``into``)."""

    def __init__(self, nodes: dict[str, str], triples: list[tuple[str, str, str]], source: str = "",
                 frequency: list[float] | None = None):
        """``nodes`` maps each name to its type; of equal ``triples`` the first counts, with its ``frequency`` in
        [0, 1] (NaN: unknown)."""
        relations = sorted({relation for _, relation, _ in triples})
        number, code = {name: i for i, name in enumerate(nodes)}, {relation: i for i, relation in enumerate(relations)}
        table = np.array([(number[h], code[r], number[t]) for h, r, t in triples], np.int32).reshape(-1, 3)
        self._fill(list(nodes), list(nodes.values()), relations, table, source,
                   None if frequency is None else np.array(frequency, np.float32))

    @classmethod
    def of_numbers(cls, names: list[str], types: list[str], relations: list[str], table: np.ndarray, source: str = "",
                   frequency: np.ndarray | None = None) -> Graph:
        """A graph from numbers: ``table`` int [triples, 3] indexes names, relations and names.

        ``relations`` must ascend. Of equal rows the first counts.
        """
        graph = cls.__new__(cls)
        graph._fill(names, types, relations, np.asarray(table, np.int32).reshape(-1, 3), source, frequency)
        return graph

    @classmethod
    def of_parts(cls, names, types, relations, table, out: Rows, into: Rows, source: str, frequency) -> Graph:
        """A graph whose rows were made before (see cache.py): nothing is computed."""
        graph = cls.__new__(cls)
        graph.names, graph.types, graph.relations, graph.source = names, types, relations, source
        graph.table, graph.out, graph.into, graph.frequencies = table, out, into, frequency
        return graph

    def _fill(self, names, types, relations, table, source, frequency) -> None:
        self.names, self.types, self.relations, self.source = names, types, relations, source
        first = _first_of_each(table, len(names), len(relations))
        self.table = table if len(first) == len(table) else table[first]  # [triples, 3], in the order of the source
        head, relation, tail = self.table.T
        self.out, order = _rows(head, relation, tail, len(names), len(relations))
        self.into, _ = _rows(tail, relation, head, len(names), len(relations))
        self.frequencies = None if frequency is None else frequency[first][order]  # [triples], in the order of ``out``

    @cached_property
    def number(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def code(self) -> dict[str, int]:
        return {relation: i for i, relation in enumerate(self.relations)}

    @cached_property
    def triples(self) -> list[tuple[str, str, str]]:
        """All triples by name, in the order of their source. Slow and large for millions of them."""
        names, relations = self.names, self.relations
        return [(names[h], relations[r], names[t]) for h, r, t in self.table.tolist()]

    @cached_property
    def rank(self) -> np.ndarray:
        """The place of each node's name in alphabetical order. [nodes]"""
        rank = np.empty(len(self.names), np.int64)
        rank[sorted(range(len(self.names)), key=self.names.__getitem__)] = np.arange(len(self.names))
        return rank

    @cached_property
    def kind(self) -> np.ndarray:
        """A number for each node's type. [nodes]"""
        return np.unique(np.array(self.types, dtype=object).astype(str), return_inverse=True)[1]

    def __len__(self) -> int:
        return len(self.table)

    def __contains__(self, triple: tuple[str, str, str]) -> bool:
        return self._place(*triple) is not None

    def frequency(self, head: str, relation: str, tail: str) -> float | None:
        """How often heads show this tail, in [0, 1]; None where the source does not say, or there is no such edge."""
        place = None if self.frequencies is None else self._place(head, relation, tail)
        return None if place is None or np.isnan(self.frequencies[place]) else float(self.frequencies[place])

    def tails(self, head: str, relation: str) -> list[str]:
        return self._across(self.out, head, relation)

    def heads(self, tail: str, relation: str) -> list[str]:
        return self._across(self.into, tail, relation)

    def degrees(self) -> np.ndarray:
        """Edges of each node in either direction. [nodes]"""
        return np.bincount(self.table[:, 0], minlength=len(self.names)) + np.bincount(
            self.table[:, 2], minlength=len(self.names))

    def type_of(self, name: str) -> str:
        return self.types[self.number[name]]

    def below(self, node: int) -> list[int]:
        """``node`` and everything that is_a leads to it from, ascending: a finding, and its more special ones."""
        if IS_A not in self.code:
            return [node]
        found, fresh = {node}, {node}
        while fresh:
            fresh = {n for at in fresh for n in self.into.of(at, self.code[IS_A]).tolist()} - found
            found.update(fresh)
        return sorted(found)

    def _place(self, head: str, relation: str, tail: str) -> int | None:
        if head not in self.number or tail not in self.number or relation not in self.code:
            return None
        first, last = self.out.span(self.number[head], self.code[relation])
        place = first + int(self.out.other[first:last].searchsorted(self.number[tail]))
        return place if place < last and self.out.other[place] == self.number[tail] else None

    def _across(self, rows: Rows, name: str, relation: str) -> list[str]:
        if name not in self.number or relation not in self.code:
            return []
        return [self.names[i] for i in rows.of(self.number[name], self.code[relation])]


def _key(near: np.ndarray, relation: np.ndarray, far: np.ndarray, nodes: int, relations: int) -> np.ndarray:
    """One whole number a triple, in the order of (near, relation, far)."""
    return (near.astype(np.int64) * relations + relation) * nodes + far


def _first_of_each(table: np.ndarray, nodes: int, relations: int) -> np.ndarray:
    """Where each different triple stands first, ascending."""
    _, first = np.unique(_key(*table.T, nodes, relations), return_index=True)
    return np.sort(first)


def _rows(near: np.ndarray, relation: np.ndarray, far: np.ndarray, nodes: int,
          relations: int) -> tuple[Rows, np.ndarray]:
    """The rows of all nodes, and the order of the edges in them."""
    key = _key(near, relation, far, nodes, relations)
    order = np.argsort(key)
    row, start = np.unique(key[order] // nodes if nodes else key, return_index=True)
    return Rows(row, np.append(start, len(key)).astype(np.int64), far[order].astype(np.int32), relations), order
