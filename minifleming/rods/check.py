"""The independent checker of proofs: `python -m minifleming.rods.check --graph G --items F`.

It reads the item's JSON and the graph's triples and shares no code with the sampler: the visible part is
solved as a conjunctive query by brute-force joins over a plain set of triples. An item is accepted if
    1. every hop of its path and every visible triple is an edge;
    2. replacing every name that the question does not tell by a variable, the query has the masked name as its only
       answer; and only the masked and the hidden names are untold;
    3. each distractor has a discriminating triple among the visible ones that is no edge with it in place;
    4. no distractor solves the query.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from minifleming.rods.graph import load_graph
from minifleming.rods.item import Item, Triple, read_items
from minifleming.run.errors import Parser, RunFailed, guarded

Index = dict[tuple[str, str, str], set[str]]


def index_triples(triples: list[Triple]) -> Index:
    """(name, relation, 'out' | 'in') -> the names at the other end."""
    index: Index = defaultdict(set)
    for head, relation, tail in triples:
        index[head, relation, "out"].add(tail)
        index[tail, relation, "in"].add(head)
    return index


def fault(item: Item, edges: set[Triple], index: Index) -> str | None:
    """Why the item's proof does not hold, or None if it does."""
    if not item.visible or not item.path or not item.masked:
        return "no proof: path, visible or masked is empty"
    if item.options[item.answer] != item.masked:
        return f"option {item.answer} is not the masked node"
    for triple in [*item.path, *item.visible]:
        if triple not in edges:
            return f"not an edge: {' | '.join(triple)}"
    variables = {name for head, _, tail in item.visible for name in (head, tail) if not tells(item.question, name)}
    if item.masked not in variables:
        return f"the question tells the masked node '{item.masked}', or it is not visible"
    untold = variables - {item.masked, *item.provenance.get("hidden", [])}
    if untold:
        return f"the question does not tell '{min(untold)}'"
    try:
        answers = solve(item.visible, variables, item.masked, index)
    except ValueError as error:
        return str(error)
    if answers != {item.masked}:
        return f"{len(answers)} nodes satisfy the visible part"
    for label, text in item.options.items():
        if label == item.answer:
            continue
        triple = item.discriminating.get(label)
        if triple is None or triple not in item.visible or item.masked not in (triple[0], triple[2]):
            return f"option {label} has no discriminating triple"
        if tuple(text if name == item.masked else name for name in triple) in edges:
            return f"option {label} satisfies its discriminating triple"
        if text in answers:
            return f"option {label} satisfies the visible part"
    return None


def tells(question: str, name: str) -> bool:
    """Does the name stand in the question, as words of its own?"""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", question) is not None


def solve(query: list[Triple], variables: set[str], wanted: str, index: Index) -> set[str]:
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
        bound |= {head, tail}
        joined = []
        for row in rows:
            left = row.get(head) if head in variables else head
            right = row.get(tail) if tail in variables else tail
            if left is not None:
                ends = index.get((left, relation, "out"), set())
                joined += [row | {tail: end} for end in ends if right in (None, end)]
            elif right is not None:
                joined += [row | {head: end} for end in index.get((right, relation, "in"), set())]
            else:
                raise ValueError("the visible part does not hang together")
        rows = [dict(pairs) for pairs in {tuple(sorted(row.items())) for row in joined}]
        rows = [{name: value for name, value in row.items() if name in variables} for row in rows]
    return {row[wanted] for row in rows if wanted in row}


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="check", description=__doc__, allow_abbrev=False)
    parser.add_argument("--graph", default="embedded")
    parser.add_argument("--items", type=Path, required=True)
    args = parser.parse_args(argv)
    graph, items = load_graph(args.graph), read_items(args.items)
    edges, index = set(graph.triples), index_triples(graph.triples)
    faults = [(item.id, reason) for item in items if (reason := fault(item, edges, index))]
    for name, reason in faults[:20]:
        print(f"{name}: {reason}")
    print(f"{len(items) - len(faults)} of {len(items)} items proven against {len(graph)} triples")
    if faults:
        raise RunFailed(f"{args.items}: {len(faults)} items without a valid proof")
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded(main))
