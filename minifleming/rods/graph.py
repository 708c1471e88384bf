"""The knowledge graph: named nodes with a type, and triples (head, relation, tail).

Held as compressed sparse rows in numpy, once by head and once by tail, so that "the tails of h by r" and
"the heads of t by r" are both one slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minifleming.run.errors import BadInput

EMBEDDED = Path(__file__).parent.parent / "assets" / "graph.tsv"
COLUMNS = ("head", "head_type", "relation", "tail", "tail_type")


@dataclass(frozen=True)
class Rows:
    """Compressed sparse rows: the edges of node n are ``relation[start[n]:start[n+1]]`` and ``other[...]``."""

    start: np.ndarray  # [nodes + 1]
    relation: np.ndarray  # [edges], ascending within a node
    other: np.ndarray  # [edges]

    def of(self, node: int, relation: int) -> np.ndarray:
        """The nodes at the other end of ``node``'s edges of this relation, ascending."""
        low, high = self.start[node], self.start[node + 1]
        part = self.relation[low:high]
        first, last = np.searchsorted(part, relation, "left"), np.searchsorted(part, relation, "right")
        return self.other[low + first : low + last]

    def relations_of(self, node: int) -> np.ndarray:
        return np.unique(self.relation[self.start[node] : self.start[node + 1]])


class Graph:
    """Names, types and relations by number; edges by head (``out``) and by tail (``into``)."""

    def __init__(self, nodes: dict[str, str], triples: list[tuple[str, str, str]], source: str = ""):
        """``nodes`` maps each name to its type; duplicates among ``triples`` count once."""
        self.source = source
        self.names = list(nodes)
        self.types = list(nodes.values())
        self.number = {name: i for i, name in enumerate(self.names)}
        self.relations = sorted({relation for _, relation, _ in triples})
        code = {relation: i for i, relation in enumerate(self.relations)}
        self.code = code
        unique = dict.fromkeys(triples)
        table = np.array([(self.number[h], code[r], self.number[t]) for h, r, t in unique], np.int64).reshape(-1, 3)
        self.out = _rows(table[:, 0], table[:, 1], table[:, 2], len(self.names))
        self.into = _rows(table[:, 2], table[:, 1], table[:, 0], len(self.names))
        self.triples = list(unique)
        self._set = set(unique)

    def __len__(self) -> int:
        return len(self.triples)

    def __contains__(self, triple: tuple[str, str, str]) -> bool:
        return tuple(triple) in self._set

    def tails(self, head: str, relation: str) -> list[str]:
        return self._across(self.out, head, relation)

    def heads(self, tail: str, relation: str) -> list[str]:
        return self._across(self.into, tail, relation)

    def degree(self, name: str) -> int:
        node = self.number[name]
        return int(np.diff(self.out.start)[node] + np.diff(self.into.start)[node])

    def degrees(self) -> np.ndarray:
        """Edges of each node in either direction. [nodes]"""
        return np.diff(self.out.start) + np.diff(self.into.start)

    def type_of(self, name: str) -> str:
        return self.types[self.number[name]]

    def _across(self, rows: Rows, name: str, relation: str) -> list[str]:
        if name not in self.number or relation not in self.code:
            return []
        return [self.names[i] for i in rows.of(self.number[name], self.code[relation])]


def load_graph(source: str) -> Graph:
    """``embedded``, or the path of a TSV file whose header names head, head_type, relation, tail, tail_type.

    A malformed line is refused with file, line and reason.
    """
    path = EMBEDDED if source == "embedded" else Path(source)
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", path) from None
    except UnicodeDecodeError as error:
        raise BadInput("not UTF-8 text", path, path.read_bytes()[: error.start].count(b"\n") + 1) from None
    lines = text.removesuffix("\n").split("\n")
    header = [name.strip() for name in lines[0].lstrip("\ufeff").split("\t")]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise BadInput(f"no column '{missing[0]}' in the header", path, 1)
    pick = [header.index(name) for name in COLUMNS]
    nodes: dict[str, str] = {}
    triples = []
    for number, line in enumerate(lines[1:], 2):
        cells = line.rstrip("\r").split("\t")
        if len(cells) != len(header):
            raise BadInput(f"{len(cells)} columns where the header has {len(header)}", path, number)
        head, head_type, relation, tail, tail_type = (cells[i].strip() for i in pick)
        if not all((head, head_type, relation, tail, tail_type)):
            raise BadInput("an empty cell", path, number)
        for name, kind in ((head, head_type), (tail, tail_type)):
            if nodes.setdefault(name, kind) != kind:
                raise BadInput(f"'{name}' is a {kind} here and a {nodes[name]} above", path, number)
        triples.append((head, relation, tail))
    if not triples:
        raise BadInput("no triples", path)
    return Graph(nodes, triples, source)


def _rows(near: np.ndarray, relation: np.ndarray, far: np.ndarray, nodes: int) -> Rows:
    order = np.lexsort((far, relation, near))
    start = np.zeros(nodes + 1, np.int64)
    np.cumsum(np.bincount(near, minlength=nodes), out=start[1:])
    return Rows(start, relation[order].astype(np.int32), far[order].astype(np.int32))
