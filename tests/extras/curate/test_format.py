"""Tests for the format filter: malformed items are dropped with a reason, others are kept."""

import copy
import json
from pathlib import Path

from bank import bank, item

from minifleming.extras.curate.format import fault, format_step, judge

CASES = json.loads((Path(__file__).parents[2] / "data" / "format.json").read_text("utf-8"))


def test_well_formed_texts_are_kept():
    wrong = []
    for text in CASES["fine"]:
        if fault(item(question=text)) or fault(item(options=(text, "other", "third"))):
            wrong.append(text)
    assert not wrong


def test_malformed_texts_are_dropped_with_the_reason():
    wrong = []
    for reason, text in CASES["broken"]:
        found = fault(item(question=text))
        if found is None or found[0] != reason:
            wrong.append((text, found))
        if reason != "question too short":
            found = fault(item(options=("fine", text, "other")))
            if found is None or found[0] != reason or found[1]["where"] != "B":
                wrong.append((text, found))
    assert not wrong


def test_a_control_character_is_reported_by_its_number():
    found = fault(item(question="a\x07b is asked"))
    assert found == ("control character", {"where": "question", "found": "U+0007"})


def test_options_with_the_same_words_are_duplicates():
    for options, labels in ((("Iron", "Zinc", "iron."), ["A", "C"]),
                            (("a b", "A  B", "c"), ["A", "B"]), (("１", "2", "1"), ["A", "C"]),
                            (("铁", "锌", "铁。"), ["A", "C"])):
        assert fault(item(options=options)) == ("duplicate options", {"labels": labels})


def test_options_that_differ_in_a_sign_are_different():
    for options in (("Rh+", "Rh-"), ("+", "-"), ("↑", "↓"), ("None", "One"), ("≥5", "≤5"),
                    ("All of the above", "None of the above"), ("1,2", "1,2,3", "12"),
                    ("A", "B", "Both A and B")):
        assert fault(item(options=options)) is None, options


def test_empty_options_are_found():
    for empty in ("nan", "NULL", "N/A", ".", "...", "()", "?"):
        assert fault(item(options=("x", empty, "y"))) == ("empty option", {"labels": ["B"]})


def test_an_ideograph_counts_as_two_characters():
    assert fault(item(question="abcdef")) is None
    assert fault(item(question="abcde"))[0] == "question too short"
    assert fault(item(question="高血压")) is None
    assert fault(item(question="高血"))[0] == "question too short"


def test_the_step_keeps_or_drops_each_item_and_changes_none():
    broken = [item(f"x{i}", text) for i, (_, text) in enumerate(CASES["broken"])]
    items = [*bank(70), *broken]
    before = copy.deepcopy(items)
    kept, left = format_step(items)
    assert items == before and len(kept) == 70
    assert [d.item.id for d in left] == [one.id for one in broken]
    assert [d.reason for d in left] == [reason for reason, _ in CASES["broken"]]
    assert {d.step for d in left} == {"format"} and not any(d.quarantined for d in left)
    assert all(i.provenance["lineage"] == [{"step": "format"}] for i in kept)
    lineage = left[0].item.provenance["lineage"]
    assert lineage == [{"step": "format", "reason": "control character"}]
    assert format_step(kept)[1] == []


def test_the_lineage_is_extended():
    first = judge(item(provenance={"lineage": [{"step": "read"}], "set": "s"}))
    assert first.provenance == {"lineage": [{"step": "read"}, {"step": "format"}], "set": "s"}


def test_hostile_texts_take_little_time():
    for text in ("<" * 200_000, "&" * 200_000, "<p " * 60_000, "<p class=\"" * 20_000,
                 "â" * 200_000, "&#" * 100_000):
        fault(item(question=text + "?a"))
