"""The traps of CMExam and JMED, on files of invented rows."""

import collections
import dataclasses
import hashlib

import pytest
from made_sets import LAYOUTS, LETTERS, cmexam, entries
from test_sets_layouts import check, many

from minifleming.evaluation.sets import layout
from minifleming.evaluation.sets.jmed import shuffled
from minifleming.evaluation.sets.read import read_set
from minifleming.run.errors import BadInput


def reasons(unusable) -> list[str]:
    return [row.reason for row in unusable]


# CMExam

@pytest.mark.parametrize("mark", [" ", ". ", ".", "．", "、", ": ", "：", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\\n", "\n\n"])
def test_cmexam_options_in_one_cell(mark, newline, read):
    made = entries(40, 5)
    items, unusable = read("cmexam", cmexam(made, mark, newline))
    assert unusable == [] and {item.language for item in items} == {"zh"}
    check("cmexam", items, made)
    assert items[0].id == "cmexam:1" and items[0].provenance["subject"] == "临床医学"


@pytest.mark.parametrize("answer, reason", [("", "no gold label"), ("nan", "no gold label"), (" NaN ", "no gold label"),
                                            ("ABC", "several answers: ABC"), ("A,C", "several answers: A,C"),
                                            ("B、D", "several answers"), ("A B", "several answers")])
def test_cmexam_rows_by_their_nature_unusable(answer, reason, read):
    """They may be half of the file: nothing is damaged."""
    rows = cmexam(entries(10))
    items, unusable = read("cmexam", [*rows, *([*row[:2], answer, *row[3:]] for row in rows[1:])])
    assert len(items) == len(unusable) == 10 and all(r.startswith(reason) for r in reasons(unusable))
    assert unusable[0].id == "cmexam:11" and unusable[0].row == 42, "the line in a file of four lines a row"


@pytest.mark.parametrize("options, answer", [
    ("B one\nC two\nD three", "C"), ("A one\nC two", "A"), ("A one\nB two", "C"), ("A one\nB two", "a"),
    ("A one\nB two", "AX"), ("one\ntwo", "A"), ("A one\nB two\nmore of two", "A"), ("A one\nA two\nB three", "A"),
    ("", "A"), ("A one\nBtwo", "A"), ("A one\nB two", "A."),
])
def test_cmexam_damaged_rows(options, answer, read):
    rows = cmexam(entries(120))
    rows[7] = ["问？", options, answer, *rows[7][3:]]
    items, unusable = read("cmexam", rows)
    assert len(items) == 119 and [row.id for row in unusable] == ["cmexam:7"]


@pytest.mark.parametrize("change, reason", [
    (lambda row: row[:5], "5 columns where the header has 6"), (lambda row: [*row, ""], "7 columns where the header"),
    (lambda row: [*row[:2], "AX", *row[3:]], "'Answer' is no label of the 4 options"),
    (lambda row: [*row[:2], "ABCDE", *row[3:]], "'Answer' is no label"),
])
def test_cmexam_damage_counts_as_damage(change, reason, read, put):
    rows = cmexam(entries(120))
    rows[9] = change(rows[9])
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
        with pytest.raises(BadInput, match=rf"val\.csv:1: no column '{column}' in the header"):
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


def test_jmed_a_row_with_a_fault_is_not_shuffled(tmp_path):
    row = layout.Row(tmp_path, 1, None, fault="why")
    assert shuffled(row) is row


@pytest.mark.parametrize("name", ["jmed.xlsx", "JMED.XLSX", "jmed.json"])
def test_jmed_a_spreadsheet_is_refused_in_one_line(name, tmp_path):
    (tmp_path / name).write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(BadInput, match="spreadsheet") as caught:
        read_set("jmed", tmp_path / name)
    assert "\n" not in str(caught.value) and "how to export" in str(caught.value)


@pytest.mark.parametrize("change, reason", [
    ({"final_correct_answer": "['A', 'C']"}, "several answers: ['A', 'C']"),
    ({"final_correct_answer": "A"}, "'final_correct_answer' is no label of the 4 options"),
    ({"final_correct_answer": "['E']"}, "'final_correct_answer' is no label"),
    ({"final_correct_answer": "[]"}, "'final_correct_answer' is no label"),
    ({"final_correct_answer": ["A"]}, "'final_correct_answer' must be text"),
    ({"final_options": "{'options': {}}"}, "'final_options' is not valid JSON"),
    ({"final_options": "[" * 100_000}, "'final_options' is not valid JSON"),
    ({"final_options": "[]"}, "'final_options' is not a JSON object"),
    ({"final_options": "{}"}, "missing 'options'"),
    ({"final_options": '{"options": []}'}, "'options' must map labels to texts"),
    ({"final_options": '{"options": {"A": "x", "C": "y"}}'}, "the labels of 'options' are not"),
    ({"final_options": {"options": {"A": "x"}}}, "'final_options' must be text"),
])
def test_jmed_rows_that_do_not_fit(change, reason, read):
    records = many("jmed")
    records[2] |= change
    items, unusable = read("jmed", records)
    assert len(items) == 119 and [(r.row, r.id) for r in unusable] == [(3, "jmed:5002")]
    assert unusable[0].reason.startswith(reason)
