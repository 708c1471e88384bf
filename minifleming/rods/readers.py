"""A graph by its name: embedded, hpo, or a path.

    embedded             the graph of this project, assets/graph.tsv (docs/graph.md)
    hpo, or its folder   the Human Phenotype Ontology                  extras/graphs/hpo.py
    FOLDER               Hetionet: nodes.tsv and edges.sif.gz          extras/graphs/hetionet.py
    kg.csv               PrimeKG, recognized by its columns            extras/graphs/primekg.py
    any other file       a triple file, TSV or CSV, plain or gzipped   triples.py
"""

from __future__ import annotations

from pathlib import Path

from minifleming.extras.graphs import hetionet, hpo, primekg
from minifleming.extras.graphs.cache import cached
from minifleming.rods.graph import Graph
from minifleming.rods.rows import Table
from minifleming.rods.triples import read_triples
from minifleming.run.errors import BadInput

EMBEDDED = Path(__file__).parents[1] / "assets" / "graph.tsv"


def load_graph(source: str, columns: str = "") -> Graph:
    """Returns the graph of a source; ``columns`` as in triples.py, for a triple file.

    A malformed row is named with file, line and reason; more than 1 % of them raise BadInput.
    """
    path = Path(source)
    if source == "embedded":
        path = EMBEDDED
    elif source == "hpo":
        path = hpo.package_folder()
    if columns and (source == "embedded" or path.is_dir()):
        raise BadInput("--columns: only a triple file has columns to name", path)
    if path.is_dir():
        return read_folder(path, source)
    table = Table(path, header=not columns)
    if primekg.is_primekg(table.columns):
        graph = cached([path], "primekg", lambda: primekg.read_primekg(path, source))
    else:
        key = f"triples {table.delimiter!r} {columns}"
        graph = cached([path], key, lambda: read_triples(path, source, columns))
    graph.source = source
    return graph


def read_folder(path: Path, source: str) -> Graph:
    """Returns the graph of a folder of the Human Phenotype Ontology or of Hetionet."""
    if hpo.is_hpo(path):
        return cached([path / name for name in hpo.FILES], "hpo", lambda: hpo.read_hpo(path))
    files = hetionet.files_of(path)
    if files is None:
        raise BadInput("Is a directory, and holds neither the files of the Human Phenotype "
                       f"Ontology ({', '.join(hpo.FILES)}) nor Hetionet's (a nodes .tsv and an "
                       "edges .sif)", path)
    graph = cached(list(files), "hetionet", lambda: hetionet.read_hetionet(*files, source))
    graph.source = source
    return graph
