"""Writes the pages and plots of an evaluation and of a run, all from stored records.

    scores.html, slices.csv, plots/*.svg                         write_pages
    report/ablation.html, ablation.svg, training.html            write_run_pages
    compare.md .csv .json, paired.csv                            write_comparison
"""

from __future__ import annotations

import json
from pathlib import Path

from minifleming.evaluation import tables
from minifleming.evaluation.records import right
from minifleming.evaluation.scores import Sets, scores, to_csv
from minifleming.extras.analysis import compare
from minifleming.extras.analysis.paper import differences
from minifleming.extras.analysis.slices import slices
from minifleming.extras.reports import plots, training
from minifleming.extras.reports.page import page
from minifleming.rlvr.log import step_path
from minifleming.run.checkpoint import write_text


def size_notes(sets: Sets) -> list[str]:
    """Returns a sentence for each public benchmark whose size is not the paper's."""
    return differences({name: len(records) for name, records in sets.items()})


def write_pages(out: Path, sets: Sets, confidence: float, more: dict[str, str],
                votes: dict[str, dict]) -> None:
    """Write the page of one model, its slices and its plots.

    ``more``: heading -> table in markdown; ``votes``: benchmark -> figures of votes.voted.
    """
    parts = {name: slices(records, right, confidence) for name, records in sets.items()}
    drawn = drawings(parts, votes)
    for name, svg in drawn.items():
        write_text(out / "plots" / f"{name}.svg", svg)
    rows = [{"benchmark": name} | row for name in parts for row in parts[name]]
    write_text(out / "slices.csv", to_csv(rows))
    html = page(out.name, sets, scores(sets, confidence), confidence, more, drawn)
    write_text(out / "scores.html", html)


def write_run_pages(folder: Path, records: tables.Records, confidence: float, text: str) -> None:
    """Write the pages of a run: Table 4, and the course of its training if it has any steps."""
    write_ablation(folder / "report", records, confidence, text)
    if step_path(folder, 1).exists():
        training.write_page(folder)


def write_ablation(out: Path, records: tables.Records, confidence: float, text: str) -> None:
    """Write ``ablation.html`` and, with matplotlib, ``ablation.svg``. ``text``: Table 4."""
    sets = {f"{variant}_{split}": found for (variant, split), found in records.items()}
    drawn = {}
    svg = plots.ablation(tables.ablation(records, confidence), tables.VARIANTS)
    if svg:
        drawn["ablation"] = svg
        write_text(out / "ablation.svg", svg)
    parts = {name: slices(found, right, confidence) for name, found in sets.items()}
    drawn |= drawings(parts, {})
    rows = scores(sets, confidence)
    html = page("Ablation", sets, rows, confidence, {"Table 4": text}, drawn)
    write_text(out / "ablation.html", html)


def drawings(parts: dict[str, list[dict]], votes: dict[str, dict]) -> dict[str, str]:
    """name -> SVG; empty without matplotlib, or where there is nothing to draw."""
    found = {f"{name}.slices": plots.by_slice(rows) for name, rows in parts.items()}
    for name, row in votes.items():
        title = f"{name}, {row['k']} samples"
        found[f"{name}.reliability"] = plots.reliability(row["reliability"], title)
    return {name: svg for name, svg in found.items() if svg}


def write_comparison(out: Path | None, models: dict[str, Sets], confidence: float) -> str:
    """Returns Table 3 and the paired tests as text, and writes them if ``out`` is given."""
    rows, pairs = compare.side_by_side(models, confidence), compare.compared(models, confidence)
    text = compare.table3(rows, confidence) + "\n\n" + compare.paired_markdown(pairs, confidence)
    if out:
        write_text(out / "compare.md", text + "\n")
        write_text(out / "compare.csv", to_csv(rows))
        write_text(out / "paired.csv", to_csv(pairs))
        both = {"models": rows, "paired": pairs}
        write_text(out / "compare.json", json.dumps(both, indent=1) + "\n")
    return text
