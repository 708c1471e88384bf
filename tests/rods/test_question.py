"""Items: the question tells the findings and the relations and hides the rest; distractors are fit and wrong."""

from collections import Counter

import numpy as np
import pytest

from minifleming.extras.wording.wording import plain
from minifleming.rods.distractors import connected, distractors
from minifleming.rods.phrases import phrase
from minifleming.rods.question import make_item
from minifleming.rods.readers import load_graph
from minifleming.rods.synthesize import synthesise
from minifleming.rods.walk import EVIDENCE, Step, Walk, Walker
from tests.rods.toy_graphs import build, clinic, neighbours

GRAPH = load_graph("embedded")
OUT, INTO = neighbours(GRAPH.triples)
ITEMS = synthesise(GRAPH, 300, [1, 2, 3, 4], seed=11)


def told(item) -> list[str]:
    return [tail for head, relation, tail in item.visible if relation in EVIDENCE]


def toy_walk(findings: str, *chain: Step, root: str = "d1") -> Walk:
    return Walk(root, tuple(Step(root, "has_symptom", s, True) for s in findings.split()), chain)


TREATED = Step("d1", "first_line_treatment", "x1", True)
ACTION = Step("x1", "drug_mechanism", "a1", True)


def test_every_item_has_four_different_options_and_one_answer():
    for item in ITEMS:
        assert list(item.options) == list("ABCD") and len(set(item.options.values())) == 4
        assert item.options[item.answer] == item.masked
        assert set(item.discriminating) == set("ABCD") - {item.answer}


def test_the_answer_stands_at_every_label_equally_often():
    counts = Counter(item.answer for item in ITEMS)
    assert sum((counts[label] - 75) ** 2 / 75 for label in "ABCD") < 21.1  # chi-square, 3 degrees, p > 1e-4


def test_the_question_tells_every_finding_and_hides_every_other_name():
    for item in ITEMS:
        rest = f" {item.question} "
        for name in sorted(told(item), key=len, reverse=True):
            assert f" {name} " in rest
            rest = rest.replace(f" {name} ", "  ")
        for name in [item.masked, *item.provenance["hidden"]]:
            assert f" {name} " not in rest, (name, item.question)


def test_the_question_asks_for_each_link_of_the_chain_from_its_end():
    for item in ITEMS:
        asked, at, links = item.question.rpartition(" . ")[2], item.provenance["root"], []
        for head, relation, tail in item.path[1:]:
            links.append(phrase(relation).link if head == at else phrase(relation).link_back)
            at = tail if head == at else head
        wanted = " of the ".join(reversed(links))
        assert asked == (f"What is the {wanted} of this disease ?" if links else "Which disease is it ?")


def test_the_path_has_one_edge_a_hop_and_ends_at_the_answer():
    for item in ITEMS:
        assert len(item.path) == item.hops and set(item.path) <= set(item.visible)
        at = item.path[0][2]
        for head, _, tail in item.path:
            at = {head: tail, tail: head}[at]
        assert item.path[0][1] in EVIDENCE and at == item.masked


def test_the_tier_grows_with_the_chain_and_with_the_candidates_that_the_findings_leave():
    """Counted again from the triples: candidates of the most telling finding, and edges of the chain."""
    tiers = set()
    for item in ITEMS:
        evidence = [t for t in item.visible if t[1] in EVIDENCE and t[0] == item.provenance["root"]]
        candidates = min(sum(edge[1:] == found[1:] for edge in GRAPH.triples) for found in evidence)
        score = item.hops - 1 + (0 if candidates == 1 else 1 if candidates <= 4 else 2)
        assert item.tier == ("easy" if score <= 1 else "moderate" if score == 2 else "difficult")
        tiers.add((item.hops, item.tier))
    assert {tier for _, tier in tiers} == {"easy", "moderate", "difficult"} and (3, "moderate") in tiers


def test_the_hidden_names_are_the_root_and_what_lies_between():
    for item in ITEMS:
        nodes = {name for triple in item.visible for name in (triple[0], triple[2])}
        hidden = set(item.provenance["hidden"])
        assert hidden == nodes - set(told(item)) - {item.masked}
        assert item.hops == 1 or item.provenance["root"] in hidden


def test_distractors_have_the_answers_type_and_none_is_next_to_the_node_before_the_answer():
    edges = {(head, tail) for head, _, tail in GRAPH.triples}
    for item in ITEMS:
        for label, text in item.options.items():
            assert GRAPH.type_of(text) == GRAPH.type_of(item.masked)
            if label != item.answer and item.hops > 1:
                head, _, tail = item.path[-1]
                before = head if tail == item.masked else tail
                assert not {(before, text), (text, before)} & edges


