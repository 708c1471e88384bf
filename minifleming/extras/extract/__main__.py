"""Extracts triples with provenance from plain-text pages (arXiv:2509.15279 §3.1, discovery agent).

    python -m minifleming.rods.extract --pages FOLDER --lexicon embedded --out triples.tsv

    head    head_type  relation     tail     tail_type  source  sentence                      how
    gout    Disease    has_symptom  podagra  Symptom    gout    Podagra is typical of gout.   pattern

One line per triple and sentence; every command reads the file as a graph. pages.py splits pages
into sentences, lexicon.py and clauses.py link names and pronouns, relations.py finds the triples of
one sentence.

Research software, not for clinical use.
"""

from __future__ import annotations

from pathlib import Path

from minifleming.extras.extract.pages import read_pages
from minifleming.extras.extract.relations import Extracted, Relator
from minifleming.rods.readers import load_graph
from minifleming.rods.triples import COLUMNS
from minifleming.run.checkpoint import ensure_writable, write_text
from minifleming.run.errors import Parser, run_cli


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="extract", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--pages", type=Path, required=True,
                        help="a folder of UTF-8 *.txt files; the first line is the title")
    parser.add_argument("--lexicon", default="embedded",
                        help="embedded, or a triple file: names, types and relations")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    relator = Relator(load_graph(args.lexicon))
    pages = read_pages(args.pages)
    ensure_writable(args.out)
    found = relator.extract(pages)
    write_text(args.out, table(found, relator.types))
    triples = {row.triple for row in found}
    print(f"{len(found)} rows, {len(triples)} triples, {len(pages)} pages -> {args.out}")
    return 0


def table(found: list[Extracted], types: dict[str, str]) -> str:
    """Returns the triples as TSV. The source is the page's name."""
    rows = [(*COLUMNS, "source", "sentence", "how")]
    for (head, relation, tail), sentence in found:
        triple = (head, types[head], relation, tail, types[tail])
        rows.append((*triple, sentence.page, sentence.text, "pattern"))
    return "".join("\t".join(row) + "\n" for row in rows)


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
