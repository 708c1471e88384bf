"""The independent checker of proofs: `python -m minifleming.rods.check --graph G --items F`.

It reads the item's JSON and the graph's triples and shares no code with the sampler: the visible part is solved as a
conjunctive query by joins over a sorted table of its own. An item is accepted if
    1. every hop of its path and every visible triple is an edge, the path leads to the answer, no absent triple holds,
       and the question speaks of every relation of the chain;
    2. replacing every name that the question does not tell by a variable, the query has the masked names as its only
       answer; and exactly the masked and the hidden names are untold;
    3. each distractor is of the answer's type, neither more special nor more general than the answer, and there is a
       visible triple that does not hold with it in place;
    4. no distractor solves the query.
A told finding stands for itself and for everything that is_a it: who has the special one has the general one. A name
is told where it stands by itself, not within a longer one; what follows a "no" is told as absent. Between nodes that
are not told, relations that a question says by the same words (phrases.link) are one.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from minifleming.extras.wording.templates import says
from minifleming.rods.graph import IS_A, Graph
from minifleming.rods.item import Item, Triple, read_items
from minifleming.rods.phrases import link
from minifleming.rods.readers import load_graph
from minifleming.run.errors import Parser, RunFailed, run_cli

NOT = re.compile(r"\b(?:no|not|without)\b[^.?!]*|(?:没有|无)[^。？！]*", re.IGNORECASE)  # up to the sentence's end


class Facts:
    """Look-ups in the triples of a graph, by name, over two sorted arrays of (node, relation)."""

    def __init__(self, graph: Graph):
        self.names, self.size = graph.names, len(graph)
        self.number = {name: i for i, name in enumerate(graph.names)}
        self.types = dict(zip(graph.names, graph.types))
        self.code = {relation: i for i, relation in enumerate(graph.relations)}
        head, relation, tail = graph.table.T.astype(np.int64)
        self._out = self._sorted(head, relation, tail)
        self._into = self._sorted(tail, relation, head)
        self._alike: dict[tuple[str, bool], list[tuple[str, bool]]] = {}

    def _sorted(self, near: np.ndarray, relation: np.ndarray, far: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        key = near * len(self.code) + relation
        order = np.argsort(key, kind="stable")
        return key[order], far[order].astype(np.int32)

    def _find(self, table: tuple[np.ndarray, np.ndarray], near: str, relation: str) -> set[str]:
        if near not in self.number or relation not in self.code:
            return set()
        key = self.number[near] * len(self.code) + self.code[relation]
        low, high = np.searchsorted(table[0], [key, key + 1])
        return {self.names[i] for i in table[1][low:high]}

    def out(self, head: str, relation: str) -> set[str]:
        """The tails of the head's edges of this relation."""
        return self._find(self._out, head, relation)

    def into(self, tail: str, relation: str) -> set[str]:
        """The heads of the tail's edges of this relation."""
        return self._find(self._into, tail, relation)

    def below(self, name: str) -> set[str]:
        """The name and everything from which is_a leads to it."""
        found, fresh = {name}, {name}
        while fresh:
            fresh = {child for at in fresh for child in self.into(at, IS_A)} - found
            found |= fresh
        return found

    def across(self, near: str, relation: str, forward: bool) -> set[str]:
        """What a question can mean by the far end of such an edge: by every relation that it says alike."""
        key = (relation, forward)
        if key not in self._alike:
            said = link(relation, forward)
            self._alike[key] = [(r, way) for r in self.code for way in (True, False) if link(r, way) == said]
        return {far for other, way in self._alike[key]
                for far in (self.out(near, other) if way else self.into(near, other))}

    def edge(self, triple: Triple) -> bool:
        return triple[2] in self.out(triple[0], triple[1])

    def kin(self, a: str, b: str) -> bool:
        return a in self.below(b) or b in self.below(a)

    def holds(self, triple: Triple) -> bool:
        """Is it an edge, or follows from one by is_a?"""
        return not self.out(triple[0], triple[1]).isdisjoint(self.below(triple[2]))


