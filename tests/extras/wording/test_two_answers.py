"""Graphs in which a question could have two right answers: none is made of them, and the checker accepts none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from minifleming.extras.wording.patient import draw_absent
from minifleming.extras.wording.styles import English
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.rods.query import Facts
from minifleming.rods.walk import Step, Walk, Walker
from tests.extras.wording.worded import synthesize
from tests.rods.items import fault
from tests.rods.toy_graphs import build

FOUND = [("d1", "has_symptom", "s1"), ("d1", "has_symptom", "s2"), ("d2", "has_symptom", "s1"),
         ("d3", "has_symptom", "s2"), ("d4", "has_symptom", "s1"), ("d2", "has_symptom", "s3")]
CAUSES = [*FOUND, ("d1", "caused_by", "c1"), ("d1", "has_cause", "c2"), ("d2", "caused_by", "c3"),
          ("d3", "caused_by", "c4"), *((f"c{n}", "encodes", f"q{n}") for n in range(1, 5))]
RESEMBLING = [*FOUND, ("d1", "resembles", "d5"), ("d3", "resembles", "d1"), ("d4", "resembles", "d6"),
              *((f"x{n}", "treats", f"d{n}") for n in (3, 4, 5, 6))]


def made(graph: Graph, style: str, hops: int) -> list[Item]:
    return synthesize(graph, 30, [hops], seed=0, options=2, findings=(1, 2), style=English(style))


@pytest.mark.parametrize("style", ["plain", "varied"])
@pytest.mark.parametrize(("triples", "ambiguous"), [(CAUSES, {"c1", "c2"}), (RESEMBLING, {"d5", "d3"})])
def test_what_is_told_alike_counts_as_one_relation(triples, ambiguous, style):
    """"The cause of this disease" are both causes; "the disease that resembles it" is either direction."""
    graph = build(triples)
    assert not [step for step in Walker(graph).next_steps("d1") if step.end in ambiguous]
    items = [item for hops in (2, 3) for item in made(graph, style, hops)]
    assert all(fault(item, Facts(graph)) is None for item in items)
    assert not [item for item in items if item.provenance["root"] == "d1"]
    certain = build([t for t in triples if t[1] not in ("has_cause", "resembles") or t[0] == "d4"])
    assert len(Walker(graph).next_steps("d4")) == len(Walker(certain).next_steps("d4"))


@pytest.mark.parametrize("forward", [True, False])
def test_the_checker_joins_over_what_is_told_alike(forward):
    """Asked for what the resembling disease is treated with, while two resemble it, in either direction."""
    graph = build(RESEMBLING)
    edge = ("d1", "resembles", "d5") if forward else ("d3", "resembles", "d1")
    last = ("x5", "treats", "d5") if forward else ("x3", "treats", "d3")
    middle = edge[2] if forward else edge[0]
    wrong = "x4"
    item = Item("x", "A patient has s1 and s2 . What is the drug given for it of the disease that resembles it of this "
                "disease ?", {"A": last[0], "B": wrong}, "A", path=[FOUND[0], edge, last],
                visible=[*FOUND[:2], edge, last], masked=last[0], discriminating={"B": last},
                provenance={"root": "d1", "hidden": ["d1", middle]})
    assert fault(item, Facts(graph)) == "2 nodes satisfy the visible part"
    alone = build([t for t in RESEMBLING if t[1] != "resembles" or t == edge])
    assert fault(item, Facts(alone)) is None


def one_hop(graph: Graph, question: str) -> str | None:
    item = Item("x", question, {"A": "d1", "B": "d2"}, "A", path=[("d1", "has_symptom", "s1")],
                visible=[("d1", "has_symptom", "s1"), ("d1", "has_symptom", "s2")], masked="d1",
                discriminating={"B": ("d1", "has_symptom", "s2")}, provenance={"root": "d1", "hidden": []})
    return fault(item, Facts(graph))


def test_a_kind_of_the_answer_is_no_wrong_option():
    graph = [("d1", "has_symptom", "s1"), ("d1", "has_symptom", "s2"), ("d2", "has_symptom", "s1")]
    assert one_hop(build(graph), "A patient has s1 and s2 . Which disease is it ?") is None
    for extra in (("d2", "is_a", "d1"), ("d1", "is_a", "d2")):
        assert one_hop(build([*graph, extra]), "A patient has s1 and s2 . Which disease is it ?") == (
            "option B is an ancestor or descendant of the answer")


def test_the_question_must_ask_what_the_path_answers():
    """Asked for a contraindicated drug, the path leads to the treatment."""
    graph = build([*FOUND, ("d1", "first_line_treatment", "x1"), ("x2", "contraindicated_in", "d1")])
    item = Item("y", "A patient has s1 and s2 . What is the first-line treatment of this disease ?",
                {"A": "x1", "B": "x2"}, "A", path=[FOUND[0], ("d1", "first_line_treatment", "x1")],
                visible=[*FOUND[:2], ("d1", "first_line_treatment", "x1")], masked="x1",
                discriminating={"B": ("d1", "first_line_treatment", "x1")},
                provenance={"root": "d1", "hidden": ["d1"]})
    assert fault(item, Facts(graph)) is None
    for asked in ("Which drug is contraindicated in this disease ?", "What is the disease that it treats ?"):
        other = dataclasses.replace(item, question=f"A patient has s1 and s2 . {asked}")
        assert fault(other, Facts(graph)) == "the question does not use the relation 'first_line_treatment'"


def test_who_has_a_chronic_cough_has_a_cough():
    """By name, where the graph does not say it: no rival lacks it, and it is not told as absent."""
    names = ["cough", "chronic cough", "fever", "rash", "chills"]
    triples = [("d1", "has_symptom", "cough"), ("d1", "has_symptom", "fever"), ("d2", "has_symptom", "chronic cough"),
               ("d2", "has_symptom", "fever"), ("d3", "has_symptom", "fever"), ("d3", "has_symptom", "rash"),
               ("d4", "has_symptom", "chills"), ("d4", "has_symptom", "cough"), ("d2", "has_symptom", "rash")]
    graph = build(triples, dict.fromkeys(names, "Symptom"))
    for apart in (False, True):
        items = synthesize(graph, 60, [1], seed=1, options=2, findings=(1, 2), exclude_variants=apart, style=English("vignette"))
        assert all(fault(item, Facts(graph)) is None for item in items)
        lacking = {(item.nodes(label)[0], triple[2]) for item in items for label, triple in item.discriminating.items()}
        assert (("d2", "cough") in lacking) == (not apart)
    walk = Walk("d2", (Step("d2", "has_symptom", "fever", True),), ())
    for rivals, absent in ((["d1"], []), (["d4"], ["chills"])):
        found = draw_absent(walk, Walker(graph), rivals, np.random.default_rng(0), lambda name: True)
        assert [step.end for step in found] == absent
