"""An item survives its file unchanged, and a file with a fault is refused with its line and the reason."""

import dataclasses
import json

import pytest

from minifleming.rods.item import LABELS, Item, read_items, read_jsonl, write_items
from minifleming.rods.readers import load_graph
from minifleming.run.errors import BadInput
from tests.rods.items import synthesize

PLAIN = {"id": "a", "question": "Which?", "options": {"A": "x", "B": "y"}, "answer": "A"}


def write(path, *records) -> None:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))


def test_synthesized_items_come_back_equal(tmp_path):
    items = synthesize(load_graph("embedded"), 40, [1, 2, 3, 4], seed=0)
    write_items(tmp_path / "i.jsonl", items)
    assert read_items(tmp_path / "i.jsonl") == items
    write_items(tmp_path / "again.jsonl", read_items(tmp_path / "i.jsonl"))
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "i.jsonl").read_bytes()


def test_a_line_holds_every_field_in_the_documented_order(tmp_path):
    write_items(tmp_path / "i.jsonl", [Item(**PLAIN)])
    record = json.loads((tmp_path / "i.jsonl").read_text())
    assert list(record) == ["id", "question", "options", "answer", "source", "language", "tier", "hops", "rarity",
                            "path", "visible", "absent", "masked", "discriminating", "provenance"]


