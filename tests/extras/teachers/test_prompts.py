"""Tests for extras/teachers/prompts.py: fields are filled once, answers are parsed without guessing."""

from __future__ import annotations

import re

import pytest

from minifleming.cold_start.trace import ROUNDS, STRATEGIES, Trace
from minifleming.extras.teachers.prompts import (
    FOLDER,
    PLACE,
    ask,
    fill,
    read_completion,
    template,
)
from minifleming.rods.item import Item

ITEM = Item("x", "which {answer} ? {reasoning} {{}} {nothing}", {"A": "red", "B": "blue"}, "B", "made")


def test_there_is_one_file_a_strategy_and_no_other():
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.txt" for name in (*STRATEGIES, "resolve", "format")}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_those_who_may_know_are_told_the_answer(strategy):
    places = set(PLACE.findall(template(strategy)))
    assert "question" in places
    assert ({"answer", "option"} <= places) is (strategy != "blind") and ("reasoning" in places) is (strategy in ROUNDS)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_question_with_braces_is_text(strategy):
    earlier = Trace("x", "q", {}, " because {question} ", "A", strategy, "t", {"format": True, "answer": False})
    text = ask(ITEM, strategy, earlier)
    assert text.count(ITEM.question) == 1, "filled once, and braces in it are left alone"
    if strategy in ROUNDS:
        assert "because {question}" in text and "(answer)" in text
    if strategy != "blind":
        assert "B: blue" in text


def test_blind_is_the_question_alone():
    assert ask(ITEM, "blind") == ITEM.question


def test_a_place_without_a_value_is_an_error():
    with pytest.raises(KeyError):
        fill("conditioned", question="q")


@pytest.mark.parametrize(("text", "reasoning", "label"), [
    ("<think> a points to b .</think><answer>B</answer>", " a points to b .", "B"),
    ("Because it is red.\n\n<answer>A</answer>", "Because it is red.", "A"),
    ("So <answer>A</answer>? No.\n<answer> B </answer> done", "So <answer>A</answer>? No.", "B"),
    ("no answer at all", "no answer at all", ""), ("<answer>C</answer>", "", ""),
    ("<answer>AB</answer>", "<answer>AB</answer>", ""),
    ("<think>open <answer>B</answer>", "open", "B"), ("", "", ""), ("<answer></answer>", "<answer></answer>", ""),
    ("reason</think><answer>A</answer>", "reason", "A")])
def test_what_a_teacher_wrote(text, reasoning, label):
    assert read_completion(text, "AB") == (reasoning, label)


def test_prompts_ask_for_the_form_that_is_read():
    text = fill("format", label="B")
    assert read_completion("It is so. " + re.search(r"<answer>.*</answer>", text)[0], "AB") == ("It is so.", "B")