def fault(item: Item, facts: Facts) -> str | None:
    """Why the item's proof does not hold, or None if it does."""
    if not item.visible or not item.path or not item.masked:
        return "no proof: path, visible or masked is empty"
    told = item.provenance.get("told", {}) if item.language != "en" else {}
    nodes = {label: tuple(item.nodes(label)) for label in item.options}
    wrong = misnamed(item, nodes, told)
    if wrong:
        return wrong
    for triple in [*item.path, *item.visible]:
        if not facts.edge(triple):
            return f"not an edge: {' | '.join(triple)}"
    asked = nodes[item.answer]
    if astray(item.path, asked):
        return "the path does not lead to the masked node"
    if silent := unasked(item):
        return f"the question does not speak of '{silent}'"
    return untold(item, asked, told, facts) or unproven(item, asked, told, facts) or weak(item, nodes, facts)


def misnamed(item: Item, nodes: dict[str, tuple[str, ...]], told: dict[str, str]) -> str | None:
    """An option that does not say the nodes it stands for, or an answer that is not masked."""
    if len(set(told.values())) != len(told):
        return "two names are told alike"
    if len({len(names) for names in nodes.values()}) != 1:
        return "some options stand for more nodes than others"
    for label, names in nodes.items():
        if item.options[label] not in (mark.join(told.get(name, name) for name in names) for mark in ("; ", "；")):
            return f"option {label} does not say its nodes"
    return None if "; ".join(nodes[item.answer]) == item.masked else f"option {item.answer} is not the masked node"


def astray(path: list[Triple], asked: tuple[str, ...]) -> bool:
    """Does the path fall apart, end elsewhere, or, where two nodes are asked, begin elsewhere?"""
    hops = [{head, tail} for head, _, tail in path]
    broken = any(a.isdisjoint(b) for a, b in zip(hops, hops[1:]))
    return broken or asked[-1] not in hops[-1] or (len(asked) > 1 and asked[0] not in hops[0])


def unasked(item: Item) -> str:
    """A relation of the chain that the question does not speak of, in the direction in which the path runs; or ''."""
    at = item.provenance.get("root", "")
    for head, relation, tail in item.path[1:]:
        if not says(item.question, relation, head == at):
            return relation
        at = tail if head == at else head
    return ""


def untold(item: Item, asked: tuple[str, ...], told: dict[str, str], facts: Facts) -> str | None:
    """A masked name that the question tells, another that it does not, or an absent finding that is there."""
    variables = names_not_told(item, told)
    _, denied = split(item, told)
    hidden = item.provenance.get("hidden", [])
    missing = sorted(set(asked) - (variables - denied))
    if missing:
        return f"the question tells the masked node '{missing[0]}', or it is not visible"
    silent = variables - {*asked, *hidden}
    if silent:
        return f"the question does not tell '{min(silent)}'"
    for triple in item.absent:
        if facts.holds(triple):
            return f"not absent: {' | '.join(triple)}"
        if triple[2] not in denied:
            return f"the question does not tell '{triple[2]}'"
    return None


def unproven(item: Item, asked: tuple[str, ...], told: dict[str, str], facts: Facts) -> str | None:
    """More answers than one, or a visible part in pieces."""
    try:
        answers = solve(item.visible, names_not_told(item, told), asked, facts)
    except ValueError as error:
        return str(error)
    return None if answers == {asked} else f"{len(answers)} nodes satisfy the visible part"


def weak(item: Item, nodes: dict[str, tuple[str, ...]], facts: Facts) -> str | None:
    """A distractor without a visible triple that it lacks. (The only solution is the answer: see ``unproven``.)"""
    asked = nodes[item.answer]
    for label, names in nodes.items():
        if label == item.answer:
            continue
        if names == asked:
            return f"option {label} satisfies the visible part"
        if any(facts.kin(name, other) for name, other in zip(names, asked) if name != other):
            return f"option {label} is a kind of the answer, or the answer of it"
        if [facts.types.get(name) for name in names] != [facts.types.get(name) for name in asked]:
            return f"option {label} is of another type"
        triple = item.discriminating.get(label)
        if triple is None or triple not in item.visible or not {triple[0], triple[2]} & set(asked):
            return f"option {label} has no discriminating triple"
        place = dict(zip(asked, names))
        if facts.holds(tuple(place.get(name, name) for name in triple)):
            return f"option {label} satisfies its discriminating triple"
    return None


