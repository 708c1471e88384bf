"""PrimeKG's kg.csv (Chandak et al. 2023): a row an edge, every edge in both directions.

    relation,display_relation,x_index,x_id,x_type,x_name,x_source,y_index,y_id,y_type,y_name,y_source
    disease_phenotype_positive,phenotype present,1,2,disease,lupus,MONDO,5,6,effect/phenotype,fever,HPO

A mirrored pair is one edge here, kept from the type that ``NAMES`` (or else the alphabet) puts first; the graph is
walked both ways anyhow. Relations within one type keep both directions, as the file does not say which is meant.
"""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path

from minifleming.rods.graph import Graph
from minifleming.rods.rows import Table
from minifleming.rods.triples import Builder
from minifleming.run.errors import BadInput

COLUMNS = ("relation", "x_index", "x_type", "x_name", "y_index", "y_type", "y_name")
NAMES = {  # relation of the file: our relation, type of its head
    "disease_phenotype_positive": ("has_phenotype", "disease"),
    "disease_phenotype_negative": ("lacks_phenotype", "disease"),
    "disease_protein": ("associated_gene", "disease"),
    "indication": ("treats", "drug"),
    "off-label use": ("treats_off_label", "drug"),
    "contraindication": ("contraindicated_in", "drug"),
    "drug_effect": ("adverse_effect", "drug"),
    "drug_protein": ("targets", "drug"),
    "anatomy_protein_present": ("expresses", "anatomy"),
    "anatomy_protein_absent": ("does_not_express", "anatomy"),
}


def is_primekg(columns: list[str]) -> bool:
    return all(name in columns for name in COLUMNS)


def read_primekg(path: Path, source: str) -> Graph:
    """The graph of a kg.csv, plain or gzipped. Raises BadInput with file, line and reason."""
    table = Table(path)
    pick = itemgetter(*table.positions(COLUMNS))
    builder = Builder()
    for line, cells in table:
        relation, x, x_type, x_name, y, y_type, y_name = pick(cells)
        if not (relation and x_name.strip() and y_name.strip() and x_type and y_type):
            table.refuse(line, "an empty cell", counted=True)
            continue
        try:
            ends = builder.ends((x, x_name, x_type), (y, y_name, y_type))
        except ValueError as error:
            table.refuse(line, str(error), counted=True)
            continue
        name, first = NAMES.get(relation, (relation.replace(" ", "_"), min(x_type, y_type)))
        head, tail = ends if x_type == first else ends[::-1]
        builder.add(head, name, tail)
    table.settle()
    if not builder.table:
        raise BadInput("no triples", path)
    return builder.graph(source)
