"""Writes the pages and plots of an evaluation and of a run, all from stored records.

    scores.html, plots/*.svg,             robust.md .json, votes.md .json    write_pages
    report/ablation.html, ablation.svg, training.html                        write_run_pages
    compare.md .json                                                         write_comparison
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minifleming.evaluation.evaluate import read_folder
from minifleming.evaluation.tables import VARIANTS, Records, Sets, ablation, score_rows, write_table
from minifleming.extras.analysis import Analysis, compare
from minifleming.extras.analysis.paper import differences
from minifleming.extras.analysis.slices import slices
from minifleming.extras.reports import plots, training
from minifleming.extras.reports.page import evaluation_page
from minifleming.rlvr.log import step_path
from minifleming.run.checkpoint import write_text
from minifleming.run.errors import BadInput


def size_notes(sets: Sets) -> list[str]:
    """Returns a sentence for each public benchmark whose size is not the paper's."""
    return differences({name: len(records) for name, records in sets.items()})


def write_pages(out: Path, sets: Sets, confidence: float, analyses: Sequence[Analysis]) -> list[str]:
    """Writes the page of one model, its slices, plots and analyses; returns the tables of these."""
    more, drawn = {}, {}
    for name, records in sets.items():
        drawn[f"{name}.slices"] = plots.by_slice(slices(records, confidence))
    for analysis in analyses:
        more[analysis.heading] = write_table(out / analysis.name, analysis.rows, analysis.text)
        for name, row in analysis.rows.items():
            if "reliability" in row:
                title = f"{name}, {row['k']} samples"
                drawn[f"{name}.reliability"] = plots.reliability(row["reliability"], title)
    drawn = {name: svg for name, svg in drawn.items() if svg}
    for name, svg in drawn.items():
        write_text(out / "plots" / f"{name}.svg", svg)
    page = evaluation_page(out.name, sets, score_rows(sets, confidence), confidence, more, drawn)
    write_text(out / "scores.html", page)
    return list(more.values())


def write_run_pages(run: Path, records: Records, confidence: float, text: str) -> None:
    """Writes the pages of a run: Table 4, and the course of its training if it has any steps."""
    write_ablation_page(run / "report", records, confidence, text)
    if step_path(run, 1).exists():
        training.write_page(run)


def write_ablation_page(out: Path, records: Records, confidence: float, text: str) -> None:
    """Writes ``ablation.html`` and ``ablation.svg``. ``text``: Table 4."""
    sets, drawn = {}, {"ablation": plots.ablation(ablation(records, confidence), VARIANTS)}
    if drawn["ablation"]:
        write_text(out / "ablation.svg", drawn["ablation"])
    for (variant, split), found in records.items():
        name = f"{variant}_{split}"
        sets[name] = found
        drawn[f"{name}.slices"] = plots.by_slice(slices(found, confidence))
    more = {"Table 4": text}
    page = evaluation_page("Ablation", sets, score_rows(sets, confidence), confidence, more, drawn)
    write_text(out / "ablation.html", page)


def write_comparison(out: Path | None, folders: list[Path], confidence: float) -> str:
    """Returns Table 3 and the paired tests of the evaluations in ``folders``; writes them to ``out``."""
    if len(folders) < 2:
        raise BadInput("--compare: two folders are needed")
    names = [folder.name for folder in folders]
    models = {}
    for folder in folders:
        name = folder.name if names.count(folder.name) == 1 else str(folder)
        models[name] = read_folder(folder)
    if len(models) < len(folders):
        raise BadInput("--compare: a folder comes twice")
    rows = compare.side_by_side(models, confidence)
    pairs = compare.compared(models, confidence)
    text = compare.table3(rows, confidence) + "\n\n" + compare.paired_markdown(pairs, confidence)
    if out:
        write_table(out / "compare", {"models": rows, "paired": pairs}, text)
    return text
