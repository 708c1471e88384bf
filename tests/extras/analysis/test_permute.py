"""Laws of extras/analysis/permute.py: a bijection, the right text stays right, what speaks of others stays where it is."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import Counter
from pathlib import Path

import pytest

from minifleming.evaluation.benchmarks import read_benchmark
from minifleming.extras.analysis.permute import TURNS, blanked, orders, permuted, pinned
from minifleming.rods.item import LABELS, Item
from minifleming.rods.proof import find_fault
from minifleming.rods.query import Facts
from minifleming.rods.readers import load_graph
from tests.rods.items import synthesize

DATA = os.environ.get("MINIFLEMING_DATA")


def item_of(*options: str, question="Which ?", answer="A", name="i") -> Item:
    return Item(name, question, dict(zip(LABELS, options)), answer)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 21])
def test_the_right_text_stays_right_and_the_way_back_restores(count):
    for n in range(20):
        item = item_of(*(f"option {i}" for i in range(count)), answer=LABELS[n % count], name=f"i{n}")
        for turn in range(1, TURNS + 1):
            other, back, fixed = permuted(item, turn, seed=3)
            assert other.options[other.answer] == item.options[item.answer] and other.id == f"i{n}#p{turn}"
            assert sorted(back) == sorted(back.values()) == list(item.options) and fixed == 0
            assert {back[label]: text for label, text in other.options.items()} == item.options
            assert list(other.options) == list(item.options) and other.question == item.question
            assert permuted(item, turn, seed=3) == (other, back, fixed)
    names = [dataclasses.replace(item, id=f"n{n}") for n in range(40)]
    assert count == 2 or len({tuple(permuted(other, 1).back.values()) for other in names}) > 3, "items differ"
    assert count == 2 or permuted(item, 1, seed=0).back != permuted(item, 1, seed=1).back != permuted(item, 1, 2).back
    assert permuted(item, 0) is None and permuted(item, TURNS + 1) is None


@pytest.mark.parametrize("count", range(2, 9))
def test_turns_differ_from_the_file_and_from_one_another(count):
    for key in "abcdefgh":
        found = [tuple(order) for order in orders(count, key)]
        assert len(found) == TURNS
        assert len(set(found)) == (TURNS if count > 2 else 2)
        assert count == 2 or tuple(range(count)) not in found
    assert orders(2, "a") == [[1, 0], [0, 1], [1, 0], [0, 1]]


def test_every_place_is_as_likely():
    """Of three options each comes to each place equally often but for the file's own order, which is left out."""
    seen = Counter((place, source) for n in range(3000) for place, source in enumerate(orders(3, f"k{n}")[0]))
    allowed = [o for o in itertools.permutations(range(3)) if o != (0, 1, 2)]
    for place, source in itertools.product(range(3), repeat=2):
        share = sum(order[place] == source for order in allowed) / len(allowed)
        assert abs(seen[place, source] / 3000 - share) < 0.04


@pytest.mark.parametrize("text", [
    "None of the above", "none of the above.", "All of these", "All of the above are correct", "Both", "None",
    "Neither", "Any of the above", "All the above", "None of these options", "以上都是",
    "以上都不对", "以上均不正确", "都不是", "Both of the above", "both are true", "Some of the above",
    "All", "None of the options listed", "Neither of these"])
def test_what_speaks_of_the_others_keeps_its_place(text):
    for place in range(4):
        options = ["aspirin", "heparin", "warfarin"]
        options.insert(place, text)
        item = item_of(*options, answer="B")
        assert pinned(item) == [LABELS[place]]
        for turn in range(1, TURNS + 1):
            other, back, fixed = permuted(item, turn)
            assert list(other.options.values())[place] == text and fixed == 1 and back[LABELS[place]] == LABELS[place]


@pytest.mark.parametrize("text", [
    "A and B", "Both A and C", "B & C", "Both AB", "A, B and C", "Both (A) & (C)", "either B or C", "Options A and B",
    "a and c only", "A or B", "A/B", "both a and b are correct"])
def test_an_item_whose_options_name_others_by_letter_is_left_out(text):
    assert pinned(item_of("aspirin", "heparin", "warfarin", text)) is None
    assert permuted(item_of("aspirin", "heparin", text), 1) is None


@pytest.mark.parametrize("options", [
    ("A", "B", "AB", "O"), ("vitamin A", "vitamin C", "vitamin A and C", "iron"), ("Cord", "Root", "Trunk", "Head"),
    ("a and b", "a and c", "b and c", "c and d"), ("A,B", "A,C", "B,C", "ABC"), ("yes", "no", "maybe"),
    ("Both kidneys", "None of the valves", "All limbs", "Above the knee"),
    ("hepatitis A", "hepatitis B", "HLA-B27", "E")])
def test_names_and_letters_of_the_question_are_free(options):
    assert pinned(item_of(*options)) == []


def test_a_question_that_names_options_by_letter_and_options_without_freedom_are_left_out():
    assert pinned(item_of("x", "y", "z", question="Why is option B wrong ?")) is None
    assert pinned(item_of("x", "y", "z", question="Why is hepatitis B an option ?")) == []
    assert pinned(item_of("x", "None of the above", "All of the above")) is None


def test_distractors_only_keeps_the_right_letter():
    item = item_of("a1", "a2", "a3", "a4", "None of these", answer="C")
    for turn in range(1, TURNS + 1):
        other = permuted(item, turn, keep_gold=True).item
        assert other.answer == "C" and other.options["C"] == "a3" and other.options != item.options
        assert other.options["E"] == "None of these"
    assert permuted(item_of("x", "y", answer="A"), 1, keep_gold=True) is None


def test_a_graph_item_is_still_proved_in_another_order():
    graph = load_graph("embedded")
    facts = Facts(graph)
    for item in synthesize(graph, 30, [1, 2, 3], seed=4):
        for turn in range(1, TURNS + 1):
            other, back, _ = permuted(item, turn)
            assert find_fault(other, facts) is None
            assert all(other.nodes(new) == item.nodes(old) for new, old in back.items())
            assert {back[k]: v for k, v in other.discriminating.items()} == item.discriminating


def test_a_blank_question_leaves_the_options():
    item = item_of("x", "y")
    assert blanked(item).options == item.options and blanked(item).answer == item.answer
    assert "Which" not in blanked(item).question and blanked(item).id == "i#blank"
    chinese = Item("z", "哪个？", {"A": "甲", "B": "乙"}, "A", language="zh")
    assert "选项" in blanked(chinese).question


@pytest.mark.skipif(not DATA, reason="needs the benchmark files")
@pytest.mark.parametrize("name, file, left_out, kept", [
    ("medqa", "medqa_test_4options.jsonl", 0, 0), ("medmcqa", "medmcqa_dev.jsonl", 6, 302), ("mmlu", "mmlu", 0, 7),
    ("medbullets", "medbullets_op4.json", 0, 0), ("pubmedqa", "pubmedqa_ori_pqal.json", 0, 0)])
def test_the_real_sets(name, file, left_out, kept):
    items, _ = read_benchmark(name, Path(DATA) / "benchmarks" / file)
    found = [pinned(item) for item in items]
    assert (sum(labels is None for labels in found), sum(bool(labels) for labels in found)) == (left_out, kept)
