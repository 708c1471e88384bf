"""The traps of MedQA, MedMCQA, PubMedQA and CareQA, on files of invented rows."""

import dataclasses
import json

import pytest
from made_sets import entries, medmcqa
from test_sets_layouts import check, many

from minifleming.evaluation.sets import medmcqa as medmcqa_reader
from minifleming.evaluation.sets.read import read_set
from minifleming.run.errors import BadInput


def reasons(unusable) -> list[str]:
    return [row.reason for row in unusable]


# MedQA

def test_medqa_answer_and_label_must_agree(read):
    records = many("medqa")
    wrong = dict(records[4], answer=next(t for t in records[4]["options"].values() if t != records[4]["answer"]))
    items, unusable = read("medqa", [*records[:4], wrong, *records[5:]])
    assert len(items) == 119 and unusable[0].row == 5 and unusable[0].id == "medqa:5"
    assert reasons(unusable) == [f"the answer's text is not that of option {wrong['answer_idx']}"]


def test_medqa_context_comes_before_the_question_and_may_be_empty(read):
    records = many("medqa with context", 2)
    records[0]["context"], records[1]["context"] = ["  One. ", "Two | three."], []
    items, _ = read("medqa with context", records)
    assert items[0].question == f"One. Two | three. {records[0]['question']}"
    assert items[1].question == records[1]["question"]
    assert [item.id for item in items] == ["medqa:0", "medqa:1"]


def test_medqa_options_in_another_order_of_their_labels(read):
    records = many("medqa", 6)
    turned = [r | {"options": dict(reversed(r["options"].items()))} for r in records]
    assert [item.options for item in read("medqa", turned)[0]] == [r["options"] for r in records]


# MedMCQA

@pytest.mark.parametrize("first", [0, 1])
def test_medmcqa_counts_from_what_the_file_says(first, read):
    made = entries(40)
    items, unusable = read("medmcqa", medmcqa(made, first))
    assert unusable == []
    check("medmcqa", items, made)


@pytest.mark.parametrize("golds, why", [([1, 2, 3], "neither 0 nor 4 occurs"), ([0, 1, 4], "both 0 and 4 occur"),
                                        ([2, -1], "neither"), ([1.0, 3.0, None], "neither"),
                                        ([1, "4", True, False], "neither"), ([-1, 7], "neither")])
def test_medmcqa_ambiguous_files_are_refused_with_the_way_out(golds, why, put):
    records = [r | {"cop": gold} for r, gold in zip(medmcqa(entries(9)), golds)]
    with pytest.raises(BadInput, match=rf"dev\.json: 'cop' is ambiguous: {why}.*medmcqa_from0 or medmcqa_from1"):
        read_set("medmcqa", put("medmcqa", records))


@pytest.mark.parametrize("name, first", [("medmcqa_from0", 0), ("medmcqa_from1", 1)])
def test_medmcqa_can_be_told(name, first, read, put):
    made = [dataclasses.replace(entry, gold=1 + i % 2) for i, entry in enumerate(entries(12))]
    items, unusable = read("medmcqa", medmcqa(made, first), name)
    assert unusable == [] and {item.source for item in items} == {"medmcqa"} and items[0].id == "medmcqa:uuid-0"
    check("medmcqa", items, made)
    rows = list(medmcqa_reader.read(put("medmcqa", medmcqa(made, first)), first=first))
    assert [row.answer for row in rows] == [item.answer for item in items]
    with pytest.raises(ValueError, match="first must be 0 or 1"):
        list(medmcqa_reader.read(put("medmcqa", []), first=2))


@pytest.mark.parametrize("gold", [-1, None, float("nan"), -1.0])
def test_medmcqa_without_gold(gold, read, put):
    records = medmcqa(entries(10))
    items, unusable = read("medmcqa", [*records, *(r | {"cop": gold, "id": f"x{r['id']}"} for r in records)])
    assert len(items) == len(unusable) == 10 and unusable[0].id == "medmcqa:xuuid-0"
    assert set(reasons(unusable)) == {f"no gold label: 'cop' is {gold}"}
    with pytest.raises(BadInput, match="no usable row; the first: no gold label"):
        read_set("medmcqa", put("medmcqa", [r | {"cop": gold} for r in records]))


@pytest.mark.parametrize("name, gold", [("medmcqa_from0", 4), ("medmcqa_from1", 0), ("medmcqa_from1", 5),
                                        ("medmcqa", True), ("medmcqa", "2"), ("medmcqa", 2.5), ("medmcqa", [2]),
                                        ("medmcqa", -2), ("medmcqa", float("inf")), ("medmcqa", 10**400)])
