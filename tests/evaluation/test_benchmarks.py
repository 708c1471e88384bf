"""Tests of names, ids and provenance of the items of public benchmarks, and of eval.py reading them."""

import hashlib
import json

import pytest
from made_sets import LAYOUTS, careqa, entries, entries_for, jmed, medqa

import eval as evaluation
from minifleming.evaluation.benchmarks import BENCHMARKS, Row, read_benchmark, read_named, read_set
from minifleming.rods.item import Item, write_items
from minifleming.run.errors import BadInput, run_cli


def test_where_an_item_comes_from(put, read):
    for layout in LAYOUTS:
        records = LAYOUTS[layout][2](entries_for(layout, 7))
        items, _ = read(layout, records)
        path = put(layout, records)
        for n, item in enumerate(items, 1):
            assert item.source == item.provenance["set"] == LAYOUTS[layout][0] and item.id.startswith(f"{item.source}:")
            assert item.language == ("zh" if layout in ("cmexam", "jmed") else "en")
            assert item.provenance["file"] == path.name and item.provenance["row"] == n
            assert item.provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            assert all(type(value) in (str, int) for value in item.provenance.values())
        assert len({item.id for item in items}) == 7


FACTS = {
    "medqa": {"step": "step1"}, "medqa with context": {}, "medmcqa": {"subject": "Anatomy", "choice_type": "single"},
    "cmexam": {"subject": "临床医学", "department": "骨科"}, "pubmedqa": {"year": "1999"},
    "mmlu": {"subject": "anatomy", "split": "test"}, "mmlu_pro": {"subject": "health", "origin": "ori"},
    "careqa": {"subject": "Biology"}, "medbullets": {}, "medbullets columns": {},
    "medxpertqa": {"subject": "Skin", "task": "Diagnosis", "question_type": "Reasoning"},
}
IDS = {"medqa": "1", "medqa with context": "0", "medmcqa": "uuid-0", "cmexam": "1", "pubmedqa": "1000",
       "mmlu": "anatomy_test-1", "mmlu_pro": "70", "careqa": "u-0", "medxpertqa": "Text-0", "medbullets": "1",
       "medbullets columns": "1"}


def test_small_facts_and_ids(read):
    for layout in FACTS:
        item = read(layout, LAYOUTS[layout][2](entries_for(layout, 7)))[0][0]
        assert {k: v for k, v in item.provenance.items() if k not in ("set", "file", "sha256", "row")} == FACTS[layout]
        assert item.id == f"{LAYOUTS[layout][0]}:{IDS[layout]}"


def test_ids_that_come_twice_or_are_not_there_are_not_used(read):
    records = careqa(entries(6))
    twice = [*records[:5], records[5] | {"unique_id": "u-0"}]
    without = [*records[:5], records[5] | {"unique_id": None}]
    for changed in (twice, without):
        assert [item.id for item in read("careqa", changed)[0]] == [f"careqa:{n}" for n in range(1, 7)]


def test_the_id_of_a_row_that_gives_no_item_does_not_take_anothers(read):
    records = careqa(entries(200))
    records[3] = {"unique_id": "u-7"}
    items, unusable = read("careqa", records)
    assert [row.id for row in unusable] == ["careqa:u-7"] and items[6].id == "careqa:u-7"
    assert unusable == [Row(4, 4, "careqa:u-7", None, "missing 'op1'")]


def test_jmed_rows_with_one_id_are_all_read(read):
    items, _ = read("jmed", [row | {"diagId": 1} for row in jmed(entries(4))])
    assert [item.id for item in items] == ["jmed:1", "jmed:2", "jmed:3", "jmed:4"]


def test_a_benchmark_is_a_public_set_by_its_name_and_otherwise_our_items(put, tmp_path):
    path = put("medqa", medqa(entries(5)))
    assert read_benchmark("medqa", str(path)) == read_set("medqa", path)
    with pytest.raises(BadInput, match=r"test\.jsonl:1: missing 'id'"):
        read_benchmark("other", path)
    mine = [Item("a", "Which?", {"A": "x", "B": "y"}, "B")]
    write_items(tmp_path / "mine.jsonl", mine)
    assert read_benchmark("mine", str(tmp_path / "mine.jsonl")) == (mine, [])
    with pytest.raises(BadInput):
        read_benchmark("medqa", tmp_path / "mine.jsonl")


def test_eval_reads_them_and_counts_what_it_leaves_out(put, tmp_path, capsys):
    records = careqa(entries(10))
    records[4]["cop"] = float("nan")
    path = put("careqa", records)
    write_items(tmp_path / "mine.jsonl", [Item("a", "Which?", {"A": "x", "B": "y"}, "B")])
    sets = read_named([f"careqa={path}", f"mine={tmp_path / 'mine.jsonl'}"])
    assert {name: len(items) for name, items in sets.items()} == {"careqa": 9, "mine": 1}
    assert capsys.readouterr().out == (
        "careqa: 1 of 10 rows are unusable; the first, row 5: no gold label: 'cop' is nan\n")


REFUSED = [
    (["careqa"], "--benchmark: 'careqa' is not NAME=PATH"), (["a b=x"], "is not NAME=PATH"), (["=x"], "'=x' is not"),
    (["medqa=FILE", "medqa=FILE"], "--benchmark: 'medqa' comes twice"), (["medqa=none.jsonl"], "No such file"),
    (["careqa=FILE"], "test.jsonl:1: missing 'op1' (5 of 5 rows are damaged)"), (["mine=FILE"], ":1: missing 'id'"),
]


def test_eval_refuses_before_it_loads_a_model(put, tmp_path, capsys):
    path = put("medqa", medqa(entries(5)))
    for named, reason in REFUSED:
        arguments = [f"--benchmark={text.replace('FILE', str(path))}" for text in named]
        assert run_cli(evaluation.main, ["--model", "tiny", "--out", str(tmp_path / "out"), *arguments]) == 2
        said = capsys.readouterr()
        assert reason in said.err and said.err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_eval_grades_a_public_set(put, tmp_path):
    path = put("medqa", medqa(entries(3)))
    out = ["--out", str(tmp_path / "out"), "--set=eval.max_new_tokens=4", "--device", "cpu"]
    assert run_cli(evaluation.main, ["--model", "tiny", f"--benchmark=medqa={path}", *out]) == 0
    records = [json.loads(line) for line in (tmp_path / "out" / "medqa.jsonl").read_text().splitlines()]
    assert [(r["item"], r["answer"]) for r in records] == [("medqa:1", "A"), ("medqa:2", "B"), ("medqa:3", "C")]


def test_help_names_the_sets(capsys):
    with pytest.raises(SystemExit):
        evaluation.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(name in said for name in BENCHMARKS)
