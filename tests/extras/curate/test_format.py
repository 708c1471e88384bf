"""Broken items are named, whole ones are left alone."""

import copy

import pytest
from bank import bank, item

from minifleming.extras.curate.format import fault, format_step, judge

FINE = ["A 45-year-old man with Na+ 140 mEq/L?", "β-blockers ≥ 5 μg at 37 °C ± 1", "Médecins, naïve, Ångström, Ménière",
        "p<0.05 and b>3, a<b and c>d", "tabs\tand\nlines", "IDL has", "高血压", "AT&T; R&D", "ÉÂ Â TÂCHE É",
        "CO₂ → HCO₃⁻",
        "if <b and c> d", "Sjögren’s “sicca” – dry…", "Which is used for 5 < x < 7?", "100 µL, ½, ²"]
BROKEN = [("control character", "a\0b question"), ("control character", "form\x0cfeed here"),
          ("control character", "bell\x07 here"), ("control character", "\x85 next line"),
          ("control character", "carriage\rreturn"),
          ("mojibake", "The patientâ€™s fever"),
          ("mojibake", "MÃ©niÃ¨re disease"),
          ("mojibake", "Î²-blocker use"), ("mojibake", "37 Â°C is"), ("mojibake", "lost \ufffd letter"),
          ("mojibake", "symbol \uf0b0 font"), ("mojibake", "éœ€è¦ text"), ("mojibake", "锟斤拷 text"),
          ("mojibake", "â‰¥ 5 is"), ("markup", "H<sub>2</sub>O is"), ("markup", "one<br>two lines"),
          ("markup", "<p class=\"q\">Which?</p>"), ("markup", "a &nbsp; b is"), ("markup", "x &lt; 5 is"),
          ("markup", "caf&#233; or"), ("markup", "<IMG SRC='x.png'/> shows"), ("question too short", "Q. 1"),
          ("question too short", "?!..... - - -"), ("question too short", "a b c d")]


@pytest.mark.parametrize("text", FINE)
def test_what_is_fine_stays(text):
    assert fault(item(question=text)) is None
    assert fault(item(options=(text, "other", "third"))) is None


@pytest.mark.parametrize("reason, text", BROKEN)
def test_what_is_broken_is_named(reason, text):
    assert fault(item(question=text))[0] == reason
    if reason != "question too short":
        found = fault(item(options=("fine", text, "other")))
        assert found[0] == reason and found[1]["where"] == "B"


def test_a_control_character_is_named_by_its_number():
    assert fault(item(question="a\x07b is asked"))[1] == {"where": "question", "found": "U+0007"}


@pytest.mark.parametrize("options, labels", [(("Iron", "Zinc", "iron."), ["A", "C"]),
                                             (("a b", "A  B", "c"), ["A", "B"]),
                                             (("１", "2", "1"), ["A", "C"]), (("铁", "锌", "铁。"), ["A", "C"])])
def test_duplicate_options(options, labels):
    assert fault(item(options=options)) == ("duplicate options", {"labels": labels})


@pytest.mark.parametrize("options", [("Rh+", "Rh-"), ("+", "-"), ("↑", "↓"), ("All of the above", "None of the above"),
                                     ("1,2", "1,2,3", "12"), ("None", "One"), ("A", "B", "Both A and B"), ("≥5", "≤5")])
def test_options_that_differ_in_a_sign_are_two(options):
    assert fault(item(options=options)) is None


@pytest.mark.parametrize("empty", ["nan", "NULL", "N/A", ".", "...", "()", "?"])
def test_empty_options(empty):
    assert fault(item(options=("x", empty, "y"))) == ("empty option", {"labels": ["B"]})


def test_the_floor_is_an_argument_and_counts_ideographs_double():
    assert fault(item(question="abcde"), 5) is None and fault(item(question="abcd"), 5)
    assert fault(item(question="高血压"), 6) is None and fault(item(question="高血"), 6)


def test_the_step_keeps_all_items_and_changes_none():
    items = [*bank(70), *(item(f"x{i}", text) for i, (_, text) in enumerate(BROKEN))]
    before = copy.deepcopy(items)
    kept, left = format_step(items)
    assert items == before and len(kept) == 70 and [d.item.id for d in left] == [f"x{i}" for i in range(len(BROKEN))]
    assert [d.reason for d in left] == [reason for reason, _ in BROKEN] and {d.step for d in left} == {"format"}
    assert not any(d.quarantined for d in left) and all(i.provenance["lineage"] == [{"step": "format"}] for i in kept)
    assert left[0].item.provenance["lineage"] == [{"step": "format", "reason": "control character"}]
    assert format_step(kept)[1] == []


def test_lineage_is_added_to_and_not_replaced():
    first = judge(item(provenance={"lineage": [{"step": "read"}], "set": "s"}))
    assert first.provenance == {"lineage": [{"step": "read"}, {"step": "format"}], "set": "s"}


@pytest.mark.parametrize("poison", ["<" * 200_000, "&" * 200_000, "<p " * 60_000, "<p class=\"" * 20_000, "â" * 200_000,
                                    "&#" * 100_000])
def test_poison_takes_no_time(poison):
    fault(item(question=poison + "?a"))
