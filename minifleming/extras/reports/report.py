"""The files that an evaluation ends with, all made from its records.

    scores.md .csv .json .html, slices.csv, plots/*.svg          write_scores
    robust.md .json, votes.md .json                              write_rows, before write_scores: the page shows them
    compare.md .csv .json                                        write_comparison
"""

from __future__ import annotations

import json
from pathlib import Path

from minifleming.evaluation import scores
from minifleming.evaluation.records import right
from minifleming.evaluation.scores import Sets
from minifleming.extras.analysis import compare
from minifleming.extras.analysis.slices import slices
from minifleming.extras.reports import page, plots
from minifleming.run.checkpoint import write_text


def write_scores(out: Path, sets: Sets, confidence: float, more: dict[str, str], votes: dict[str, dict]) -> str:
    """The tables of one model; returns the main one. ``more``: heading -> table, in markdown, for the page."""
    rows = scores.scores(sets, confidence)
    averages = {"macro": scores.macro(sets, confidence), "micro": scores.micro(sets, confidence)}
    text = scores.markdown(rows, averages, confidence)
    parts = {name: slices(records, right, confidence) for name, records in sets.items()}
    drawn = drawings(parts, votes)
    for name, svg in drawn.items():
        write_text(out / "plots" / f"{name}.svg", svg)
    write_text(out / "scores.md", text + "\n")
    write_text(out / "scores.csv", scores.to_csv(rows))
    write_text(out / "slices.csv", scores.to_csv([{"benchmark": name} | row for name in parts for row in parts[name]]))
    write_text(out / "scores.json", json.dumps({"benchmarks": rows, **averages, "slices": parts}, indent=1) + "\n")
    write_text(out / "scores.html", page.page(out.name, sets, rows, confidence, more, drawn))
    return text


def drawings(parts: dict[str, list[dict]], votes: dict[str, dict]) -> dict[str, str]:
    """name -> SVG; without matplotlib, or where there is nothing to draw, none."""
    found = {f"{name}.slices": plots.by_slice(rows) for name, rows in parts.items()}
    found |= {f"{name}.reliability": plots.reliability(row["reliability"], f"{name}, {row['k']} samples")
              for name, row in votes.items()}
    return {name: svg for name, svg in found.items() if svg}


def write_rows(out: Path, name: str, rows: dict, text: str) -> str:
    write_text(out / f"{name}.md", text + "\n")
    write_text(out / f"{name}.json", json.dumps(rows, indent=1) + "\n")
    return text


def write_comparison(out: Path | None, models: dict[str, Sets], confidence: float) -> str:
    """Table 3 and the paired tests; returns both as text, and writes them if there is a folder to write to."""
    rows, pairs = compare.side_by_side(models, confidence), compare.compared(models, confidence)
    text = compare.table3(rows, confidence) + "\n\n" + compare.paired_markdown(pairs, confidence)
    if out:
        write_text(out / "compare.md", text + "\n")
        write_text(out / "compare.csv", scores.to_csv(rows))
        write_text(out / "paired.csv", scores.to_csv(pairs))
        write_text(out / "compare.json", json.dumps({"models": rows, "paired": pairs}, indent=1) + "\n")
    return text
