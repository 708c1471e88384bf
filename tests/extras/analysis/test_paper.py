"""The sizes of extras/analysis/paper.py against the real files, where they are; and what is said of other sizes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minifleming.evaluation.benchmarks import BENCHMARKS, read_set
from minifleming.extras.analysis.paper import SIZES, differences

FILES = {"medqa": "medqa_test_4options.jsonl", "medmcqa": "medmcqa_dev.jsonl",
         "pubmedqa_test": "pubmedqa_ori_pqal.json", "pubmedqa": "pubmedqa_ori_pqal.json",
         "medbullets": "medbullets_op4.json"}
FOLDER = Path(os.environ.get("MINIFLEMING_DATA", "nowhere")) / "benchmarks"


def test_nine_benchmarks_each_with_a_reader():
    assert len(SIZES.keys() - {"pubmedqa"}) == 9, "pubmedqa is pubmedqa_test read whole"
    assert SIZES.keys() <= BENCHMARKS.keys()
    assert sum(size.items for name, size in SIZES.items() if name != "pubmedqa") == 16860


def test_only_other_sizes_are_worth_a_sentence():
    assert differences({name: size.items for name, size in SIZES.items()}) == []
    assert differences({"mine": 3}) == []
    less, more = differences({"medqa": 200, "medbullets": 308})
    assert less == "medqa has 200 items here and 1,273 in the paper: a part of it."
    assert more.startswith("medbullets has 308 items here and 298 in the paper: ten of the 308 questions come twice")


@pytest.mark.skipif(not FOLDER.is_dir(), reason="MINIFLEMING_DATA does not hold benchmarks")
@pytest.mark.parametrize("name", FILES)
def test_the_real_files_have_the_papers_sizes_or_a_reason(name):
    items, _ = read_set(name, FOLDER / FILES[name])
    assert len(items) == {"pubmedqa": 1000, "medbullets": 308}.get(name, SIZES[name].items)
    if name == "medbullets":
        assert len({item.question for item in items}) == SIZES[name].items
