"""Tests for question.py: a question names the findings and the relations and hides the rest."""

from collections import Counter

import numpy as np

from minifleming.rods.phrases import phrase
from minifleming.rods.question import ItemBuilder, plain_question
from minifleming.rods.readers import load_graph
from minifleming.rods.walk import EVIDENCE, Step, Walk, Walker
from tests.rods.items import synthesize
from tests.rods.toy_graphs import build, clinic, neighbours

GRAPH = load_graph("embedded")
OUT, INTO = neighbours(GRAPH.triples)
ITEMS = synthesize(GRAPH, 300, [1, 2, 3, 4], seed=11)


def findings_of(item) -> list[str]:
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


def test_the_answer_has_every_label_equally_often():
    counts = Counter(item.answer for item in ITEMS)
    assert sum((counts[label] - 75) ** 2 / 75 for label in "ABCD") < 21.1  # chi-square, 3 degrees, p > 1e-4


def test_the_question_names_every_finding_and_hides_every_other_node():
    for item in ITEMS:
        rest = f" {item.question} "
        for name in sorted(findings_of(item), key=len, reverse=True):
            assert f" {name} " in rest
            rest = rest.replace(f" {name} ", "  ")
        for name in [item.masked, *item.provenance["hidden"]]:
            assert f" {name} " not in rest, (name, item.question)


def test_the_question_asks_for_each_link_of_the_chain_from_its_end():
    for item in ITEMS:
        asked, at, links = item.question.rpartition(" . ")[2], item.provenance["root"], []
        for head, relation, tail in item.path[1:]:
            links.append(phrase(relation, head == at).link)
            at = tail if head == at else head
        wanted = " of the ".join(reversed(links))
        assert asked == (f"What is the {wanted} of this disease ?" if links else "Which disease is it ?")


def test_the_path_has_one_edge_per_hop_and_ends_at_the_answer():
    for item in ITEMS:
        assert len(item.path) == item.hops and set(item.path) <= set(item.visible)
        at = item.path[0][2]
        for head, _, tail in item.path:
            at = {head: tail, tail: head}[at]
        assert item.path[0][1] in EVIDENCE and at == item.masked


def test_the_tier_grows_with_the_chain_and_the_ambiguity_of_the_findings():
    """Counted again from the triples: candidates of the most specific finding, and edges of the chain."""
    tiers, bearers = set(), Counter(triple[1:] for triple in GRAPH.triples)
    for item in ITEMS:
        evidence = [t for t in item.visible if t[1] in EVIDENCE and t[0] == item.provenance["root"]]
        candidates = min(bearers[found[1:]] for found in evidence)
        score = item.hops - 1 + (0 if candidates == 1 else 1 if candidates <= 4 else 2)
        assert item.tier == ("easy" if score <= 1 else "moderate" if score == 2 else "difficult")
        tiers.add((item.hops, item.tier))
    assert {tier for _, tier in tiers} == {"easy", "moderate", "difficult"} and (3, "moderate") in tiers


def test_the_hidden_nodes_are_the_root_and_the_nodes_before_the_answer():
    for item in ITEMS:
        nodes = {name for triple in item.visible for name in (triple[0], triple[2])}
        hidden = set(item.provenance["hidden"])
        assert hidden == nodes - set(findings_of(item)) - {item.masked}
        assert item.hops == 1 or item.provenance["root"] in hidden


def test_distractors_have_the_answers_type_and_no_edge_to_the_node_before_the_answer():
    edges = {(head, tail) for head, _, tail in GRAPH.triples}
    for item in ITEMS:
        for label, text in item.options.items():
            assert GRAPH.type_of(text) == GRAPH.type_of(item.masked)
            if label != item.answer and item.hops > 1:
                head, _, tail = item.path[-1]
                before = head if tail == item.masked else tail
                assert not {(before, text), (text, before)} & edges


def test_a_competing_diagnosis_shares_a_finding_and_lacks_one_and_its_option_is_the_end_of_its_chain():
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


def test_the_wording_of_a_question():
    back = Step("x1", "first_line_treatment", "d3", False)
    rows = [
        (toy_walk("s3"), "A patient has s3 . Which disease is it ?"),
        (toy_walk("s1 s2"), "A patient has s1 and s2 . Which disease is it ?"),
        (toy_walk("s1 s2 s3", TREATED),
         "A patient has s1 , s2 and s3 . What is the first-line treatment of this disease ?"),
        (toy_walk("s2 s3", TREATED, ACTION),
         "A patient has s2 and s3 . What is the action of the first-line treatment of this disease ?"),
        (toy_walk("s2", TREATED, back),
         "A patient has s2 . What is the disease that it treats of the first-line treatment of this disease ?"),
    ]
    assert [plain_question(walk, clinic()) for walk, _ in rows] == [text for _, text in rows]


def test_roots_that_are_no_diseases_are_called_by_their_type():
    graph = build([("k1", "has_symptom", "s1")], {"k1": "Toxin"})
    assert plain_question(toy_walk("s1", root="k1"), graph) == "A toxin has s1 . Which toxin is it ?"


def test_too_few_distractors_give_no_item():
    walker, rng = Walker(clinic()), np.random.default_rng(0)
    walk = toy_walk("s1 s2 s3", TREATED, ACTION)
    items = [ItemBuilder(walker, n).build(walk, rng) for n in (2, 3, 4, 5)]
    assert [item is None for item in items] == [False, False, False, True]


def test_the_number_of_options_is_the_requested_one():
    for options in (2, 5, 8):
        items = synthesize(GRAPH, 20, [1, 2], seed=0, options=options)
        assert {len(item.options) for item in items} == {options}
