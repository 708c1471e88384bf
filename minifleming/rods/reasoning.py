"""Looks up in the graph what a reasoning states: a *measure* of it, never a reward.

A clause "X verb Y" whose verb is a relation's phrase and whose X and Y are names of the graph
states an edge; "X and Y point to Z" states one for each finding. Clauses that state nothing ("R
lacks rash", "back") are passed over. A text that states no hop in that spaced form is read as
ordinary prose: "Fever and rash suggest lupus. Lupus is treated with colchicine, so ...", in any
case and with articles; there a list with an unknown name is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from minifleming.rods.graph import Graph
from minifleming.rods.item import Triple
from minifleming.rods.phrases import EMBEDDED_RELATIONS, phrase
from minifleming.rods.walk import EVIDENCE

CLAUSE = re.compile(r" \. | : | \.$|^wait , | wait , ")
LIST = re.compile(r" , | and ")
MAX_ANDS = 3  # in one name
MAX_LENGTH = 100_000  # characters that are read
STOP = re.compile(r"\s*([.,;:!?])(?=\s|$)")
PROSE = re.compile(r" [.;:!?](?: |$)|,? (?:so|thus|therefore|hence|which means that|but|whereas|"
                   r"while)(?: ,)? ")
OPENING = re.compile(r"^(?:(?:and|so|thus|therefore|hence|then|since|because|the|an?|"
                     r"this patient's|his|her)(?: ,)? |(?:first|next|finally) , ){0,3}")
POINTING = re.compile(r" (?:suggests?|indicates?|strongly points? to) ")

Names = Callable[[str], str]  # returns the graph's name that a text is, or ""
Hop = tuple[Triple, bool]  # a stated edge, and whether the graph has it


def support(reasoning: str, chosen: str, graph: Graph) -> str:
    """Returns how the reasoning supports the chosen option's text.

    chain   every stated hop is an edge, and the last one touches the chosen option
    gap     every stated hop is an edge, and the last one does not
    false   a stated hop is no edge
    unread  no hop could be read
    """
    hops = stated_hops(reasoning, graph)
    if not hops:
        return "unread"
    if not all(found for _, found in hops):
        return "false"
    head, _, tail = hops[-1][0]
    return "chain" if chosen in (head, tail) else "gap"


def stated_hops(reasoning: str, graph: Graph) -> list[Hop]:
    """Returns every edge that the reasoning states, in order, and whether the graph has it."""
    text = reasoning.strip()[:MAX_LENGTH]
    hops: list[Hop] = []
    for clause in CLAUSE.split(text):
        hops += read_clause(clause, graph, lambda name: name if name in graph.node_id else "")
    if hops:
        return hops
    known = folded(graph)

    def find_name(name: str) -> str:
        return known.get(name) or known.get(OPENING.sub("", name), "")

    prose = POINTING.sub(" point to ", STOP.sub(r" \1", " ".join(text.split()))).casefold()
    for clause in PROSE.split(prose):
        found = read_clause(OPENING.sub("", clause.strip(" ,")), graph, find_name)
        if all(tail in graph.node_id for (_, _, tail), _ in found):
            hops += found
    return hops


@lru_cache(2)
def folded(graph: Graph) -> dict[str, str]:
    """Returns each name in lower case, spaced like prose -> the name; the first of equal ones."""
    known: dict[str, str] = {}
    for name in graph.names:
        known.setdefault(STOP.sub(r" \1", name).casefold(), name)
    return known


def read_clause(clause: str, graph: Graph, find_name: Names) -> list[Hop]:
    """Returns the hops that a clause states; an unknown name in a list is a false hop."""
    clause = clause.strip()
    for verb in (" points to ", " point to "):
        left, found, right = clause.partition(verb)
        root = find_name(right) if found else ""
        if root:
            return [evidence_hop(root, name, graph) for name in listed_names(left, find_name)]
    return read_relation(clause, graph, find_name)


def evidence_hop(root: str, finding: str, graph: Graph) -> Hop:
    for relation in EVIDENCE:
        if (root, relation, finding) in graph:
            return (root, relation, finding), True
    return (root, EVIDENCE[0], finding), False


def listed_names(text: str, find_name: Names) -> list[str]:
    """Returns the listed names; a name may contain "and" up to ``MAX_ANDS`` times."""
    name = find_name(text)
    if name:
        return [name]
    names = []
    parts = LIST.split(text)
    at = 0
    while at < len(parts):
        for n in range(min(len(parts) - at, 1 + MAX_ANDS), 0, -1):
            joined = " and ".join(parts[at : at + n])
            name = find_name(joined)
            if name or n == 1:
                names.append(name or joined)
                at += n
                break
    return names


def read_relation(clause: str, graph: Graph, find_name: Names) -> list[Hop]:
    """Returns the first reading of the clause that is an edge, or else the first with two nodes."""
    first: list[Hop] = []
    others = [relation for relation in graph.relations if relation not in EMBEDDED_RELATIONS]
    for relation in (*EMBEDDED_RELATIONS, *others):
        for forward in (True, False):
            left, found, right = clause.partition(f" {phrase(relation, forward).verb} ")
            near = find_name(left) if found else ""
            far = find_name(right) if near else ""
            if far:
                triple = (near, relation, far) if forward else (far, relation, near)
                if triple in graph:
                    return [(triple, True)]
                first = first or [(triple, False)]
    return first
