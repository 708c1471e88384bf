"""Laws of cold_start/checks.py: each check has a fault that it alone finds, and no trace depends on its neighbours."""

from __future__ import annotations

import dataclasses
import re
import time

import pytest

from minifleming.cold_start.checks import Checks, without_labels
from minifleming.cold_start.oracle import Oracle
from minifleming.cold_start.trace import new_trace
from minifleming.extras.numbers.guidelines import Snippet, check_guidelines
from minifleming.extras.numbers.units import check_numbers
from minifleming.rods.item import Item
from tests.rods.toy_graphs import clinic

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
    """Notes what it is asked, and answers the same to all."""

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


@pytest.mark.parametrize("reasoning, answer, name", [
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
])
def test_each_fault_fails_its_check_and_no_other(item, graph, reasoning, answer, name):
    judge = Judge()
    assert failed(found(item, reasoning, answer, graph=graph, judge=judge)) == [name]
    assert judge.asked == [], "asked only for those that pass"


def test_a_reasoning_that_leads_elsewhere_is_not_resolved(item, graph):
    elsewhere = WHOLE.replace("d1", "d2").replace("x1", "x2")
    assert failed(found(item, elsewhere, judge=Oracle(graph))) == ["resolved"]
    assert failed(found(item, WHOLE, judge=Judge(""))) == ["resolved"]
    assert failed(found(item, WHOLE.replace(" , 2 x 5 mg = 10 mg", ""), judge=Oracle(graph))) == []


def test_what_does_not_apply_is_left_out(item):
    assert set(found(item, "a rash")) == {"format", "answer", "leak", "brevity", "guidelines"}
    trace = new_trace(item, "a rash", "A", "blind", "test")
    Checks()([item], [trace])
    assert set(trace.checks) == {"format", "answer", "leak", "brevity"} and trace.verified
    prose = "His s1 and s2 are classic for d1, whose treatment is x1."
    assert "hops" not in found(item, prose, graph=clinic()), "a served model does not write in the graph's phrases"
    bank = Item("b", "Which?", {"A": "x1", "B": "x2"}, "A")
    assert "hops" not in found(bank, "a rash", graph=clinic())
    assert "hops" not in found(dataclasses.replace(item, provenance={"root": "unknown"}), "a rash", graph=clinic())


def test_a_trace_without_answer_is_no_error(item):
    assert set(failed(found(item, "", ""))) == {"format", "answer"}


def test_checks_do_not_depend_on_neighbours_or_order_or_earlier_checks(item, graph):
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


def test_the_judge_sees_no_label_and_nothing_of_the_rest(item, graph):
    judge = Judge()
    traces = [new_trace(item, text, "A", "blind", "test") for text in (WHOLE, "2 + 2 = 5 (A)", "the rash says option A")]
    Checks(judge=judge, extra=EXTRA)([item] * 3, traces)
    assert judge.asked == [[without_labels(WHOLE), without_labels(traces[2].reasoning)]]
    assert "A" not in judge.asked[0][0] and "resolved" not in traces[1].checks
    judge = Judge()
    Checks(judge=judge)([], [])
    assert judge.asked == []


def test_as_many_verdicts_as_questions_or_an_error(item):
    judge = Judge()
    judge.resolve = lambda items, reasonings: []
    with pytest.raises(ValueError):
        Checks(judge=judge)([item], [new_trace(item, "a rash", "A", "blind", "test")])
    with pytest.raises(ValueError):
        Checks()([item, item], [new_trace(item, "a rash", "A", "blind", "test")])


@pytest.mark.parametrize("text", """so colchicine (B)|colchicine [B] fits|option B fits|Option (B)|choice B
choices B and C|options A, B and C are out|options A, B, or C
answer: B|Answer: (B).|The answer is B.|the answer must be B
B is correct|B is the best choice|B is wrong|so we choose B|select (B)|**B** fits
B. colchicine|B) colchicine
选项B|选项 B|选B|答案是B
答案：B|答案为（B）|B选项|B项|B正确
应选B。""".replace("\n", "|").split("|"))
def test_a_label_is_struck_out(text):
    assert not re.search(r"(?<![A-Za-z])[A-Z](?![A-Za-z])", without_labels(text))


@pytest.mark.parametrize("text", """vitamin B|vitamin B12|hepatitis B|Hepatitis B is wrong|type A|blood group A
group (A)|Factor V Leiden|factor V is right|group B streptococcus|influenza A|haemophilia A|B cells|B-cell lymphoma
HLA-B27|choose B cell depletion|the answer is B12|answer: Bell palsy|A fever|A patient is right-handed|stage (B)
B symptoms|Select B-type natriuretic peptide|维生素B|乙型肝炎|the DNA (DNA)|(AB)
options are few""".replace("\n", "|").split("|"))
def test_a_letter_of_a_name_stays(text):
    assert without_labels(text) == text


def test_only_the_label_of_two_letters_goes():
    assert without_labels(" group A streptococcus (B)") == " group A streptococcus  "


@pytest.mark.parametrize("unit", ["(A)", "option A, ", "A", "A is ", "answer is ", "group ", "(", "选",
                                  " ", "**", "A, "])
def test_a_megabyte_is_blinded_in_linear_time(unit):
    text = "options A" + unit * (500_000 // len(unit))
    start = time.process_time()
    without_labels(text)
    assert time.process_time() - start < 2
