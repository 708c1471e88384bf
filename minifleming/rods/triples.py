"""Any triple file as a graph: TSV or CSV, plain or gzipped, one triple a row.

    head             head_type  relation              tail                tail_type
    lupus            Disease    has_symptom           malar rash          Symptom

Columns are found by name (``SPELLINGS``) or given:
``head=subject,relation=predicate,tail=object``, or by number in a file without header:
``head=1,relation=2,tail=3``. Types are optional (then every node is an Entity); where there are
id columns (head_id, tail_id) a node is its id, so that two things of one name stay apart; a
``frequency`` in [0, 1] is kept.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from pathlib import Path

import numpy as np

from minifleming.rods.graph import Graph
from minifleming.rods.rows import Table
from minifleming.run.errors import BadInput

SPELLINGS = {
    "head": ("head", "head_name", "subject", "x_name"),
    "relation": ("relation", "predicate", "edge_type", "rel"),
    "tail": ("tail", "tail_name", "object", "y_name"),
    "head_type": ("head_type", "subject_type", "x_type"),
    "tail_type": ("tail_type", "object_type", "y_type"),
    "head_id": ("head_id", "subject_id", "x_id"),
    "tail_id": ("tail_id", "object_id", "y_id"),
    "frequency": ("frequency",),
}
NEEDED = ("head", "relation", "tail")
COLUMNS = ("head", "head_type", "relation", "tail", "tail_type")  # of the embedded graph
PAIRS = (("head_type", "tail_type"), ("head_id", "tail_id"))


class Builder:
    """Numbers nodes and relations as they come. A node is its key: an id, or its name."""

    def __init__(self):
        self.number: dict = {}
        self.names: list[str] = []
        self.types: list[str] = []
        self.relations: dict[str, int] = {}
        self.table, self.frequency = array("i"), array("f")

    def node(self, key, name: str, kind: str) -> int:
        """Returns the number of the node. Raises ValueError if its key has another name or type."""
        number = self.number.setdefault(key, len(self.names))
        if number == len(self.names):
            self.names.append(" ".join(name.split()))
            self.types.append(kind)
        elif self.types[number] != kind:
            raise ValueError(f"'{name}' is a {kind} here and a {self.types[number]} above")
        elif self.names[number] != name and self.names[number] != " ".join(name.split()):
            raise ValueError(f"'{key}' is named '{name}' here and '{self.names[number]}' above")
        return number

    def ends(self, head: tuple[str, str, str], tail: tuple[str, str, str]) -> list[int]:
        """Returns the numbers of two nodes (key, name, type). On a ValueError it adds neither."""
        size = len(self.names)
        try:
            return [self.node(*head), self.node(*tail)]
        except ValueError:
            while len(self.names) > size:
                self.number.popitem(), self.names.pop(), self.types.pop()
            raise

    def add(self, head: int, relation: str, tail: int, frequency: float = math.nan) -> None:
        self.table.extend((head, self.relations.setdefault(relation, len(self.relations)), tail))
        self.frequency.append(frequency)

    def graph(self, source: str) -> Graph:
        """Returns the graph, with its relations in alphabetical order and different names."""
        order = sorted(self.relations)
        place = np.array([order.index(relation) for relation in self.relations], np.int32)
        table = np.frombuffer(self.table, np.int32).reshape(-1, 3).copy()
        table[:, 1] = place[table[:, 1]]
        frequency = np.frombuffer(self.frequency, np.float32)
        known = None if np.isnan(frequency).all() else frequency
        names = distinct(self.names, self.types, list(self.number))
        return Graph.from_table(names, self.types, order, table, source, known)


def distinct(names: list[str], types: list[str], keys: list) -> list[str]:
    """Returns different names: equal names get their type, and if that is not enough, their key."""
    for form, additions in (("{} ({})", types), ("{} [{}]", keys)):
        count = Counter(names)
        if len(count) == len(names):
            return names
        names = [form.format(name, added) if count[name] > 1 else name
                 for name, added in zip(names, additions)]
    return names


def read_triples(path: Path, source: str, columns: str = "") -> Graph:
    """Returns the graph of a triple file. Raises BadInput with file, line and reason."""
    asked = parse_columns(columns)
    numbered = bool(asked) and all(text.isdecimal() for text in asked.values())
    table = Table(path, header=not numbered)
    if numbered:
        at = {name: int(text) - 1 for name, text in asked.items()}
    else:
        at = find_columns(table, asked)
    builder = Builder()
    for line, cells in table:
        try:
            add_row(builder, cells, at)
        except ValueError as error:
            table.refuse(line, str(error), counted=True)
    table.settle()
    if not builder.table:
        raise BadInput("no triples", path)
    return builder.graph(source)


def add_row(builder: Builder, cells: list[str], at: dict[str, int]) -> None:
    """Adds one row to the graph. Raises ValueError with the reason."""
    if max(at.values()) >= len(cells):
        raise ValueError(f"{len(cells)} columns, and column {max(at.values()) + 1} is asked for")
    cell = {name: " ".join(cells[place].split()) for name, place in at.items()}
    frequency = cell.pop("frequency", "")
    if not all(cell.values()):
        raise ValueError("an empty cell")
    share = float(frequency) if frequency else math.nan
    if frequency and not 0 <= share <= 1:
        raise ValueError(f"frequency {frequency} is not between 0 and 1")
    nodes = []
    for end in ("head", "tail"):
        key = cell.get(f"{end}_id", cell[end])
        nodes.append((key, cell[end], cell.get(f"{end}_type", "Entity")))
    head, tail = builder.ends(*nodes)
    builder.add(head, cell["relation"], tail, share)


def parse_columns(text: str) -> dict[str, str]:
    """Returns ``head=subject,relation=predicate`` as a dictionary. Raises BadInput."""
    asked = {}
    for part in filter(None, text.split(",")):
        name, equals, column = part.partition("=")
        if not equals or name.strip() not in SPELLINGS or not column.strip(" 0"):
            raise BadInput(f"--columns: '{part}' is not NAME=COLUMN with a NAME of "
                           f"{', '.join(SPELLINGS)}")
        asked[name.strip()] = column.strip()
    if asked and all(column.isdecimal() for column in asked.values()):
        missing = [name for name in NEEDED if name not in asked] + lone(asked)
        if missing:
            reason = f"--columns: '{missing[0]}' is missing; a file read by number has no header"
            raise BadInput(reason)
    return asked


def find_columns(table: Table, asked: dict[str, str]) -> dict[str, int]:
    """Returns the place of each column in the header. Raises BadInput if one is missing."""
    at = {}
    for name, spellings in SPELLINGS.items():
        wanted = (asked[name].lower(),) if name in asked else spellings
        found = [table.columns.index(column) for column in wanted if column in table.columns]
        if found:
            at[name] = found[0]
        elif name in asked or name in NEEDED:
            raise BadInput(f"no column '{wanted[0]}' in the header", table.path, 1)
    if lone(at):
        raise BadInput(f"no column '{lone(at)[0]}' in the header", table.path, 1)
    return at


def lone(given: dict) -> list[str]:
    """Returns the columns that are not given although their counterpart at the other end is."""
    missing = []
    for pair in PAIRS:
        if not given.keys().isdisjoint(pair):
            missing += [name for name in pair if name not in given]
    return missing
