"""Tests for the page of a run: all of its parts, and nothing in it that a browser would run."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest

from minifleming.audit.reader import read_lines
from minifleming.extras.reports import plots, training
from minifleming.run.errors import run_cli
from tests.audit.test_audit import make_run, settings


@pytest.fixture(scope="module")
def run(talker, tokenizer, tmp_path_factory):
    cfg = settings()
    cfg.run.out, cfg.data.graph = "runs/<script>alert(1)</script>", ""
    folder = make_run(talker, tokenizer, tmp_path_factory.mktemp("reported"), cfg)
    (folder / "alarms.jsonl").write_text(json.dumps(
        {"step": 2, "round": 0, "alarm": "flat", "words": "<b>x</b>"}) + "\n")
    return folder


def page_of(run) -> str:
    return training.write_page(run).read_text(encoding="utf-8")


def test_the_page_has_its_parts_and_figures_of_the_log(run):
    page = page_of(run)
    for heading in ("Stages", "Mining", "Transitions at round 1", "Transitions at round 2", "Alarms",
                    "Reasoning before and after"):
        assert heading in page
    assert "not for clinical use" in page and "Stage 1 ended after step 5: max_steps" in page
    metrics = [json.loads(line) for line in read_lines(run / "metrics.jsonl")]
    names = ("round", "step", "right", "middle", "wrong", "quarantine")
    for entry in (m for m in metrics if m["stage"] == "mining"):
        cells = "".join(f"<td>{entry[name]}</td>" for name in names)
        assert cells in page
    shown = re.findall(r"<p>Step (\d+), reward ([\d.]+) \(", page)
    assert "&lt;think&gt;" in page and shown and {reward for _, reward in shown} <= {"0.0", "0.1", "1.1"}
    assert all(int(early) <= 2 < 10 <= int(late) for (early, _), (late, _) in zip(shown[::2], shown[1::2]))


def test_nothing_from_a_log_is_markup(run):
    page = page_of(run)
    assert "<script" not in page and "<b>x" not in page and "&lt;b&gt;x" in page
    assert not re.search(r"(src|href)=[\"']?https?:", page), "nothing is fetched"


def test_the_curves_are_one_svg_and_the_same_every_time(run):
    page = page_of(run)
    svg = page[page.index("<svg") : page.index("</svg>") + 6]
    assert ET.fromstring(svg).tag.endswith("svg") and page_of(run) == page
    drawings = plots.training([{"step": 1, "reward": 0.5, "logprob_diff_max": 0.0}], [], [])
    assert drawings.startswith("<svg"), "a run of one step, without mining"


def test_how_right_answers_are_carried():
    """Counts and shares by kind; a run without right answers has no such table."""
    assert training.support_table([]) == ""
    text = training.support_table([{"step": 3, "right": 4, "chain": 3, "false": 1}])
    assert "<td>3</td><td>4</td><td>0.750</td><td>0.000</td><td>0.250</td><td>0.000</td>" in text


@pytest.mark.parametrize("make, reason", [(lambda f: None, "not a run folder"),
                                          (lambda f: (f / "config.toml").write_text(""), "no rollouts")])
def test_what_is_no_run_is_one_line(tmp_path, capsys, make, reason):
    make(tmp_path)
    assert run_cli(training.main, [str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1
