"""Look up in the graph what a reasoning states: a *measure* of it, never a reward.

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
ANDS = 3
LONGEST = 100_000  # characters
STOP = re.compile(r"\s*([.,;:!?])(?=\s|$)")
PROSE = re.compile(r" [.;:!?](?: |$)|,? (?:so|thus|therefore|hence|which means that|but|whereas|while)(?: ,)? ")
OPENING = re.compile(r"^(?:(?:and|so|thus|therefore|hence|then|since|because|the|an?|this patient's|his|her)(?: ,)? "
                     r"|(?:first|next|finally) , ){0,3}")
POINTING = re.compile(r" (?:suggests?|indicates?|strongly points? to) ")

Names = Callable[[str], str]  # the graph's name that a text is, or ""


def stated_hops(reasoning: str, graph: Graph) -> list[tuple[Triple, bool]]:
    """Every edge that the reasoning states, in order, and whether the graph has it."""
    text = reasoning.strip()[:LONGEST]
    hops = _hops(CLAUSE.split(text), graph, lambda name: name if name in graph.node_id else "")
    if hops:
        return hops
    known = folded(graph)
    prose = POINTING.sub(" point to ", STOP.sub(r" \1", " ".join(text.split()))).casefold()
    clauses = [OPENING.sub("", clause.strip(" ,")) for clause in PROSE.split(prose)]
    return _hops(clauses, graph, lambda name: known.get(name) or known.get(OPENING.sub("", name), ""), strict=False)


def _hops(clauses: list[str], graph: Graph, named: Names, strict: bool = True) -> list[tuple[Triple, bool]]:
    """``strict``: an unknown name in a list is a false hop; otherwise its clause is passed over."""
    hops: list[tuple[Triple, bool]] = []
    for clause in clauses:
        found = _pointing(clause.strip(), graph, named)
        if strict or all(named(finding.casefold()) for (_, _, finding), _ in found):
            hops += found or _relation(clause.strip(), graph, named)
    return hops


@lru_cache(2)
def folded(graph: Graph) -> dict[str, str]:
    """Each name in lower case and spaced as prose is before it is read -> the name; of two alike, the first."""
    known: dict[str, str] = {}
    for name in graph.names:
        known.setdefault(STOP.sub(r" \1", name).casefold(), name)
    return known


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


def _pointing(clause: str, graph: Graph, named: Names) -> list[tuple[Triple, bool]]:
    for verb in (" points to ", " point to "):
        left, found, right = clause.partition(verb)
        if found and (root := named(right)):
            hops = []
            for finding in _names(left, named):
                relations = [r for r in EVIDENCE if (root, r, finding) in graph]
                hops.append(((root, relations[0] if relations else EVIDENCE[0], finding), bool(relations)))
            return hops
    return []


def _names(text: str, named: Names) -> list[str]:
    """The listed names; a name may itself contain "and", up to ``ANDS`` times. Linear in the text."""
    if name := named(text):
        return [name]
    names, parts, at = [], LIST.split(text), 0
    while at < len(parts):
        for n in range(min(len(parts) - at, 1 + ANDS), 0, -1):
            joined = " and ".join(parts[at : at + n])
            if (name := named(joined)) or n == 1:
                names.append(name or joined)
                at += n
                break
    return names


def _relation(clause: str, graph: Graph, named: Names) -> list[tuple[Triple, bool]]:
    """The first reading of the clause that is an edge; failing that, the first that names two nodes."""
    readings: list[Triple] = []
    for relation in (*EMBEDDED_RELATIONS, *(r for r in graph.relations if r not in EMBEDDED_RELATIONS)):
        for forward in (True, False):
            verb = phrase(relation, forward).verb
            left, found, right = clause.partition(f" {verb} ")
            if found and (one := named(left)) and (other := named(right)):
                readings.append((one, relation, other) if forward else (other, relation, one))
    edges = [triple for triple in readings if triple in graph]
    return [(edges[0], True)] if edges else [(readings[0], False)] if readings else []
