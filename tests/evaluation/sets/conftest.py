"""Fixtures that write a file of invented questions and read it as a set."""

import pytest
from made_sets import LAYOUTS

from minifleming.evaluation.sets.read import read_set


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
    """read("medqa", records) -> (items, unusable rows)."""
    return lambda layout, records, name=None: read_set(name or LAYOUTS[layout][0], put(layout, records))