def test_medmcqa_a_gold_out_of_range_or_no_number_is_damage(name, gold, put):
    path = put("medmcqa", [*medmcqa(entries(3), 1), medmcqa(entries(4), 1)[3] | {"cop": gold}])
    with pytest.raises(BadInput, match=r"dev\.json(:4: 'cop'|: 'cop' is amb)"):
        read_set(name, path)
    path = put("medmcqa", [*medmcqa(entries(200), int(name != "medmcqa_from0")),
                           medmcqa(entries(1))[0] | {"cop": gold, "id": "bad"}])
    if name == "medmcqa_from0" or gold != 0:
        items, unusable = read_set(name, path)
        assert (len(items), len(unusable), unusable[0].row, unusable[0].id) == (200, 1, 201, "medmcqa:bad")


# PubMedQA

def test_pubmedqa_asks_on_the_abstract_and_not_on_its_conclusion(read):
    items, _ = read("pubmedqa", many("pubmedqa", 3))
    assert [item.options for item in items] == [{"A": "yes", "B": "no", "C": "maybe"}] * 3
    assert [item.answer for item in items] == ["A", "B", "C"]
    assert items[0].question.startswith("We saw ten.\nNine were well.\nWhich") and "It does" not in items[0].question
    assert items[0].id == "pubmedqa:1000" and "AIM" not in items[0].question


def test_pubmedqa_test_reads_the_listed_rows_in_the_order_of_the_file(put, tmp_path):
    path = put("pubmedqa", many("pubmedqa", 9))
    decisions = {pmid: row["final_decision"] for pmid, row in json.loads(path.read_text()).items()}
    listed = {pmid: decisions[pmid] for pmid in ["994", "1000", "997"]}
    (tmp_path / "pubmedqa_test_ground_truth.json").write_text(json.dumps(listed))
    items, unusable = read_set("pubmedqa_test", path)
    assert [item.id for item in items] == ["pubmedqa:1000", "pubmedqa:997", "pubmedqa:994"] and unusable == []
    whole = {item.id: item for item in read_set("pubmedqa", path)[0]}
    for item in items:
        assert item.provenance.pop("split") == "test" and item == whole[item.id]


@pytest.mark.parametrize("lists, reason", [
    ({}, "needs one file .* there: none"),
    ({"a_test_ground_truth.json": "{}", "test_ground_truth.json": "{}"}, "there: a_test_g.*, test_g"),
    ({"test_ground_truth.json": '{"1": "yes"}'}, "'1' is in the test list and not in this file"),
    ({"test_ground_truth.json": '{"1000": "no"}'}, "row 1: 'final_decision' is not what the test list says"),
    ({"test_ground_truth.json": '{"1000": null}'}, "row 1: 'final_decision' is not what the test list says"),
    ({"test_ground_truth.json": "[]"}, r"test_ground_truth\.json: not a JSON object"),
    ({"test_ground_truth.json": "{}"}, "no usable row"),
])
def test_pubmedqa_test_lists_that_do_not_fit(lists, reason, put, tmp_path):
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=reason):
        read_set("pubmedqa_test", put("pubmedqa", many("pubmedqa", 9)))


def test_pubmedqa_rows_that_do_not_fit(read):
    records = many("pubmedqa")
    records["1000"]["CONTEXTS"] = []
    records["995"]["final_decision"] = "Yes"
    items, unusable = read("pubmedqa", records)
    assert [(r.row, r.id, r.reason) for r in unusable] == [
        (1, "pubmedqa:1000", "no abstract to ask about"),
        (6, "pubmedqa:995", "'final_decision' is none of yes, no, maybe")]


# CareQA

def test_careqa_annulled_questions_have_nan_for_gold(read):
    records = many("careqa", 20)
    for k in (3, 4, 5):
        records[k]["cop"] = [float("nan"), None, float("nan")][k - 3]
    items, unusable = read("careqa", records)
    assert len(items) == 17 and [row.id for row in unusable] == ["careqa:u-3", "careqa:u-4", "careqa:u-5"]
    assert reasons(unusable) == [f"no gold label: 'cop' is {x}" for x in ("nan", "None", "nan")]


@pytest.mark.parametrize("gold", [0.0, 5.0, 1.5, True, "1.0", float("inf")])
def test_careqa_golds_out_of_range(gold, read):
    records = many("careqa")
    records[9]["cop"] = gold
    items, unusable = read("careqa", records)
    assert len(items) == 119 and (unusable[0].row, unusable[0].reason[:5]) == (10, "'cop'")