def test_a_rival_shares_a_finding_with_the_root_and_lacks_one_and_its_option_is_what_its_own_chain_leads_to():
    for item in ITEMS:
        evidence = [(relation, tail) for _, relation, tail in item.visible if relation in EVIDENCE]
        for label, rival in item.provenance["rivals"].items():
            if not rival:
                continue
            has = [tail in OUT[rival, relation] for relation, tail in evidence]
            assert any(has) and not all(has)
            ends, at = {rival}, item.provenance["root"]
            for head, relation, tail in item.path[1:]:
                table, far = (OUT, tail) if head == at else (INTO, head)
                ends, at = set().union(*(table[node, relation] for node in ends)), far
            assert item.options[label] in ends


def test_each_discriminating_triple_is_visible_holds_for_the_answer_and_fails_for_its_option():
    for item in ITEMS:
        for label, triple in item.discriminating.items():
            swapped = tuple(item.options[label] if name == item.masked else name for name in triple)
            assert triple in item.visible and triple in GRAPH
            assert swapped != triple and swapped not in GRAPH


@pytest.mark.parametrize("walk, text", [
    (toy_walk("s3"), "A patient has s3 . Which disease is it ?"),
    (toy_walk("s1 s2"), "A patient has s1 and s2 . Which disease is it ?"),
    (toy_walk("s1 s2 s3", TREATED),
     "A patient has s1 , s2 and s3 . What is the first-line treatment of this disease ?"),
    (toy_walk("s2 s3", TREATED, ACTION),
     "A patient has s2 and s3 . What is the action of the first-line treatment of this disease ?"),
    (toy_walk("s2", TREATED, Step("x1", "first_line_treatment", "d3", False)),
     "A patient has s2 . What is the disease that it treats of the first-line treatment of this disease ?"),
])
def test_the_wording_of_a_question(walk, text):
    assert plain(walk, clinic()) == text


def test_roots_that_are_no_diseases_are_called_what_they_are():
    graph = build([("k1", "has_symptom", "s1")], {"k1": "Toxin"})
    assert plain(toy_walk("s1", root="k1"), graph) == "A toxin has s1 . Which toxin is it ?"


def test_rivals_that_share_more_findings_come_first():
    """d1 is told by s1, s2, s3: d2 and d3 share two of them, as d4 does; d5 shares one and comes last."""
    graph = build([*clinic().triples, ("d5", "has_symptom", "s1"), ("d5", "first_line_treatment", "x5")])
    for seed in range(20):
        found = distractors(toy_walk("s1 s2 s3", TREATED), Walker(graph), 3, np.random.default_rng(seed))
        assert list(found)[-1] == "x5" and set(list(found)[:3]) == {"x2", "x3", "x4"}
        assert {name: rival for name, (rival, _) in found.items()} == {f"x{n}": f"d{n}" for n in "2345"}


def test_other_nodes_of_the_relation_fill_up_when_rivals_are_too_few():
    """d9 shares nothing with d1: its drug stands in, with no rival."""
    graph = build([("d1", "has_symptom", "s1"), ("d1", "first_line_treatment", "x1"),
                   ("d9", "has_symptom", "s9"), ("d9", "first_line_treatment", "x9")])
    found = distractors(toy_walk("s1", TREATED), Walker(graph), 1, np.random.default_rng(0))
    assert found == {"x9": ("", TREATED.triple)}


@pytest.mark.parametrize("edge", [("d1", "other_treatment", "x2"), ("x2", "forbids", "d1")])
def test_a_candidate_with_any_edge_to_the_node_before_the_answer_may_be_right_and_is_left_out(edge):
    walk, rng = toy_walk("s1 s2 s3", TREATED), np.random.default_rng(0)
    assert "x2" in distractors(walk, Walker(clinic()), 3, rng)
    assert "x2" not in distractors(walk, Walker(build([*clinic().triples, edge])), 3, rng)


def test_no_item_comes_of_too_few_distractors():
    walker, rng = Walker(clinic()), np.random.default_rng(0)
    walk = toy_walk("s1 s2 s3", TREATED, ACTION)
    assert [make_item(walk, walker, n, rng, "t") is None for n in (2, 3, 4, 5)] == [False, False, False, True]


@pytest.mark.parametrize("options", [2, 5, 8])
def test_the_number_of_options_is_what_was_asked_for(options):
    assert {len(item.options) for item in synthesise(GRAPH, 20, [1, 2], seed=0, options=options)} == {options}


def test_connected_sees_both_directions_and_every_relation():
    graph = build([("d1", "has_symptom", "s1"), ("s2", "odd", "d1"), ("d2", "has_symptom", "s3")])
    assert all(connected(graph, *pair) for pair in [("d1", "s1"), ("s1", "d1"), ("d1", "s2"), ("s2", "d1")])
    assert not any(connected(graph, *pair) for pair in [("d1", "s3"), ("s1", "s2"), ("d1", "d2")])
