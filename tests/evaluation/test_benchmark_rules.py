"""Tests of the rule of each benchmark, on files of invented rows: which option is right, and what is refused."""

import collections
import dataclasses
import hashlib
import json

import pytest
from made_sets import LAYOUTS, LETTERS, cmexam, differences, entries, entries_for, many, medmcqa, sheet

from minifleming.evaluation.benchmarks import read_set
from minifleming.run.errors import BadInput

NAN = float("nan")


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


def test_medmcqa_counts_from_what_the_file_shows(read):
    for first in (0, 1):
        made = entries(40)
        items, unusable = read("medmcqa", medmcqa(made, first))
        assert unusable == differences("medmcqa", items, made) == []


def test_medmcqa_ambiguous_files_are_refused_with_the_way_out(put, cases):
    for golds, why in cases["medmcqa_ambiguous"]:
        records = [r | {"cop": gold} for r, gold in zip(medmcqa(entries(9)), golds)]
        with pytest.raises(BadInput, match=rf"dev\.json: 'cop' is ambiguous: {why}.*medmcqa_from0 or medmcqa_from1"):
            read_set("medmcqa", put("medmcqa", records))


def test_medmcqa_the_name_can_say_the_first_number(read):
    for name, first in (("medmcqa_from0", 0), ("medmcqa_from1", 1)):
        made = [dataclasses.replace(entry, gold=1 + i % 2) for i, entry in enumerate(entries(12))]
        items, unusable = read("medmcqa", medmcqa(made, first), name)
        assert unusable == differences("medmcqa", items, made) == []
        assert {item.source for item in items} == {"medmcqa"} and items[0].id == "medmcqa:uuid-0"


def test_medmcqa_without_gold(read, put):
    for gold in (-1, None, NAN, -1.0):
        records = medmcqa(entries(10))
        items, unusable = read("medmcqa", [*records, *(r | {"cop": gold, "id": f"x{r['id']}"} for r in records)])
        assert len(items) == len(unusable) == 10 and unusable[0].id == "medmcqa:xuuid-0"
        assert set(reasons(unusable)) == {f"no gold label: 'cop' is {gold}"}
        with pytest.raises(BadInput, match="no usable row; the first: no gold label"):
            read_set("medmcqa", put("medmcqa", [r | {"cop": gold} for r in records]))


def test_medmcqa_a_gold_out_of_range_or_no_number_is_damage(put, cases):
    for name, gold in cases["medmcqa_damaged"]:
        path = put("medmcqa", [*medmcqa(entries(3), 1), medmcqa(entries(4), 1)[3] | {"cop": gold}])
        with pytest.raises(BadInput, match=r"dev\.json(:4: 'cop'|: 'cop' is amb)"):
            read_set(name, path)
        path = put("medmcqa", [*medmcqa(entries(200), int(name != "medmcqa_from0")),
                               medmcqa(entries(1))[0] | {"cop": gold, "id": "bad"}])
        if name == "medmcqa_from0" or gold != 0:
            items, unusable = read_set(name, path)
            assert (len(items), len(unusable), unusable[0].row, unusable[0].id) == (200, 1, 201, "medmcqa:bad"), gold


# PubMedQA


def test_pubmedqa_asks_about_the_abstract_and_not_about_its_conclusion(read):
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


def test_pubmedqa_test_lists_that_do_not_fit(put, tmp_path, cases):
    for lists, reason in cases["pubmedqa_lists"]:
        for file in tmp_path.iterdir():
            file.unlink()
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
    for k, gold in ((3, NAN), (4, None), (5, NAN)):
        records[k]["cop"] = gold
    items, unusable = read("careqa", records)
    assert len(items) == 17 and [row.id for row in unusable] == ["careqa:u-3", "careqa:u-4", "careqa:u-5"]
    assert reasons(unusable) == [f"no gold label: 'cop' is {x}" for x in ("nan", "None", "nan")]


def test_careqa_golds_out_of_range(read):
    for gold in (0.0, 5.0, 1.5, True, "1.0", float("inf")):
        records = many("careqa")
        records[9]["cop"] = gold
        items, unusable = read("careqa", records)
        assert len(items) == 119 and (unusable[0].row, unusable[0].reason[:5]) == (10, "'cop'"), gold