def names_not_told(item: Item, told: dict[str, str]) -> set[str]:
    """The names of the visible part that do not stand in the question, or stand there as absent."""
    affirmed, _ = split(item, told)
    return {name for head, _, tail in item.visible for name in (head, tail)} - affirmed


def split(item: Item, told: dict[str, str]) -> tuple[set[str], set[str]]:
    """The names of the item that the question tells as present, and those that it tells as absent.

    The longest come first, and each is struck out where it stands: what is left of a longer name tells no shorter one.
    """
    names = {name for head, _, tail in [*item.visible, *item.absent] for name in (head, tail)}
    places: dict[int, str] = {}
    text = item.question
    for name in sorted(names, key=lambda name: (-len(told.get(name, name)), name)):
        words = told.get(name, name)
        edge = "" if name in told else r"(?<!\w)", "" if name in told else r"(?!\w)"
        for found in re.finditer(edge[0] + re.escape(words) + edge[1], text):
            places[found.start()] = name
        text = re.sub(edge[0] + re.escape(words) + edge[1], lambda found: "\0" * len(found[0]), text)
    nots = [denied.span() for denied in NOT.finditer(text)]
    absent = {name for at, name in places.items() if any(start <= at < end for start, end in nots)}
    present = {name for at, name in places.items() if not any(start <= at < end for start, end in nots)}
    return present, absent


def solve(query: list[Triple], variables: set[str], wanted: tuple[str, ...], facts: Facts) -> set[tuple[str, ...]]:
    """Every value of ``wanted`` in a solution of the query, by joining one triple after the other.

    ``query`` is a list of triples, in any order, in which the names in ``variables`` may stand for any node.
    Raises ValueError if it falls apart into pieces that share no name.
    """
    rows: list[dict[str, str]] = [{}]
    pending, bound = list(query), set()
    while pending:
        free = variables - bound
        head, relation, tail = min(pending, key=lambda triple: (triple[0] in free) + (triple[2] in free))
        pending.remove((head, relation, tail))
        if head in free and tail in free and bound:
            raise ValueError("the visible part does not hang together")
        rows = join(rows, head, relation, tail, variables, facts)
        bound |= {head, tail} & variables
    return {tuple(row[name] for name in wanted) for row in rows if all(name in row for name in wanted)}


def join(rows: list[dict[str, str]], head: str, relation: str, tail: str, variables: set[str],
         facts: Facts) -> list[dict[str, str]]:
    """The rows that one more triple allows, with the values that it adds."""
    if head not in variables and tail not in variables:
        return rows if facts.holds((head, relation, tail)) else []
    if tail not in variables:
        fit = {name for end in facts.below(tail) for name in facts.into(end, relation)}
        return extended(rows, head, lambda row: fit)
    if head not in variables:
        fit = facts.across(head, relation, True)
        return extended(rows, tail, lambda row: fit)
    if rows and head in rows[0]:
        return extended(rows, tail, lambda row: facts.across(row[head], relation, True))
    if rows and tail in rows[0]:
        return extended(rows, head, lambda row: facts.across(row[tail], relation, False))
    if rows:
        raise ValueError("the visible part does not hang together")
    return []


def extended(rows: list[dict[str, str]], name: str, values) -> list[dict[str, str]]:
    """Each row once for each of its ``values(row)`` of ``name``, or as it is if it has one of them already."""
    if rows and name in rows[0]:
        return [row for row in rows if row[name] in values(row)]
    return [row | {name: value} for row in rows for value in values(row)]


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="check", description=__doc__, allow_abbrev=False)
    parser.add_argument("--graph", default="embedded", help="embedded, hpo, or a path (default: embedded)")
    parser.add_argument("--columns", default="", help="columns of a triple file: head=...,relation=...,tail=...")
    parser.add_argument("--items", type=Path, required=True)
    args = parser.parse_args(argv)
    facts, items = Facts(load_graph(args.graph, args.columns)), read_items(args.items)
    faults = [(item.id, reason) for item in items if (reason := fault(item, facts))]
    for name, reason in faults[:20]:
        print(f"{name}: {reason}")
    print(f"{len(items) - len(faults)} of {len(items)} items proven against {facts.size} triples")
    if faults:
        raise RunFailed(f"{args.items}: {len(faults)} items without a valid proof")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
