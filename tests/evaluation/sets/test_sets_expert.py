"""The traps of MedXpertQA and Medbullets, on files of invented rows."""

import pytest
from made_sets import LAYOUTS, entries
from test_sets_layouts import check, entries_for, many

from minifleming.evaluation.sets.read import read_set
from minifleming.run.errors import BadInput


def reasons(unusable) -> list[str]:
    return [row.reason for row in unusable]


# MedXpertQA

def test_medxpertqa_three_encodings_of_the_same_items(read):
    made = entries_for("medxpertqa inline", 50, 10)
    one, two, three = (read(name, LAYOUTS[name][2](made))[0]
                       for name in ("medxpertqa", "medxpertqa list", "medxpertqa inline"))
    for a, b, c in zip(one, two, three, strict=True):
        for item in (a, b, c):
            del item.provenance["sha256"]
        assert a == b == c and "Answer Choices" not in a.question


@pytest.mark.parametrize("name, change", [
    ("medxpertqa list", {"question": "Which?\nAnswer Choices: (A) x (B) y"}),
    ("medxpertqa list", {"options": [{"letter": "A", "content": "x"}, {"letter": "A", "content": "y"},
                                 {"letter": "B", "content": "z"}], "question": "Which?", "label": "A"}),
    ("medxpertqa list", {"options": [{"letter": "A", "content": "x"}, {"letter": "C", "content": "y"}]}),
    ("medxpertqa list", {"options": [{"letter": "A", "content": "x"}, {"letter": "B"}]}),
    ("medxpertqa list", {"options": ["x", "y"]}), ("medxpertqa list", {"label": ["K"]}),
    ("medxpertqa list", {"label": [1]}), ("medxpertqa", {"label": "a"}), ("medxpertqa", {"label": None}),
    ("medxpertqa", {"options": {}}), ("medxpertqa", {"options": "A x"}),
    ("medxpertqa inline", {"question": "Which? (A) x (B) y"}),
    ("medxpertqa inline", {"question": "Which?\nAnswer Choices: (A) x (C) y"}),
    ("medxpertqa inline", {"question": "Which?\nAnswer Choices: (A) x (B) (A) and y (C) z"}),
    ("medxpertqa inline", {"question": "Which?\nAnswer Choices: see (A) x (B) y"}),
    ("medxpertqa inline", {"question": "Which?\nAnswer Choices: (A) x"}),
])
def test_medxpertqa_damaged_rows(name, change, read):
    records = many(name)
    records[0] |= change
    items, unusable = read(name, records)
    assert len(items) == 119 and [row.id for row in unusable] == ["medxpertqa:Text-0"]
    assert unusable[0].reason.startswith(("'", "the labels", "the choices", "a letter", "no options"))


@pytest.mark.parametrize("change, reason", [({"label": ["A", "B"]}, "several answers"),
                                            ({"label": []}, "no gold label"),
                                            ({"images": ["MM-1.jpeg"]}, "needs an image")])
def test_medxpertqa_rows_by_their_nature_unusable(change, reason, read):
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

@pytest.mark.parametrize("options", [4, 5])
def test_medbullets_columns_and_rows_are_the_same(options, read):
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


@pytest.mark.parametrize("value", [None, "absent"])
def test_medbullets_a_fifth_option_may_be_missing(value, read):
    made = entries(8)
    records = LAYOUTS["medbullets"][2](made)
    items, _ = read("medbullets", [r | {"ope": None} for r in records] if value is None else records)
    check("medbullets", items, made)
