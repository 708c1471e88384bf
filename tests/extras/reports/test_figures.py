"""Tests for extras/reports/figures.py: the pictures in docs/ are those that the command draws."""

import json
import xml.etree.ElementTree as xml
from pathlib import Path

from minifleming.extras.reports import figures

DOCS = Path(__file__).parents[3] / "docs" / "figures"


def test_the_committed_pictures_are_those_that_the_command_draws(tmp_path):
    (tmp_path / "learning_curve.json").write_bytes((DOCS / "learning_curve.json").read_bytes())
    assert figures.main(["--out", str(tmp_path)]) == 0
    for name in ("pipeline.svg", "learning_curve.svg", "learning_curve.json"):
        assert (tmp_path / name).read_bytes() == (DOCS / name).read_bytes(), name


def test_every_module_in_the_pipeline_picture_exists():
    for row in figures.BOXES:
        assert (DOCS.parents[1] / "minifleming" / row[-1]).exists(), row[-1]


def test_the_curve_has_one_point_a_step_and_one_dot_a_stage():
    curve = json.loads((DOCS / "learning_curve.json").read_text())
    picture = xml.fromstring(figures.learning_curve(curve))
    lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
    longest = max(len(line.get("points").split()) for line in lines)
    assert longest == len(curve["steps"])
    assert len(picture.findall("{http://www.w3.org/2000/svg}circle")) == 3


def test_smoothing_keeps_a_constant_and_averages_a_step():
    assert figures.smooth([0.5] * 20) == [0.5] * 20
    assert figures.smooth([0.0] * 20 + [1.0] * 20)[20] == 5 / 9
