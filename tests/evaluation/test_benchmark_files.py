"""Tests on the public files themselves: counts, right labels, and agreement of two copies of a benchmark."""

import collections
import json
import os
import re
from pathlib import Path

import pytest

from minifleming.evaluation.benchmarks import read_set
from minifleming.run.errors import BadInput

DATA = Path(os.environ.get("MINIFLEMING_DATA", "nowhere"))
BENCHMARKS, SAMPLES = DATA / "benchmarks", DATA / "samples"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="MINIFLEMING_DATA does not hold benchmarks")

GOLDS = [
    ("medqa", "medqa_test_4options.jsonl", {"A": 353, "B": 309, "C": 346, "D": 265}),
    ("medqa", "medqa_test_5options.jsonl", {"A": 273, "B": 277, "C": 252, "D": 269, "E": 202}),
    ("medqa", "medqa_dev_with_explanations.jsonl", {"A": 330, "B": 316, "C": 352, "D": 274}),
    ("medmcqa", "medmcqa_dev.jsonl", {"A": 1348, "B": 1085, "C": 925, "D": 825}),
    ("medmcqa_from1", "medmcqa_dev.jsonl", {"A": 1348, "B": 1085, "C": 925, "D": 825}),
    ("pubmedqa", "pubmedqa_ori_pqal.json", {"A": 552, "B": 338, "C": 110}),
    ("pubmedqa_test", "pubmedqa_ori_pqal.json", {"A": 276, "B": 169, "C": 55}),
    ("mmlu", "mmlu", {"A": 235, "B": 254, "C": 248, "D": 352}),
    ("medbullets", "medbullets_op4.json", {"A": 87, "B": 76, "C": 77, "D": 68}),
    ("medbullets", "medbullets_op5.json", {"A": 61, "B": 74, "C": 53, "D": 67, "E": 53}),
]
TWENTY = [("careqa", "careqa_20.jsonl", "ABCD"), ("jmed", "jmed_20.json", "ABCDE"),
          ("medxpertqa", "medxpertqa_dict_options_20.jsonl", "ABCDEFGHIJ"),
          ("medxpertqa", "medxpertqa_list_options_20.jsonl", "ABCDEFGHIJ"),
          ("mmlu_pro", "mmlu_pro_biology_20.jsonl", None), ("mmlu_pro", "mmlu_pro_health_20.jsonl", None)]


def normal(text: str) -> str:
    return " ".join(text.lower().split())


def test_every_row_is_read_and_the_golds_have_the_published_counts():
    for name, file, golds in GOLDS:
        items, unusable = read_set(name, BENCHMARKS / file)
        assert unusable == [] and len({item.id for item in items}) == len(items)
        assert dict(sorted(collections.Counter(item.answer for item in items).items())) == golds, file


def test_the_samples():
    for name, file, labels in TWENTY:
        items, unusable = read_set(name, SAMPLES / file)
        assert len(items) == 20 and unusable == [] and len({item.id for item in items}) == 20
        assert all(item.labels == labels if labels else 3 <= len(item.labels) <= 10 for item in items)
        assert not any("Answer Choices" in item.question for item in items)


def test_medqa_with_four_and_with_five_options_agree_on_the_answer():
    four, five = (read_set("medqa", BENCHMARKS / f"medqa_test_{n}options.jsonl")[0] for n in (4, 5))
    assert {item.labels for item in four} == {"ABCD"} and {item.labels for item in five} == {"ABCDE"}
    known = {item.question: item for item in five}
    assert len(known) == len(four) == 1273
    for item in four:
        other = known[item.question]
        assert other.options[other.answer] == item.options[item.answer]
        assert set(item.options.values()) < set(other.options.values())


def test_medqa_dev_tells_the_case_before_it_asks():
    items, _ = read_set("medqa", BENCHMARKS / "medqa_dev_with_explanations.jsonl")
    assert len({item.question for item in items}) > 1260, "the last sentences alone are 1,014 different ones"


def test_medmcqa_counted_from_zero_does_not_fit_the_file():
    with pytest.raises(BadInput, match="'cop' is 4, not one of 0 to 3"):
        read_set("medmcqa_from0", BENCHMARKS / "medmcqa_dev.jsonl")


def test_pubmedqa_test_is_half_of_the_whole():
    whole, test = (read_set(name, BENCHMARKS / "pubmedqa_ori_pqal.json")[0] for name in ("pubmedqa", "pubmedqa_test"))
    answers = {item.id: item.answer for item in whole}
    assert all(answers[item.id] == item.answer for item in test) and len(test) == 500


def test_mmlu_subjects():
    items, _ = read_set("mmlu", BENCHMARKS / "mmlu")
    assert collections.Counter(item.provenance["subject"] for item in items) == {
        "anatomy": 135, "clinical_knowledge": 265, "college_biology": 144, "college_medicine": 173,
        "medical_genetics": 100, "professional_medicine": 272}


@pytest.mark.parametrize("options, different", [(4, 304), (5, 298)])
def test_medbullets_rows_that_come_twice(options, different):
    """Ten questions come twice; in the four-option file six of them with other distractors."""
    items, _ = read_set("medbullets", BENCHMARKS / f"medbullets_op{options}.json")
    assert len({normal(item.question) for item in items}) == 298
    assert len({(normal(item.question), *map(normal, item.options.values())) for item in items}) == different


def test_jmed_always_a_no_longer_wins():
    items, _ = read_set("jmed", SAMPLES / "jmed_20.json")
    assert sum(item.provenance["label"] == "A" for item in items) == 18
    assert sum(item.answer == "A" for item in items) <= 8


def test_texts_are_those_of_the_file():
    """No letter is lost: every question and option stands in the file's text, as JSON writes it."""
    raw = re.sub(r"\s+", " ", (BENCHMARKS / "medqa_test_4options.jsonl").read_text(encoding="utf-8"))
    items, _ = read_set("medqa", BENCHMARKS / "medqa_test_4options.jsonl")
    for item in items:
        for text in (item.question, *item.options.values()):
            assert any(re.sub(r"\s+", " ", json.dumps(text, ensure_ascii=a)[1:-1]) in raw for a in (False, True))
