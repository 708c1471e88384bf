"""Reads Hetionet (Himmelstein et al. 2017): a folder with its table of nodes and its edges.

    hetionet-v1.0-nodes.tsv      id              name            kind
                                 Disease::DOID:9074  systemic lupus erythematosus  Disease
    hetionet-v1.0-edges.sif.gz   source          metaedge        target
                                 Disease::DOID:9074  DpS          Symptom::D005334

Either file may be gzipped or not. The 24 kinds of edges get the names of ``METAEDGES``.
"""

from __future__ import annotations

from pathlib import Path

from minifleming.rods.graph import Graph
from minifleming.rods.rows import Table
from minifleming.rods.triples import Builder
from minifleming.run.errors import BadInput

METAEDGES = {
    "AdG": "downregulates", "AeG": "expresses", "AuG": "upregulates", "CbG": "binds",
    "CcSE": "adverse_effect", "CdG": "downregulates", "CpD": "palliates", "CrC": "resembles",
    "CtD": "treats", "CuG": "upregulates", "DaG": "associated_gene", "DdG": "downregulates",
    "DlA": "affects", "DpS": "has_symptom", "DrD": "resembles", "DuG": "upregulates",
    "GcG": "covaries_with", "GiG": "interacts_with", "GpBP": "participates_in",
    "GpCC": "participates_in", "GpMF": "participates_in", "GpPW": "participates_in",
    "Gr>G": "regulates", "PCiC": "includes",
}


def files_of(folder: Path) -> tuple[Path, Path] | None:
    """Returns the nodes table and the edges of a folder in this layout, or None."""
    nodes = [path for path in folder.iterdir() if "nodes" in path.name and ".tsv" in path.suffixes]
    edges = [path for path in folder.iterdir() if ".sif" in path.suffixes]
    return (nodes[0], edges[0]) if len(nodes) == 1 and len(edges) == 1 else None


def read_hetionet(nodes: Path, edges: Path, source: str) -> Graph:
    """Returns the graph of the two files. Raises BadInput with file, line and reason."""
    known = read_nodes(nodes)
    builder = Builder()
    table = with_columns(edges, ("source", "metaedge", "target"))
    for line, (head, metaedge, tail) in table:
        if head not in known or tail not in known:
            unknown = tail if head in known else head
            table.refuse(line, f"'{unknown}' is not in {nodes.name}", counted=True)
        elif metaedge not in METAEDGES:
            table.refuse(line, f"'{metaedge}' is no metaedge", counted=True)
        else:
            ends = builder.ends((head, *known[head]), (tail, *known[tail]))
            builder.add(ends[0], METAEDGES[metaedge], ends[1])
    table.settle()
    if not builder.table:
        raise BadInput("no triples", edges)
    return builder.graph(source)


def read_nodes(path: Path) -> dict[str, tuple[str, str]]:
    """Returns (name, kind) by id."""
    table = with_columns(path, ("id", "name", "kind"))
    known = {}
    for line, (key, name, kind) in table:
        if not (key and name.strip() and kind):
            table.refuse(line, "an empty cell", counted=True)
        elif known.setdefault(key, (name, kind)) != (name, kind):
            table.refuse(line, f"'{key}' is there twice", counted=True)
    table.settle()
    return known


def with_columns(path: Path, columns: tuple[str, ...]) -> Table:
    table = Table(path)
    if tuple(table.columns) != columns:
        raise BadInput(f"the header is not {' '.join(columns)}", path, 1)
    return table
