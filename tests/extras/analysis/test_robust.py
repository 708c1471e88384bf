"""Tests of extras/analysis/robust.py and slices.py: figures counted by hand; a record is in one slice per dimension."""

from __future__ import annotations

import numpy as np
import pytest

from minifleming.evaluation.statistics import wilson
from minifleming.extras.analysis.robust import (
    label_distribution,
    markdown,
    permutation_consistency,
    robustness,
    variants,
)
from minifleming.extras.analysis.slices import DIMENSIONS, FEWEST, slices
from minifleming.rods.item import Item


def test_turns_by_hand():
    turns = {"right": ["B", "B"], "wavers": ["B", "A"], "wrong": ["C", "C"], "mute": [None, None], "half": [None, "B"]}
    found = permutation_consistency(turns, dict.fromkeys(turns, "B"))
    assert found == {"n": 5, "by_turn": [0.4, 0.4], "mean": 0.4, "worst": 0.2, "consistent": 0.4}


def test_worst_is_at_most_each_turn_and_consistency_at_least_worst():
    rng = np.random.default_rng(0)
    turns = {f"i{n}": [["A", "B", "C", None][k] for k in rng.integers(4, size=4)] for n in range(300)}
    found = permutation_consistency(turns, dict.fromkeys(turns, "A"))
    assert found["worst"] <= min(found["by_turn"]) <= found["mean"] and found["worst"] <= found["consistent"]
    one = permutation_consistency({item: labels[:1] for item, labels in turns.items()}, dict.fromkeys(turns, "A"))
    assert one["mean"] == one["worst"] == found["by_turn"][0]


@pytest.mark.parametrize("turns", [{}, {"a": []}, {"a": ["A"], "b": ["A", "B"]}])
def test_items_with_different_numbers_of_turns_are_refused(turns):
    with pytest.raises(ValueError, match="equally many permutations"):
        permutation_consistency(turns, dict.fromkeys(turns, "A"))


def distance(gold: str, predicted) -> dict:
    return label_distribution([{"answer": a, "strict": b} for a, b in zip(gold, predicted, strict=True)])


def test_label_distribution():
    assert distance("AB", "AB")["distance"] == 0
    assert distance("AB", "BA")["distance"] == 0, "of labels, not of items"
    assert distance("AB", [None, None]) == {"gold": {"A": 1, "B": 1}, "predicted": {"none": 2}, "distance": 1.0}
    assert distance("ABCD", "AAAA")["distance"] == 0.75


def test_every_record_is_in_one_slice_of_each_dimension():
    rng = np.random.default_rng(1)
    records = [{"tier": ["easy", "", "difficult"][n % 3], "hops": n % 4, "rarity": float(rng.integers(0, 7)),
                "source": "kg", "options": 4 + n % 2, "tokens": int(rng.integers(1, 400)), "strict": "A" if n % 5 else "B", "answer": "A"}
               for n in range(700)]
    rows = slices(records)
    for dimension in DIMENSIONS:
        assert sum(row["n"] for row in rows if row["dimension"] == dimension) == 700
    for row in rows:
        if row["dimension"] == "hops" and row["slice"] != "none":
            mine = [r for r in records if r["hops"] == int(row["slice"])]
            k = sum(r["strict"] == "A" for r in mine)
            assert (row["n"], row["correct"], row["accuracy"]) == (len(mine), k, k / len(mine))
            assert (row["ci_low"], row["ci_high"]) == wilson(k, len(mine))
    assert next(row["n"] for row in rows if row["slice"] == "none") == sum(not r["tier"] for r in records)
    fifths = [row["n"] for row in rows if row["dimension"] == "tokens"]
    assert len(fifths) == 5 and max(fifths) - min(fifths) < 20
    by_rarity = {}
    for row in rows:
        by_rarity |= {row["slice"]: row["n"]} if row["dimension"] == "rarity" else {}
    assert set(by_rarity.values()) <= {sum(r["rarity"] == v for r in records) for v in range(7)}


def test_ten_values_make_ten_deciles():
    records = [{"rarity": value / 10, "strict": "A", "answer": "A"} for value in range(1, 11) for _ in range(FEWEST)]
    rows = [row for row in slices(records) if row["dimension"] == "rarity"]
    assert [(row["slice"], row["n"]) for row in rows] == [(f"{i:02d} of 10", FEWEST) for i in range(1, 11)]


def test_small_slices_show_their_size_alone():
    right = {"strict": "A", "answer": "A"}
    records = [right | {"tier": "easy"}] * FEWEST + [right | {"tier": "moderate"}] * (FEWEST - 1)
    large, small = (row for row in slices(records) if row["dimension"] == "tier")
    assert large["accuracy"] == 1.0 and small == {"dimension": "tier", "slice": "moderate", "n": FEWEST - 1}
    assert {row["slice"] for row in slices(records) if row["dimension"] != "tier"} == {"none"}


def asked_of(items, answer) -> dict[str, list[dict]]:
    """Records of every variant; ``answer`` gives the label that a reader of the options chooses."""
    return {name: [{"item": item.id, "answer": item.answer, "strict": answer(item)} for item in of]
            for name, of in {"": items, **variants(items)}.items()}


def test_a_reader_of_texts_does_not_move_and_a_reader_of_letters_does():
    texts = ["heparin", "aspirin", "warfarin", "iron"]
    items = [Item(f"i{n}", "Which ?", dict(zip("ABCD", texts[n % 4 :] + texts[: n % 4])), "ABCD"[n % 3])
             for n in range(60)]
    items.append(Item("last", "Which ?", {"A": "x", "B": "y", "C": "A and B"}, "A"))
    items.append(Item("pin", "Which ?", {"A": "x", "B": "y", "C": "None of these"}, "C"))
    gold = {item.id: item.options[item.answer] for item in items}
    knows = robustness(items, asked_of(items, lambda item: next(
        k for k, text in item.options.items() if text == gold[item.id.partition("#")[0]])), 0.95)
    assert (knows["n"], knows["left_out"], knows["pinned"], knows["permuted"]) == (62, 1, 1, 61)
    assert knows["as_is"] == knows["mean"] == knows["worst"] == knows["consistent"] == knows["blank"] == 1.0
    always = robustness(items, asked_of(items, lambda item: "A"), 0.95)
    assert always["worst"] == 0.0 and always["consistent"] <= 1 / 61 and 0.15 < always["mean"] < 0.4
    assert always["letters"] > 0.5 > knows["letters"] == 0
    assert knows["distractors"] == 1.0
    stays = robustness(items, asked_of(items, lambda item: {i.id: i.answer for i in items}[item.id.partition("#")[0]]),
                       0.95)
    assert stays["distractors"] == 1.0 > stays["mean"], "a reader of places is found out by the four orders alone"
    mute = robustness(items, asked_of(items, lambda item: None), 0.95)
    assert mute["mean"] == mute["consistent"] == mute["blank"] == 0 and mute["letters"] == 1
    assert "| x | 62 | 1 | 1 | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 | 0.00 | 100.0 [" in markdown({"x": knows})


def test_a_set_that_cannot_be_permuted_has_its_blank_figures_alone():
    items = [Item("i", "Which ?", {"A": "x", "B": "A or C", "C": "y"}, "A")]
    row = robustness(items, asked_of(items, lambda item: "A"), 0.95)
    assert row["left_out"] == 1 and "mean" not in row and row["blank"] == 1.0
    assert "| y | 1 | 1 | 0 |  |  |  |  |  | 0.00 | 100.0 [" in markdown({"y": row})
