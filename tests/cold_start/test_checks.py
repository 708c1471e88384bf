"""Tests for cold_start/checks.py: each fault fails exactly its check, and a trace's verdicts do not
depend on the other traces of the call."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path

import pytest

from minifleming.cold_start.checks import Checks, without_labels
from minifleming.cold_start.oracle import Oracle
from minifleming.cold_start.trace import new_trace
from minifleming.extras.numbers.guidelines import Snippet, check_guidelines
from minifleming.extras.numbers.units import check_numbers
from minifleming.rods.item import Item
from tests.rods.toy_graphs import clinic

LABELS = Path(__file__).parents[1] / "data" / "labels.tsv"
QUESTION = "A patient of 70 kg has s1 and s2 and s3 . He takes 5 mg of x9 . Which drug is first-line ?"
EXTRA = (check_numbers, check_guidelines((Snippet("g", ("x9",), (), ("double x9",)),)))


@pytest.fixture(scope="module")
def graph():
    return clinic()


@pytest.fixture
def item():
    return Item("i", QUESTION, {"A": "x1", "B": "x2", "C": "x3"}, "A", hops=2,
                path=[("d1", "has_symptom", "s1"), ("d1", "first_line_treatment", "x1")],
                visible=[("d1", "has_symptom", s) for s in ("s1", "s2", "s3")] + [
                    ("d1", "first_line_treatment", "x1")], provenance={"root": "d1"})


class Judge:
    """Records the reasonings it gets and returns one label for all."""

    name = "judge"

    def __init__(self, label="A"):
        self.label, self.asked = label, []

    def resolve(self, items, reasonings):
        self.asked.append(list(reasonings))
        return [self.label for _ in items]


def found(item: Item, reasoning: str, answer: str = "A", **settings) -> dict[str, bool]:
    trace = new_trace(item, reasoning, answer, "blind", "test")
    Checks(extra=EXTRA, max_chars=200, **settings)([item], [trace])
    return trace.checks


def failed(checks: dict[str, bool]) -> list[str]:
    return [name for name, passed in checks.items() if not passed]


WHOLE = " s1 and s2 point to d1 . he takes 5 mg , 2 x 5 mg = 10 mg . d1 is treated with x1 . so x1 (A)"


def test_a_good_trace_passes_every_check(item, graph):
    checks = found(item, WHOLE, graph=graph, judge=Judge())
    assert list(checks) == ["format", "answer", "leak", "brevity", "numbers", "units", "assumptions", "guidelines",
                            "hops", "resolved"] and all(checks.values())


FAULTS = [
    (WHOLE + " </think>", "A", "format"),
    (WHOLE, "B", "answer"),
    (WHOLE + " , as the given answer says", "A", "leak"),
    (WHOLE + " , indeed" * 20, "A", "brevity"),
    (WHOLE.replace("= 10 mg", "= 11 mg"), "A", "numbers"),
    (WHOLE + " . usually 70 g", "A", "units"),
    (WHOLE + " . he weighs 80 kg", "A", "assumptions"),
    (WHOLE + " . and double x9", "A", "guidelines"),
    (WHOLE.replace("to d1", "to d4"), "A", "hops"),
    (WHOLE.replace("x1", "x2"), "A", "hops"),
    (WHOLE.replace(" . d1 is treated with x1", ""), "A", "hops"),
]


def test_each_fault_fails_its_check_and_no_other(item, graph):
    judge = Judge()
    for reasoning, answer, name in FAULTS:
        assert failed(found(item, reasoning, answer, graph=graph, judge=judge)) == [name]
    assert judge.asked == [], "the judge resolves only traces that passed everything else"


def test_a_reasoning_for_another_option_is_not_resolved(item, graph):
    elsewhere = WHOLE.replace("d1", "d2").replace("x1", "x2")
    assert failed(found(item, elsewhere, judge=Oracle(graph))) == ["resolved"]
    assert failed(found(item, WHOLE, judge=Judge(""))) == ["resolved"]
    assert failed(found(item, WHOLE.replace(" , 2 x 5 mg = 10 mg", ""), judge=Oracle(graph))) == []


def test_checks_that_do_not_apply_are_left_out(item):
    assert set(found(item, "a rash")) == {"format", "answer", "leak", "brevity", "guidelines"}
    trace = new_trace(item, "a rash", "A", "blind", "test")
    Checks()([item], [trace])
    assert set(trace.checks) == {"format", "answer", "leak", "brevity"} and trace.verified
    prose = "His s1 and s2 are classic for d1, whose treatment is x1."
    assert "hops" not in found(item, prose, graph=clinic()), "prose without a readable hop"
    bank = Item("b", "Which?", {"A": "x1", "B": "x2"}, "A")
    assert "hops" not in found(bank, "a rash", graph=clinic())
    assert "hops" not in found(dataclasses.replace(item, provenance={"root": "unknown"}), "a rash", graph=clinic())


def test_an_empty_trace_fails_format_and_answer(item):
    assert set(failed(found(item, "", ""))) == {"format", "answer"}


def test_verdicts_do_not_depend_on_neighbours_order_or_earlier_checks(item, graph):
    texts = [WHOLE, "a rash", WHOLE + " . he weighs 80 kg", "2 + 2 = 5", WHOLE + " , a rash"]
    checks = Checks(graph, Oracle(graph), extra=EXTRA, max_chars=200)

    def run(order: list[int]) -> dict[int, dict]:
        traces = [new_trace(item, texts[i], "A", "blind", "test") for i in order]
        for trace in traces:
            trace.checks = {"stale": False}
        checks([item] * len(order), traces)
        return {i: trace.checks for i, trace in zip(order, traces)}

    together = run([0, 1, 2, 3, 4])
    assert all("stale" not in found for found in together.values())
    assert run([4, 2, 0, 3, 1]) == together
    for i in range(5):
        assert run([i]) == {i: together[i]}


def test_the_judge_sees_verified_reasonings_without_labels(item, graph):
    judge = Judge()
    traces = [new_trace(item, text, "A", "blind", "test") for text in (WHOLE, "2 + 2 = 5 (A)", "the rash says option A")]
    Checks(judge=judge, extra=EXTRA)([item] * 3, traces)
    assert judge.asked == [[without_labels(WHOLE), without_labels(traces[2].reasoning)]]
    assert "A" not in judge.asked[0][0] and "resolved" not in traces[1].checks
    judge = Judge()
    Checks(judge=judge)([], [])
    assert judge.asked == []


def test_a_judge_must_return_one_label_per_reasoning(item):
    judge = Judge()
    judge.resolve = lambda items, reasonings: []
    with pytest.raises(ValueError):
        Checks(judge=judge)([item], [new_trace(item, "a rash", "A", "blind", "test")])
    with pytest.raises(ValueError):
        Checks()([item, item], [new_trace(item, "a rash", "A", "blind", "test")])


def texts(kind: str) -> list[str]:
    rows = [line.split("\t") for line in LABELS.read_text(encoding="utf-8").splitlines()[1:]]
    return [text for name, text in rows if name == kind]


def test_labels_are_blanked_and_letters_of_names_stay():
    assert len(texts("label")) > 20 and len(texts("name")) > 20
    letter = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z])")
    assert [text for text in texts("label") if letter.search(without_labels(text))] == []
    assert [text for text in texts("name") if without_labels(text) != text] == []
    assert without_labels(" group A streptococcus (B)") == " group A streptococcus  "


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["(A)", "option A, ", "A", "A is ", "answer is ", "group ", "(",
                                  "选", " ", "**", "A, "])
def test_labels_are_blanked_in_linear_time(unit):
    text = "options A" + unit * (500_000 // len(unit))
    start = time.process_time()
    without_labels(text)
    assert time.process_time() - start < 2
