"""The independent checker of proofs: `python -m minifleming.rods.check --graph G --items F`.

It reads the item's JSON and the graph's triples and shares no code with the sampler. The visible
part is solved as a conjunctive query (query.py). An item is accepted if

    1. each hop of its path and each visible triple is an edge, the path leads to the answer, no
       absent triple holds, and the question uses every relation of the chain;
    2. the masked names are the only answer of the query in which every name that the question does
       not contain is a variable; the question names all other nodes except the hidden ones;
    3. each distractor has the answer's type, is no ancestor or descendant of it, and has a visible
       triple that does not hold with it in the answer's place.

A name does not count as part of a longer name. A name after "no" counts as absent.
"""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

from minifleming.rods.item import Item, Triple, read_items
from minifleming.rods.phrases import asks_for
from minifleming.rods.query import Disconnected, Facts, solve
from minifleming.rods.readers import load_graph
from minifleming.run.errors import Parser, RunFailed, run_cli

# to the end of the sentence
DENIAL = re.compile(r"\b(?:no|not|without)\b[^.?!]*|(?:没有|无)[^。？！]*", re.IGNORECASE)
SHOWN = 20  # faults that the command prints


class Fault(Enum):
    """What may be wrong with an item."""

    NO_PROOF = "no proof: path, visible or masked is empty"
    SAME_SURFACE_FORM = "two names have the same surface form"
    UNEQUAL_OPTIONS = "some options stand for more nodes than others"
    WRONG_OPTION_TEXT = "option {} does not name its nodes"
    ANSWER_NOT_MASKED = "option {} is not the masked node"
    NOT_AN_EDGE = "not an edge: {}"
    PATH_BROKEN = "the path does not lead to the masked node"
    RELATION_UNUSED = "the question does not use the relation '{}'"
    TARGET_NAMED = "the question names the masked node '{}', or it is not visible"
    NAME_MISSING = "the question does not name '{}'"
    NOT_ABSENT = "not absent: {}"
    DISCONNECTED = "the visible part is not connected"
    NOT_UNIQUE = "{} nodes satisfy the visible part"
    DISTRACTOR_CORRECT = "option {} satisfies the visible part"
    DISTRACTOR_RELATED = "option {} is an ancestor or descendant of the answer"
    DISTRACTOR_TYPE = "option {} is of another type"
    NOTHING_DISCRIMINATES = "option {} has no discriminating triple"
    DISCRIMINATING_HOLDS = "option {} satisfies its discriminating triple"


class InvalidProof(ValueError):
    def __init__(self, fault: Fault, detail: object = ""):
        super().__init__(fault.value.format(detail))
        self.fault = fault


def find_fault(item: Item, facts: Facts) -> InvalidProof | None:
    """Returns why the item's proof does not hold, or None if it holds."""
    try:
        check(item, facts)
    except InvalidProof as error:
        return error
    return None


def check(item: Item, facts: Facts) -> None:
    """Raises InvalidProof if the item's proof does not hold."""
    if not item.visible or not item.path or not item.masked:
        raise InvalidProof(Fault.NO_PROOF)
    surface_forms = item.provenance.get("told", {}) if item.language != "en" else {}
    nodes = {label: tuple(item.nodes(label)) for label in item.options}
    target = nodes[item.answer]
    check_options(item, nodes, surface_forms)
    for triple in (*item.path, *item.visible):
        if not facts.is_edge(triple):
            raise InvalidProof(Fault.NOT_AN_EDGE, " | ".join(triple))
    check_path(item, target)
    present, absent = named_in_question(item, surface_forms)
    variables = names_of(item.visible) - present
    check_names(item, target, variables, absent, facts)
    try:
        answers = solve(item.visible, variables, target, facts)
    except Disconnected:
        raise InvalidProof(Fault.DISCONNECTED) from None
    if answers != {target}:
        raise InvalidProof(Fault.NOT_UNIQUE, len(answers))
    for label, distractor in nodes.items():
        if label != item.answer:
            check_distractor(item, label, distractor, target, facts)


def check_options(item: Item, nodes: dict[str, tuple[str, ...]],
                  surface_forms: dict[str, str]) -> None:
    """Each option must name its nodes, and the answer the masked ones."""
    if len(set(surface_forms.values())) != len(surface_forms):
        raise InvalidProof(Fault.SAME_SURFACE_FORM)
    if len(set(map(len, nodes.values()))) != 1:
        raise InvalidProof(Fault.UNEQUAL_OPTIONS)
    for label, names in nodes.items():
        texts = [surface_forms.get(name, name) for name in names]
        if item.options[label] not in ("; ".join(texts), "；".join(texts)):
            raise InvalidProof(Fault.WRONG_OPTION_TEXT, label)
    if "; ".join(nodes[item.answer]) != item.masked:
        raise InvalidProof(Fault.ANSWER_NOT_MASKED, item.answer)