def test_text_of_any_script_survives_unescaped(tmp_path):
    """Line separators other than newline stand inside a line; nothing is written as an escape but what must be."""
    texts = ["العربية", "Ünïcödé", "a\u2028b\u2029c\x85d", "🩺", 'quote " back \\ tab \t newline \n']
    items = [dataclasses.replace(Item(**PLAIN), id=str(i), question=text) for i, text in enumerate(texts)]
    write_items(tmp_path / "i.jsonl", items)
    assert [item.question for item in read_items(tmp_path / "i.jsonl")] == texts
    assert "العربية" in (tmp_path / "i.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["{}\n{}\n", "{}\r\n{}\r\n", "\n{}\n \n\n{}", "  {}\n{}  \n"])
def test_blank_lines_and_line_ends_do_not_matter(tmp_path, text):
    first, second = json.dumps(PLAIN), json.dumps(PLAIN | {"id": "b"})
    (tmp_path / "i.jsonl").write_text(text.replace("{}", first, 1).replace("{}", second, 1), newline="")
    assert [item.id for item in read_items(tmp_path / "i.jsonl")] == ["a", "b"]


@pytest.mark.parametrize("count", [2, 5, 26])
def test_two_to_twenty_six_options(count):
    options = {label: f"option {label}" for label in LABELS[:count]}
    assert Item(**PLAIN | {"options": options, "answer": LABELS[count - 1]}).labels == LABELS[:count]


FAULTS = [
    ({"id": 3}, "'id' must be str"),
    ({"id": ""}, "must not be empty"),
    ({"question": "  \n"}, "must not be empty"),
    ({"question": ["q"]}, "'question' must be str"),
    ({"options": ["x", "y"]}, "'options' must be dict"),
    ({"options": {"A": "x"}}, "1 options; 2 to 26"),
    ({"options": {}}, "0 options"),
    ({"options": {label: "x" for label in LABELS} | {"AA": "x"}}, "27 options"),
    ({"options": {"B": "x", "A": "y"}}, "option labels must be A..B in order"),
    ({"options": {"A": "x", "C": "y"}}, "option labels"),
    ({"options": {"a": "x", "b": "y"}}, "option labels"),
    ({"options": {"1": "x", "2": "y"}}, "option labels"),
    ({"options": {"A": "x", "B": " "}}, "every option must be a non-empty text"),
    ({"options": {"A": "x", "B": 2}}, "every option"),
    ({"options": {"A": "x", "B": None}}, "every option"),
    ({"answer": "C"}, "answer 'C' is not among the options"),
    ({"answer": "a"}, "answer 'a'"),
    ({"answer": ""}, "answer ''"),
    ({"answer": ["A"]}, "'answer' must be str"),
    ({"answer": None}, "'answer' must be str"),
    ({"tier": "hard"}, "tier 'hard' is not one of easy, moderate, difficult"),
    ({"hops": -1}, "'hops' must be a whole number"),
    ({"hops": 1.0}, "'hops'"),
    ({"hops": True}, "'hops'"),
    ({"rarity": "0.3"}, "'rarity' must be a finite number"),
    ({"rarity": float("nan")}, "'rarity'"),
    ({"rarity": float("inf")}, "'rarity'"),
    ({"path": "abc"}, "'path' must be a list of triples"),
    ({"path": [["a", "b"]]}, "'path' must hold triples"),
    ({"path": ["abc"]}, "'path' must hold triples"),
    ({"visible": [["a", "b", 3]]}, "'visible' must hold triples"),
    ({"absent": [None]}, "'absent' must hold triples"),
    ({"discriminating": {"B": "abc"}}, "'discriminating' must hold triples"),
    ({"discriminating": []}, "'discriminating' must be dict"),
    ({"provenance": "book"}, "'provenance' must be dict"),
    ({"provenance": {"root": ["lupus"]}}, "'provenance.root' must be a name"),
    ({"provenance": {"hidden": 3}}, "'provenance.hidden' must be a list of names"),
    ({"provenance": {"hidden": [["lupus"]]}}, "'provenance.hidden'"),
    ({"provenance": {"rivals": ["lupus"]}}, "'provenance.rivals' must map labels to names"),
    ({"provenance": {"rivals": {"Z": "lupus"}}}, "'provenance.rivals'"),
    ({"masked": None}, "'masked' must be str"),
    ({"language": 3}, "'language' must be str"),
    ({"colour": "red"}, "unknown field 'colour'"),
]


@pytest.mark.parametrize("change, reason", FAULTS, ids=[reason for _, reason in FAULTS])
def test_a_fault_is_refused_with_its_line(tmp_path, change, reason):
    path = tmp_path / "i.jsonl"
    write(path, PLAIN | {"id": "first"}, "", PLAIN | change)
    with pytest.raises(BadInput) as caught:
        read_items(path)
    assert str(caught.value).startswith(f"{path}:3: ") and reason in str(caught.value)


@pytest.mark.parametrize("field", ["id", "question", "options", "answer"])
def test_a_missing_field_is_named(tmp_path, field):
    write(tmp_path / "i.jsonl", {key: value for key, value in PLAIN.items() if key != field})
    with pytest.raises(BadInput, match=rf"i\.jsonl:1: missing '{field}'"):
        read_items(tmp_path / "i.jsonl")


@pytest.mark.parametrize("data, reason", [
    (b'{"id": ', "1: not valid JSON"),
    (b"[]", "1: not a JSON object"),
    (b"null", "1: not a JSON object"),
    (b"\n\n3", "3: not a JSON object"),
    (b'{"id": "\xff"}', "1: not UTF-8 text"),
    (b"[" * 100_000, "1: not valid JSON"),
    (b'{"id": "\\ud83e"}', "1: half a character: a lone surrogate"),
    (b'{"n": ' + b"9" * 5000 + b"}", "1: not valid JSON"),
    (b"\x00", "1: not valid JSON"),
])
def test_a_line_that_is_no_object_is_refused(tmp_path, data, reason):
    (tmp_path / "i.jsonl").write_bytes(data)
    with pytest.raises(BadInput, match=rf"i\.jsonl:{reason}"):
        list(read_jsonl(tmp_path / "i.jsonl"))


def test_a_whole_pair_of_surrogates_is_one_character(tmp_path):
    (tmp_path / "i.jsonl").write_bytes(b'{"id": "\\ud83e\\ude7a"}')
    assert list(read_jsonl(tmp_path / "i.jsonl")) == [(1, {"id": "🩺"})]


def test_an_id_that_comes_twice_is_refused_with_both_lines(tmp_path):
    write(tmp_path / "i.jsonl", PLAIN, PLAIN | {"id": "b"}, PLAIN)
    with pytest.raises(BadInput, match=r"i\.jsonl:3: id 'a' is already on line 1"):
        read_items(tmp_path / "i.jsonl")


@pytest.mark.parametrize("name, reason", [
    ("none.jsonl", "No such file"), (".", "directory"), ("empty.jsonl", "no items"),
])
def test_what_holds_no_items_is_refused(tmp_path, name, reason):
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(BadInput, match=reason):
        read_items(tmp_path / name)
