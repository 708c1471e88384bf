"""Tests for extras/reports/plots.py: a mark for each value, equal bytes for equal values."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np

from minifleming.evaluation.tables import VARIANTS, write_scores
from minifleming.extras.analysis import Analysis
from minifleming.extras.analysis.calibration import reliability
from minifleming.extras.analysis.slices import slices
from minifleming.extras.reports import plots
from minifleming.extras.reports.report import write_pages


def rows_of(*variants: str) -> list[dict]:
    return [{"variant": v, "split": s, "n": 100, "accuracy": 0.1 * i + 0.3, "ci_low": 0.1 * i + 0.2,
             "ci_high": 0.1 * i + 0.4} for i, v in enumerate(variants) for s in ("heldout", "longer_hops")]


def marks(svg: str) -> int:
    """Markers placed in the charts."""
    return svg.count("<circle")


def records(n: int) -> list[dict]:
    return [{"item": f"i{i}", "answer": "A", "strict": "AB"[i % 3 == 0], "lenient": "A", "kind": "ok", "options": 4,
             "hops": 1 + i % 3, "rarity": 0.1 + i, "tokens": 9, "support": ""} for i in range(n)]


def test_a_plot_is_well_formed_says_its_figures_and_repeats_its_bytes():
    rows = slices(records(600))
    for draw in (lambda: plots.ablation(rows_of("base", "rl_stage1"), VARIANTS), lambda: plots.by_slice(rows),
                 lambda: plots.reliability(reliability(np.array([0.25, 0.9]), np.array([0, 1])), "x < y")):
        svg = draw()
        assert ElementTree.fromstring(svg).tag.endswith("svg") and svg == draw()
    less = marks(plots.ablation(rows_of("base"), VARIANTS))
    assert marks(plots.ablation(rows_of("base", "rl_stage1", "rl_stage2"), VARIANTS)) > less


def test_nothing_to_draw_is_no_drawing():
    assert plots.ablation([], VARIANTS) == plots.by_slice([]) == ""
    assert plots.by_slice(slices(records(20))) == "", "slices too small to have a figure"
    assert plots.reliability(reliability(np.array([]), np.array([])), "x") == ""


def test_the_files_of_an_evaluation(tmp_path):
    voted = {"kg": {"k": 4, "reliability": reliability(np.array([0.25, 0.9]), np.array([0, 1]))}}
    analyses = [Analysis("votes", "Several", voted, "| a |\n|---|\n| 1 |")]
    text = write_scores(tmp_path, {"kg": records(600)}, 0.95)
    assert write_pages(tmp_path, {"kg": records(600)}, 0.95, analyses) == [analyses[0].text]
    assert text + "\n" == (tmp_path / "scores.md").read_text() and "| kg | 600 |" in text
    page = (tmp_path / "scores.html").read_text()
    drawn = sorted(path.name for path in tmp_path.glob("plots/*"))
    assert drawn == ["kg.reliability.svg", "kg.slices.svg"]
    assert "<h2>Several</h2>" in page and page.count("<svg") >= 2 + len(drawn)
    assert all(word not in page for word in ("src=", "<script", "@import")) and "href=\"http" not in page
