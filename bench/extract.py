"""Extraction against labelled pages: `python bench/extract.py --out bench/results/extract_DATE.json`.

tests/extras/extract/pages holds sixteen pages of textbook prose, labels.tsv the triples that a reader finds in each sentence
(page, sentence number, head, relation, tail), split.tsv two halves of them. A label is a fact that its sentence
asserts of two names of the embedded graph, told by name, by an everyday synonym, by an abbreviation of the page or by a
word for the page's title. A triple counts as right if it is labelled for its very sentence.

One author wrote all pages and labels, and both halves have been looked at while the cues were chosen: what is measured
is the fit to these pages, not what new ones would give (docs/data.md has an estimate of that).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from minifleming.evaluation.statistics import wilson
from minifleming.extras.extract.pages import read_pages
from minifleming.extras.extract.relations import Relator
from minifleming.rods.item import Triple
from minifleming.rods.readers import load_graph

PAGES = Path(__file__).parents[1] / "tests" / "extras" / "extract" / "pages"
Fact = tuple[str, int, Triple]  # page, sentence number, triple


def rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]


def labels() -> set[Fact]:
    return {(page, int(number), (head, relation, tail)) for page, number, head, relation, tail
            in rows(PAGES / "labels.tsv")}


def predictions() -> set[Fact]:
    found = Relator(load_graph("embedded")).extract(read_pages(PAGES))
    return {(row.sentence.page, row.sentence.number, row.triple) for row in found}


def rate(right: int, n: int) -> dict:
    low, high = wilson(right, n)
    return {"right": right, "n": n, "rate": right / n if n else None, "low": low, "high": high}


def measure(part: str, found: set[Fact], wanted: set[Fact]) -> dict:
    """Precision and recall on the pages of one part, and (labelled, found, right) of each relation."""
    pages = {page for page, name in rows(PAGES / "split.tsv") if name == part}
    found = {fact for fact in found if fact[0] in pages}
    wanted = {fact for fact in wanted if fact[0] in pages}
    right = found & wanted
    count = [Counter(fact[2][1] for fact in facts) for facts in (wanted, found, right)]
    return {"part": part, "pages": len(pages), "precision": rate(len(right), len(found)),
            "recall": rate(len(right), len(wanted)),
            "relations": {r: [c[r] for c in count] for r in sorted(count[0] | count[1])}}


def markdown(results: list[dict]) -> str:
    def cell(r: dict) -> str:
        share = "-" if r["rate"] is None else f"{100 * r['rate']:.1f}"
        return f"{share} [{100 * r['low']:.1f}, {100 * r['high']:.1f}] ({r['right']} of {r['n']})"

    lines = ["| pages | precision | recall |", "|---|---|---|"]
    lines += [f"| {r['part']} ({r['pages']}) | {cell(r['precision'])} | {cell(r['recall'])} |" for r in results]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("dev", "test"), help="only these pages (default: both)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found, wanted = predictions(), labels()
    results = [measure(part, found, wanted) for part in ([args.part] if args.part else ["dev", "test"])]
    print(markdown(results), end="")
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