# MedXpertQA


def test_medxpertqa_three_encodings_of_the_same_items(read):
    made = entries_for("medxpertqa inline", 50, 10)
    one, two, three = (read(name, LAYOUTS[name][2](made))[0]
                       for name in ("medxpertqa", "medxpertqa list", "medxpertqa inline"))
    for a, b, c in zip(one, two, three, strict=True):
        for item in (a, b, c):
            del item.provenance["sha256"]
        assert a == b == c and "Answer Choices" not in a.question


def test_medxpertqa_damaged_rows(read, cases):
    for name, change in cases["medxpertqa_damaged"]:
        records = many(name)
        records[0] |= change
        items, unusable = read(name, records)
        assert len(items) == 119 and [row.id for row in unusable] == ["medxpertqa:Text-0"], change
        assert unusable[0].reason.startswith(("'", "the labels", "the choices", "a letter", "no options"))


def test_medxpertqa_rows_that_are_unfit(read):
    for change, reason in [({"label": ["A", "B"]}, "several answers"), ({"label": []}, "no gold label"),
                           ({"images": ["MM-1.jpeg"]}, "needs an image")]:
        records = many("medxpertqa list", 10)
        records[3] |= change
        items, unusable = read("medxpertqa list", records)
        assert len(items) == 9 and reasons(unusable) == [reason]


def test_medxpertqa_choices_of_a_part_of_a_question_stay(read):
    records = many("medxpertqa list", 3)
    records[0]["question"] = "First?\nAnswer Choices: none. " + records[0]["question"]
    items, _ = read("medxpertqa list", records)
    assert items[0].question.startswith("First?\nAnswer Choices: none. Which") and items[0].question.endswith("?")


# Medbullets


def test_medbullets_columns_and_rows_are_the_same(read):
    for options in (4, 5):
        made = entries(30, options)
        one, two = (read(name, LAYOUTS[name][2](made))[0] for name in ("medbullets", "medbullets columns"))
        assert [(i.id, i.options, i.answer) for i in one] == [(i.id, i.options, i.answer) for i in two]


def test_medbullets_all_rows_are_read_also_those_that_come_twice(read):
    items, _ = read("medbullets columns", LAYOUTS["medbullets columns"][2](entries(5) + entries(5)))
    assert [item.id for item in items] == [f"medbullets:{n}" for n in range(1, 11)]


def test_medbullets_damage(read, put):
    columns = many("medbullets columns", 400)
    del columns["opb"]["7"]
    columns["answer"]["9"] = "something else"
    columns["answer_idx"]["11"] = "E"
    del columns["question"]["13"], columns["link"]["15"]
    items, unusable = read("medbullets columns", columns)
    assert [(r.row, r.reason) for r in unusable] == [
        (8, "missing 'opb'"), (10, "the answer's text is not that of option B"),
        (12, "'answer_idx' is no label of the 4 options"), (14, "missing 'question'")]
    columns["opa"] = ["x"]
    with pytest.raises(BadInput, match=r"op4\.json: row 1: a column is not a JSON object"):
        read_set("medbullets", put("medbullets columns", columns))


def test_medbullets_a_fifth_option_may_be_missing(read):
    made = entries(8)
    records = LAYOUTS["medbullets"][2](made)
    for changed in (records, [r | {"ope": None} for r in records], records[:1]):
        items, _ = read("medbullets", changed)
        assert differences("medbullets", items, made[: len(changed)]) == []


# MMLU


def test_mmlu_reads_a_folder_with_the_subjects_of_its_names(tmp_path):
    for name, seed in [("college_medicine_test", 1), ("anatomy_val", 2), ("virology", 3)]:
        (tmp_path / f"{name}.csv").write_text(sheet(LAYOUTS["mmlu"][2](entries(3, seed=seed))), encoding="utf-8")
    (tmp_path / "readme.txt").write_text("not a set")
    items, _ = read_set("mmlu", tmp_path)
    assert [item.id for item in items] == [f"mmlu:{stem}-{n}" for stem in (
        "anatomy_val", "college_medicine_test", "virology") for n in (1, 2, 3)]
    assert [(i.provenance["subject"], i.provenance.get("split"), i.provenance["row"]) for i in items[::3]] == [
        ("anatomy", "val", 1), ("college_medicine", "test", 1), ("virology", None, 1)]
    assert len({item.provenance["sha256"] for item in items}) == 3
    alone, _ = read_set("mmlu", tmp_path / "anatomy_val.csv")
    assert alone == items[:3]


