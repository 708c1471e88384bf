"""Small graphs for the tests of this folder, and joins over a plain set of triples that use none of our code."""

from collections import defaultdict

from minifleming.rods.graph import Graph

Triple = tuple[str, str, str]


def build(triples: list[Triple], kinds: dict[str, str] | None = None) -> Graph:
    """A graph whose nodes have the type of their first letter, or the one that ``kinds`` gives."""
    names = dict.fromkeys(name for head, _, tail in triples for name in (head, tail))
    letters = {"d": "Disease", "s": "Symptom", "x": "Drug", "m": "Mechanism", "a": "DrugAction", "p": "Prevalence"}
    types = {name: (kinds or {}).get(name) or letters.get(name[0], "Thing") for name in names}
    return Graph(types, triples, "toy")


def clinic() -> Graph:
    """Four diseases that share findings two by two, each with a drug, each drug with an action."""
    findings = {"d1": "s1 s2 s3", "d2": "s1 s2 s4", "d3": "s1 s3 s4", "d4": "s2 s3 s4 s5"}
    triples = [(d, "has_symptom", s) for d, names in findings.items() for s in names.split()]
    for n in "1234":
        triples += [(f"d{n}", "first_line_treatment", f"x{n}"), (f"x{n}", "drug_mechanism", f"a{n}")]
    return build(triples)


def neighbours(triples: list[Triple]) -> tuple[dict, dict]:
    """{(head, relation): tails} and {(tail, relation): heads}, as sets."""
    out, into = defaultdict(set), defaultdict(set)
    for head, relation, tail in triples:
        out[head, relation].add(tail)
        into[tail, relation].add(head)
    return out, into


def solutions(query: list[Triple], variables: set[str], wanted: str, triples: list[Triple]) -> set[str]:
    """Every node that ``wanted`` can stand for, by set logic alone: all nodes are candidates for every variable,
    and the triples cross candidates out until nothing changes. Exact where the variables form a tree, which is
    asserted: one triple fewer between two variables than there are variables."""
    nodes = {name for head, _, tail in triples for name in (head, tail)}
    used = {name for head, _, tail in query for name in (head, tail)} & variables
    inner = {(head, relation, tail) for head, relation, tail in query if head in variables and tail in variables}
    assert len(inner) == len(used) - 1 and wanted in used
    pairs = defaultdict(list)
    for head, relation, tail in triples:
        pairs[relation].append((head, tail))
    left = {name: set(nodes) if name in variables else {name} for head, _, tail in query for name in (head, tail)}
    changed = True
    while changed:
        changed = False
        for head, relation, tail in query:
            kept = [(a, b) for a, b in pairs[relation] if a in left[head] and b in left[tail]]
            for name, fits in ((head, {a for a, _ in kept}), (tail, {b for _, b in kept})):
                if not left[name] <= fits:
                    left[name] &= fits
                    changed = True
    return left[wanted]
