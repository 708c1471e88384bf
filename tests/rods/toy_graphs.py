"""Small graphs for the tests of this folder, and joins over a plain set of triples that use none of our code."""

from collections import defaultdict

import numpy as np

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


def closed(triples: list[Triple], told: set[str]) -> list[Triple]:
    """The triples, and for each told finding those that follow by is_a: who has the special one has it too."""
    parents = defaultdict(set)
    for head, relation, tail in triples:
        if relation == "is_a":
            parents[head].add(tail)
    more = dict.fromkeys(triples)
    for head, relation, tail in triples:
        above, fresh = set(), {tail}
        while fresh:
            above |= fresh
            fresh = {parent for name in fresh for parent in parents[name]} - above
        if relation != "is_a":
            more.update(dict.fromkeys((head, relation, name) for name in sorted(above & told)))
    return list(more)


def solutions(query: list[Triple], variables: set[str], wanted, triples: list[Triple]) -> set:
    """Every node that ``wanted`` can stand for, or every tuple of nodes if it is a tuple of names, by set logic alone:
    all nodes are candidates for every variable, the triples cross candidates out until nothing changes, and what is
    left is tried in every combination."""
    names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    nodes = {name for head, _, tail in triples for name in (head, tail)}
    used = {name for head, _, tail in query for name in (head, tail)} & variables
    assert set(names) <= used
    pairs = defaultdict(set)
    for head, relation, tail in triples:
        pairs[relation].add((head, tail))
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
    rows = [{}]
    for name in left:
        rows = [row | {name: value} for row in rows for value in left[name]]
        rows = [row for row in rows if all((row[h], row[t]) in pairs[r] for h, r, t in query if h in row and t in row)]
    found = {tuple(row[name] for name in names) for row in rows}
    return {values[0] for values in found} if isinstance(wanted, str) else found


FINDINGS = {  # invented: each general finding and its more special ones
    "brittle toes": ["mildly brittle toes", "severely brittle toes"], "severely brittle toes": ["glassy toes"],
    "blue shadow": ["dark blue shadow", "pale blue shadow"], "humming": ["loud humming", "nightly humming"],
    "loud humming": ["deafening humming"], "slow blinking": [], "square freckles": ["many square freckles"],
    "cold elbows": ["cold left elbow", "cold right elbow"], "sweet tears": [], "hiccup, endless": [],
    "late yawning": [],
}
ONSETS = ("Infantile onset", "Childhood onset", "Adult onset", "Late onset")
INHERITANCES = ("Autosomal dominant inheritance", "Autosomal recessive inheritance", "X-linked recessive inheritance")
SURNAMES = ("Abano Belfi Corvin Dravik Elstra Fonzel Gurnow Hestal Ilvane Jorrek Kasmir Lodrun Mervat Nuland Ostrik "
            "Pelgor Quendi Rostam Selvig Tarnow Ulbert Vandor Wexlin Yorvik").split()
FREQUENCIES = (float("nan"), 0.02, 0.1, 0.5, 1.0)


def genetics(seed: int = 0) -> Graph:
    """24 invented diseases in the shape of extras/graphs/hpo.py: phenotypes in a tree, with frequencies, and some excluded;
    an inheritance, mostly an onset, a gene that two or three diseases share, and varieties of a disease by is_a."""
    rng = np.random.default_rng(seed)
    terms = list(dict.fromkeys([*FINDINGS, *(child for children in FINDINGS.values() for child in children)]))
    diseases = [f"{name} syndrome" for name in SURNAMES]
    types = dict.fromkeys(diseases, "Disease") | dict.fromkeys(terms, "Phenotype")
    types |= dict.fromkeys(ONSETS, "Onset") | dict.fromkeys(INHERITANCES, "Inheritance")
    types |= {f"GEN{i}": "Gene" for i in range(10)}
    triples = [(child, "is_a", parent) for parent, children in FINDINGS.items() for child in children]
    shares = [float("nan")] * len(triples)
    for i, disease in enumerate(diseases):
        chosen = [terms[k] for k in rng.permutation(len(terms))[:rng.integers(4, 9)]]
        triples += [(disease, "has_phenotype", term) for term in chosen[1:]]
        shares += [FREQUENCIES[rng.integers(5)] for _ in chosen[1:]]
        more = [(disease, "lacks_phenotype", chosen[0]), (disease, "associated_gene", f"GEN{i % 10}"),
                (disease, "has_inheritance", INHERITANCES[rng.integers(3)])]
        more += [(disease, "has_onset", ONSETS[rng.integers(4)])] if i % 5 else []
        more += [(disease, "is_a", diseases[i - 1])] if i % 8 == 7 else []
        triples += more
        shares += [float("nan")] * len(more)
    return Graph(types, triples, "genetics", shares)


def in_chinese(graph: Graph) -> dict[str, str]:
    """A made-up Chinese name for every node: characters by its number."""
    digits = "甲乙丙丁戊己庚辛壬癸"
    return {name: "名" + "".join(digits[int(d)] for d in str(i)) for i, name in enumerate(graph.names)}