def test_mmlu_an_empty_folder(tmp_path):
    with pytest.raises(BadInput, match="no .csv files in this folder"):
        read_set("mmlu", tmp_path)


def test_mmlu_a_bad_file_among_good_ones_is_named(tmp_path):
    for k in range(3):
        (tmp_path / f"a{k:02}_test.csv").write_text(sheet(LAYOUTS["mmlu"][2](entries(99))), encoding="utf-8")
    (tmp_path / "a01_test.csv").write_text("q,1,2,3,4,A\nq,1,2,3,4,E\n")
    with pytest.raises(BadInput, match=r"a01_test\.csv:2: 'letter' is no label of the 4 options \(1 of 2 rows"):
        read_set("mmlu", tmp_path)


def test_mmlu_files_that_are_none(tmp_path, cases):
    for text, reason in cases["mmlu_files"]:
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(BadInput, match=rf"a\.csv:{reason}"):
            read_set("mmlu", tmp_path / "a.csv")


def test_mmlu_a_cell_of_many_lines_counts_as_one_row(tmp_path):
    (tmp_path / "a.csv").write_text('"one\ntwo\nthree",1,2,3,4,B\n' + "q,1,2,3,4,A\n" * 200 + "q,1,2,3,4,Z\n")
    items, unusable = read_set("mmlu", tmp_path / "a.csv")
    assert items[0].question == "one\ntwo\nthree" and items[1].id == "mmlu:a-2"
    assert (unusable[0].row, unusable[0].id) == (204, "mmlu:a-202")


# MMLU-Pro


def test_mmlu_pro_letter_and_index_must_agree(read, cases):
    assert many("mmlu_pro")[0]["answer"] == "A"
    for change in cases["mmlu_pro_damaged"]:
        records = many("mmlu_pro")
        records[0] |= change
        items, unusable = read("mmlu_pro", records)
        assert len(items) == 119 and [row.id for row in unusable] == ["mmlu_pro:70"], change


def test_mmlu_pro_by_category(read):
    """One file of all categories gives the two that the paper asks, and a damaged row is reported in both."""
    records = many("mmlu_pro")
    for n, record in enumerate(records):
        record["category"] = ("biology", "health", "law")[n % 3]
    whole = [item.id for item in read("mmlu_pro", records)[0]]
    assert [item.id for item in read("mmlu_pro", records, "mmlu_pro_biology")[0]] == whole[::3]
    assert [item.id for item in read("mmlu_pro", records, "mmlu_pro_health")[0]] == whole[1::3]
    del records[5]["category"], records[5]["answer"]
    for name in ("mmlu_pro_biology", "mmlu_pro_health"):
        assert [row.row for row in read("mmlu_pro", records, name)[1]] == [6]


# CMExam


def test_cmexam_options_in_one_cell(read):
    failed = []
    for mark in (" ", ". ", ".", "．", "、", ": ", "：", "\t"):
        for newline in ("\n", "\r\n", "\\n", "\n\n"):
            made = entries(40, 5)
            items, unusable = read("cmexam", cmexam(made, mark, newline))
            failed += differences("cmexam", items, made) + unusable
    assert failed == [] and {item.language for item in items} == {"zh"}
    assert items[0].id == "cmexam:1" and items[0].provenance["subject"] == "临床医学"


def test_cmexam_rows_that_are_unfit(read, cases):
    """They may be half of the file: nothing is damaged."""
    rows = cmexam(entries(10))
    for answer, reason in cases["cmexam_unfit"]:
        items, unusable = read("cmexam", [*rows, *([*row[:2], answer, *row[3:]] for row in rows[1:])])
        assert len(items) == len(unusable) == 10 and all(r.startswith(reason) for r in reasons(unusable))
        assert unusable[0].id == "cmexam:11" and unusable[0].row == 42, "the line in a file of four lines a row"


