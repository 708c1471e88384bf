"""Look up in the graph what a reasoning states: a *measure* of it, never a reward.

A clause "X verb Y" whose verb is a relation's phrase and whose X and Y are names of the graph states an edge;
"X and Y point to Z" states one for each finding. Clauses that state nothing ("R lacks rash", "back") are passed
over.
"""

from __future__ import annotations

import re

from minifleming.rods.graph import Graph
from minifleming.rods.item import Triple
from minifleming.rods.phrases import PHRASES, phrase
from minifleming.rods.walk import EVIDENCE

CLAUSE = re.compile(r" \. | : | \.$|^wait , | wait , ")
LIST = re.compile(r" , | and ")
ANDS = 3


def stated_hops(reasoning: str, graph: Graph) -> list[tuple[Triple, bool]]:
    """Every edge that the reasoning states, in order, and whether the graph has it."""
    hops: list[tuple[Triple, bool]] = []
    for clause in CLAUSE.split(reasoning.strip()[:100_000]):
        hops += _pointing(clause.strip(), graph) or _relation(clause.strip(), graph)
    return hops


def support(reasoning: str, chosen: str, graph: Graph) -> str:
    """How the reasoning carries the chosen option's text.

    chain   every stated hop is an edge, and the last one touches what was chosen
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


def _pointing(clause: str, graph: Graph) -> list[tuple[Triple, bool]]:
    for verb in (" points to ", " point to "):
        left, found, root = clause.partition(verb)
        if found and root in graph.number:
            hops = []
            for finding in _names(left, graph):
                relations = [r for r in EVIDENCE if (root, r, finding) in graph]
                hops.append(((root, relations[0] if relations else EVIDENCE[0], finding), bool(relations)))
            return hops
    return []


def _names(text: str, graph: Graph) -> list[str]:
    """The listed names; a name may itself contain "and", up to ``ANDS`` times. Linear in the text."""
    if text in graph.number:
        return [text]
    names, parts, at = [], LIST.split(text), 0
    while at < len(parts):
        for n in range(min(len(parts) - at, 1 + ANDS), 0, -1):
            joined = " and ".join(parts[at : at + n])
            if joined in graph.number or n == 1:
                names.append(joined)
                at += n
                break
    return names


def _relation(clause: str, graph: Graph) -> list[tuple[Triple, bool]]:
    """The first reading of the clause that is an edge; failing that, the first that names two nodes."""
    readings: list[Triple] = []
    for relation in (*PHRASES, *(r for r in graph.relations if r not in PHRASES)):
        words = phrase(relation)
        for verb, forward in ((words.forward, True), (words.backward, False)):
            left, found, right = clause.partition(f" {verb} ")
            if found and left in graph.number and right in graph.number:
                readings.append((left, relation, right) if forward else (right, relation, left))
    edges = [triple for triple in readings if triple in graph]
    return [(edges[0], True)] if edges else [(readings[0], False)] if readings else []
