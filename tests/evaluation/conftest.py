"""Fixtures that write a file of invented questions and read it as a public benchmark."""

import json
from pathlib import Path

import pytest
from made_sets import LAYOUTS

from minifleming.evaluation.benchmarks import read_set

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def put(tmp_path):
    """put("medqa", records) -> the path of a file of these records in that layout."""
    def write(layout, records):
        _, name, _, text_of = LAYOUTS[layout]
        (tmp_path / name).write_text(text_of(records), encoding="utf-8", newline="")
        return tmp_path / name
    return write


@pytest.fixture
def read(put):
    """read("medqa", records) -> (items, rows without item)."""
    return lambda layout, records, name=None: read_set(name or LAYOUTS[layout][0], put(layout, records))


@pytest.fixture(scope="session")
def cases():
    return json.loads((DATA / "benchmark_cases.json").read_text(encoding="utf-8"))