def test_cmexam_damaged_rows(read, cases):
    rows = cmexam(entries(120))
    for options, answer in cases["cmexam_damaged"]:
        rows[7] = ["问？", options, answer, *rows[7][3:]]
        items, unusable = read("cmexam", rows)
        assert len(items) == 119 and [row.id for row in unusable] == ["cmexam:7"], options


def test_cmexam_damage_counts_as_damage(read, put):
    rows = cmexam(entries(120))
    good = rows[9]
    for changed, reason in [(good[:5], "5 columns, not 6"), ([*good, ""], "7 columns, not 6"),
                            ([*good[:2], "AX", *good[3:]], "'Answer' is no label of the 4 options"),
                            ([*good[:2], "ABCDE", *good[3:]], "'Answer' is no label")]:
        rows[9] = changed
        items, unusable = read("cmexam", rows)
        assert len(items) == 119 and unusable[0].reason.startswith(reason)
        with pytest.raises(BadInput, match=rf"val\.csv:34: {reason}.*1 of 50 rows are damaged"):
            read_set("cmexam", put("cmexam", rows[:51]))


def test_cmexam_columns_are_found_by_name(read, put):
    rows = cmexam(entries(5))
    turned = [[row[2], row[4], row[0], row[1]] for row in rows]
    assert [i.options for i in read("cmexam", turned)[0]] == [i.options for i in read("cmexam", rows)[0]]
    for column in ("Question", "Options", "Answer"):
        path = put("cmexam", [[cell.replace(column, "Other") for cell in rows[0]], *rows[1:]])
        with pytest.raises(BadInput, match=rf"val\.csv:2: missing '{column}' \(5 of 5"):
            read_set("cmexam", path)


# JMED


def test_jmed_the_shuffle_can_be_undone(read):
    made = entries(200, 5)
    items, _ = read("jmed", LAYOUTS["jmed"][2](made))
    for item, entry in zip(items, made, strict=True):
        order = item.provenance["order"]
        back = {old: item.options[new] for new, old in zip(item.options, order)}
        assert [back[label] for label in "ABCDE"] == entry.options
        assert order[LETTERS.index(item.answer)] == item.provenance["label"] == LETTERS[entry.gold]


def test_jmed_gold_is_no_longer_mostly_a(read):
    """All golds are A in the file; each of five labels then has a fifth of 2,000, give or take five deviations."""
    made = [dataclasses.replace(entry, gold=0) for entry in entries(2000, 5)]
    items, _ = read("jmed", LAYOUTS["jmed"][2](made))
    assert {item.provenance["label"] for item in items} == {"A"}
    assert all(abs(n - 400) < 5 * (2000 * 0.2 * 0.8) ** 0.5
               for n in collections.Counter(item.answer for item in items).values())
    assert len({item.provenance["order"] for item in items}) == 120


def test_jmed_the_order_depends_on_the_id_and_on_nothing_else(read):
    records = LAYOUTS["jmed"][2](entries(30, 5))
    items, _ = read("jmed", records)
    turned, _ = read("jmed", records[::-1])
    orders = {item.id: item.provenance["order"] for item in items}
    assert orders == {item.id: item.provenance["order"] for item in turned}
    by_hand = sorted("ABCDE", key=lambda c: hashlib.sha256(f"5003:{c}".encode()).digest())
    assert orders["jmed:5003"] == "".join(by_hand)
    other, _ = read("jmed", LAYOUTS["jmed"][2](entries(30, 5, seed=9)))
    assert {item.id: item.provenance["order"] for item in other} == orders


def test_jmed_a_spreadsheet_is_refused_in_one_line(tmp_path):
    for name in ("jmed.xlsx", "JMED.XLSX", "jmed.json"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 and so on")
        with pytest.raises(BadInput, match="spreadsheet") as caught:
            read_set("jmed", tmp_path / name)
        assert "\n" not in str(caught.value) and "how to export" in str(caught.value)


def test_jmed_rows_that_do_not_fit(read, cases):
    for change, reason in cases["jmed"]:
        records = many("jmed")
        records[2] |= change
        items, unusable = read("jmed", records)
        assert len(items) == 119 and [(r.row, r.id) for r in unusable] == [(3, "jmed:5002")], change
        assert unusable[0].reason.startswith(reason)
