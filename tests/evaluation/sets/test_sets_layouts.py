"""Laws of every reader: what was written in a set's layout is what is read, whatever the set, line ends or gold."""

import json

import pytest
from made_sets import LAYOUTS, entries

from minifleming.evaluation.sets.read import READERS, WAYS, read_set
from minifleming.rods.item import LABELS, read_items, write_items

WIDE = ["medqa", "medqa with context", "cmexam", "mmlu_pro", "medxpertqa", "medxpertqa list", "medxpertqa inline",
        "medbullets", "medbullets columns", "jmed"]


def entries_for(layout: str, n: int = 60, options: int = 4, seed: int = 0):
    """Entries that the layout can tell: three options for PubMedQA, no text like a mark where options stand inline."""
    made = entries(n, 3 if layout == "pubmedqa" else options, seed)
    for entry in made:
        if layout == "medxpertqa inline":
            entry.options = [text.replace("(C)", "see C") for text in entry.options]
        if layout == "pubmedqa":
            entry.options = ["yes", "no", "maybe"]
    return made


def many(name: str, n: int = 120, **kinds):
    """Records of enough rows that one damaged row stays under one per cent."""
    return LAYOUTS[name][2](entries_for(name, n, **kinds))


def question_for(layout: str, question: str) -> str:
    before = {"medqa with context": "He came. He is ill. ", "pubmedqa": "We saw ten.\nNine were well.\n"}
    return before.get(layout, "") + question


def check(layout: str, items, made) -> None:
    assert [item.question for item in items] == [question_for(layout, entry.question) for entry in made]
    for item, entry in zip(items, made):
        assert item.options[item.answer] == entry.options[entry.gold]
        if layout == "jmed":
            assert sorted(item.options.values()) == sorted(entry.options)
        else:
            assert list(item.options.values()) == entry.options


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_was_written_is_read(layout, seed, read):
    made = entries_for(layout, seed=seed)
    items, unusable = read(layout, LAYOUTS[layout][2](made))
    assert unusable == []
    check(layout, items, made)


@pytest.mark.parametrize("layout", WIDE)
def test_five_options_under_the_same_layout(layout, read):
    made = entries_for(layout, options=5)
    items, unusable = read(layout, LAYOUTS[layout][2](made))
    assert unusable == [] and {item.labels for item in items} == {"ABCDE"}
    check(layout, items, made)


@pytest.mark.parametrize("layout", ["mmlu_pro", "medxpertqa", "medxpertqa list", "medxpertqa inline"])
@pytest.mark.parametrize("count", [3, 7, 10])
def test_three_to_ten_options(layout, count, read):
    made = entries_for(layout, options=count)
    items, _ = read(layout, LAYOUTS[layout][2](made))
    assert {item.answer for item in items} == set(LABELS[:count])
    check(layout, items, made)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_byte_order_mark_and_line_ends_do_not_matter(layout, put):
    """CRLF between rows; the text of a cell that has line ends of its own is read alike too."""
    path = put(layout, LAYOUTS[layout][2](entries_for(layout)))
    plain, _ = read_set(LAYOUTS[layout][0], path)
    data = path.read_bytes()
    for changed in (b"\xef\xbb\xbf" + data, data.replace(b"\n", b"\r\n"), data.rstrip(b"\n")):
        path.write_bytes(changed)
        items, unusable = read_set(LAYOUTS[layout][0], path)
        assert unusable == []
        for item, before in zip(items, plain, strict=True):
            assert (item.id, item.question, item.options, item.answer) == (
                before.id, before.question, before.options, before.answer)


@pytest.mark.parametrize("layout", [name for name, row in LAYOUTS.items() if row[1].endswith((".jsonl", ".csv"))])
def test_blank_lines_do_not_matter(layout, put):
    path = put(layout, LAYOUTS[layout][2](entries_for(layout, 5)))
    plain, _ = read_set(LAYOUTS[layout][0], path)
    lines = path.read_text(encoding="utf-8")
    path.write_text(("\n" if layout not in ("cmexam", "mmlu") else "") + lines + "\n\n", encoding="utf-8")
    items, _ = read_set(LAYOUTS[layout][0], path)
    assert [item.id for item in items] == [item.id for item in plain]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_item_survives_our_own_file(layout, read, tmp_path):
    items, _ = read(layout, LAYOUTS[layout][2](entries_for(layout)))
    write_items(tmp_path / "items.jsonl", items)
    assert read_items(tmp_path / "items.jsonl") == items


@pytest.mark.parametrize("layout", LAYOUTS)
def test_white_space_goes_at_the_ends_and_nowhere_else(layout, read):
    made = entries_for(layout, 8)
    for entry in made:
        entry.question = "\u3000 " + entry.question.replace(" ", "  ") + " \t"
        if layout not in ("pubmedqa", "medxpertqa inline", "cmexam"):
            entry.options = [f" {text} \u00a0" for text in entry.options]
    items, _ = read(layout, LAYOUTS[layout][2](made))
    for item, entry in zip(items, made, strict=True):
        assert item.question.endswith(entry.question.strip()) and item.question == item.question.strip()
        assert sorted(item.options.values()) == sorted(text.strip() for text in entry.options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_explanation_reaches_an_item(layout, read):
    items, _ = read(layout, LAYOUTS[layout][2](entries_for(layout)))
    for item in items:
        text = json.dumps([item.question, item.options, item.provenance])
        assert "because" not in text and "It does" not in text and "explanation" not in text


def test_every_reader_has_a_layout_here():
    assert {row[0] for row in LAYOUTS.values()} == {WAYS.get(name, name) for name in READERS}
