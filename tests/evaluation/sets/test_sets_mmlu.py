"""The traps of MMLU and MMLU-Pro, on files of invented rows."""

import pytest
from made_sets import LAYOUTS, entries, sheet
from test_sets_layouts import many

from minifleming.evaluation.sets.read import read_set
from minifleming.run.errors import BadInput

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
    for k in range(12):
        (tmp_path / f"a{k:02}_test.csv").write_text(sheet(LAYOUTS["mmlu"][2](entries(99))), encoding="utf-8")
    (tmp_path / "a05_test.csv").write_text("q,1,2,3,4,A\nq,1,2,3,4,E\n")
    with pytest.raises(BadInput, match=r"a05_test\.csv:2: 'letter' is no label of the 4 options \(1 of 2 rows"):
        read_set("mmlu", tmp_path)


@pytest.mark.parametrize("text, reason", [
    ('q,1,2,3,4,A\n"q,1,2,3,4,A\n' + "q,1,2,3,4,A\n" * 500, "2: not valid CSV: unexpected end of data"),
    ('q,1,2,3,4,A\nq,1,2,3,"4" x,A\n', "2: not valid CSV"),
    ("q,1,2,3,A\n", "1: 5 columns; six are needed"), ("q,1,2,3,4,5,A\n", "1: 7 columns"),
    ("question,A,B,C,D,answer\n", "1: 'letter' is no label"), ("q,1,2,3,4,a\n", "1: 'letter'"),
    ("q,1,2,3,4,AB\n", "1: 'letter'"), ("q,1,2,3,4,\n", "1: 'letter'"), ("", " no rows"), ("\n\n", " no rows"),
])
def test_mmlu_files_that_are_none(text, reason, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadInput, match=rf"a\.csv:{reason}"):
        read_set("mmlu", tmp_path / "a.csv")


def test_mmlu_a_cell_of_many_lines_counts_as_one_row(tmp_path):
    (tmp_path / "a.csv").write_text('"one\ntwo\nthree",1,2,3,4,B\n' + "q,1,2,3,4,A\n" * 200 + "q,1,2,3,4,Z\n")
    items, unusable = read_set("mmlu", tmp_path / "a.csv")
    assert items[0].question == "one\ntwo\nthree" and items[1].id == "mmlu:a-2"
    assert (unusable[0].row, unusable[0].id) == (204, "mmlu:a-202")


# MMLU-Pro

@pytest.mark.parametrize("change", [{"answer_index": 1}, {"answer": "B"}, {"answer_index": False},
                                    {"answer_index": "0"}, {"answer_index": None}, {"answer": "K"},
                                    {"answer": "AB"}, {"answer": 0}, {"answer": ""}, {"options": {"A": "x"}},
                                    {"options": ["x", 3]},
                                    {"options": [f"o{i}" for i in range(27)]}])
def test_mmlu_pro_letter_and_index_must_agree(change, read):
    records = many("mmlu_pro")
    assert records[0]["answer"] == "A"
    records[0] |= change
    items, unusable = read("mmlu_pro", records)
    assert len(items) == 119 and [row.id for row in unusable] == ["mmlu_pro:70"]


def test_mmlu_pro_by_category(read):
    """One file of all categories gives the two that the paper asks, and a damaged row is never passed over."""
    records = many("mmlu_pro")
    for n, record in enumerate(records):
        record["category"] = ("biology", "health", "law")[n % 3]
    whole = [item.id for item in read("mmlu_pro", records)[0]]
    assert [item.id for item in read("mmlu_pro", records, "mmlu_pro_biology")[0]] == whole[::3]
    assert [item.id for item in read("mmlu_pro", records, "mmlu_pro_health")[0]] == whole[1::3]