def check_path(item: Item, target: tuple[str, ...]) -> None:
    """The path must hang together and end at the target, and the question must use its relations.

    With two targets it must also begin at the first one.
    """
    first, last = item.path[0], item.path[-1]
    for hop, following in zip(item.path, item.path[1:]):
        if {hop[0], hop[2]}.isdisjoint((following[0], following[2])):
            raise InvalidProof(Fault.PATH_BROKEN)
    if target[-1] not in (last[0], last[2]):
        raise InvalidProof(Fault.PATH_BROKEN)
    if len(target) > 1 and target[0] not in (first[0], first[2]):
        raise InvalidProof(Fault.PATH_BROKEN)
    node = item.provenance.get("root", "")
    for head, relation, tail in item.path[1:]:
        if not asks_for(item.question, relation, forward=head == node):
            raise InvalidProof(Fault.RELATION_UNUSED, relation)
        node = tail if head == node else head


def check_names(item: Item, target: tuple[str, ...], variables: set[str], absent: set[str],
                facts: Facts) -> None:
    """The question must name all nodes but the masked and hidden ones, and only true absences."""
    named = sorted(set(target) - (variables - absent))
    if named:
        raise InvalidProof(Fault.TARGET_NAMED, named[0])
    missing = variables.difference(target, item.provenance.get("hidden", []))
    if missing:
        raise InvalidProof(Fault.NAME_MISSING, min(missing))
    for triple in item.absent:
        if facts.holds(triple):
            raise InvalidProof(Fault.NOT_ABSENT, " | ".join(triple))
        if triple[2] not in absent:
            raise InvalidProof(Fault.NAME_MISSING, triple[2])


def check_distractor(item: Item, label: str, names: tuple[str, ...], target: tuple[str, ...],
                     facts: Facts) -> None:
    """The distractor must lack a visible triple. (It is no solution: the answer is unique.)"""
    if names == target:
        raise InvalidProof(Fault.DISTRACTOR_CORRECT, label)
    for name, right in zip(names, target):
        if name != right and facts.are_related(name, right):
            raise InvalidProof(Fault.DISTRACTOR_RELATED, label)
    for name, right in zip(names, target):
        if facts.types.get(name) != facts.types.get(right):
            raise InvalidProof(Fault.DISTRACTOR_TYPE, label)
    triple = item.discriminating.get(label)
    if triple is None or triple not in item.visible or {triple[0], triple[2]}.isdisjoint(target):
        raise InvalidProof(Fault.NOTHING_DISCRIMINATES, label)
    replace = dict(zip(target, names))
    head, relation, tail = triple
    if facts.holds((replace.get(head, head), relation, replace.get(tail, tail))):
        raise InvalidProof(Fault.DISCRIMINATING_HOLDS, label)


def names_of(triples: list[Triple]) -> set[str]:
    names = set()
    for head, _, tail in triples:
        names |= {head, tail}
    return names


def named_in_question(item: Item, surface_forms: dict[str, str]) -> tuple[set[str], set[str]]:
    """Returns the names of the item that the question has as present, and those it has as absent.

    Longer names are found first and struck out, so that no part of them counts as a shorter name.
    """
    names = names_of([*item.visible, *item.absent])
    found: list[tuple[int, str]] = []
    text = item.question
    for name in sorted(names, key=lambda name: (-len(surface_forms.get(name, name)), name)):
        if name in surface_forms:
            pattern = re.escape(surface_forms[name])
        else:
            pattern = rf"(?<!\w){re.escape(name)}(?!\w)"
        for match in list(re.finditer(pattern, text)):
            found.append((match.start(), name))
            text = text[: match.start()] + "\0" * len(match[0]) + text[match.end() :]
    denials = [match.span() for match in DENIAL.finditer(text)]
    present, absent = set(), set()
    for position, name in found:
        denied = any(start <= position < end for start, end in denials)
        (absent if denied else present).add(name)
    return present, absent


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="check", description=__doc__, allow_abbrev=False)
    parser.add_argument("--graph", default="embedded", help="embedded (default), hpo, or a path")
    parser.add_argument("--columns", default="",
                        help="columns of a triple file: head=...,relation=...,tail=...")
    parser.add_argument("--items", type=Path, required=True)
    args = parser.parse_args(argv)
    facts = Facts(load_graph(args.graph, args.columns))
    items = read_items(args.items)
    faults = []
    for item in items:
        fault = find_fault(item, facts)
        if fault:
            faults.append(f"{item.id}: {fault}")
    print("\n".join(faults[:SHOWN]), end="\n" if faults else "")
    print(f"{len(items) - len(faults)} of {len(items)} items proven against {facts.size} triples")
    if faults:
        raise RunFailed(f"{args.items}: {len(faults)} items without a valid proof")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
