"""Tests for qualifiers.py: a node of the chain that is one of several has a finding that none of the others has."""

import copy
import dataclasses

import numpy as np
import pytest

from minifleming.extras.wording.qualifiers import MAX_NODES, ExtendedWalker, qualifiers_of
from minifleming.extras.wording.styles import Chinese, English
from minifleming.rods.graph import Graph
from minifleming.rods.query import Facts
from minifleming.rods.readers import load_graph
from minifleming.rods.walk import EVIDENCE, TYPICAL, Step, Walker
from tests.extras.wording.worded import make_item, synthesize
from tests.rods.items import fault
from tests.rods.toy_graphs import build, closed, genetics, neighbours, solutions

VARIED = English("varied")
GRAPHS = {"embedded": load_graph("embedded"), "genetics": genetics(0)}


def walks(graph, count: int, hops=(2, 3, 4), seed: int = 0, **options):
    walker, rng, made = ExtendedWalker(graph, qualifiers=True, **options), np.random.default_rng(seed), []
    for draw in range(20_000):
        walk = walker.walk(hops[draw % len(hops)], (1, 4), rng)
        made += [walk] if walk and qualifiers_of(walk) else []
        if len(made) == count:
            return made
    raise AssertionError(f"{len(made)} walks with pins in 20,000 draws")


WALKS = {name: walks(graph, 120) for name, graph in GRAPHS.items()}
ITEMS = {name: [item for item in synthesize(graph, 300, [2, 3], seed=1, findings=(1, 4), qualifiers=True, style=VARIED)
                if "pins" in item.provenance] for name, graph in GRAPHS.items()}


def family_tree() -> list:
    """Gene g leads to d1 (the root), d2 and d3; d2 has s5, d3 has s6, and all share s4."""
    findings = {"d1": "s1 s2 s4", "d2": "s4 s5 s1", "d3": "s4 s6 s2", "d4": "s2 s7", "d5": "s7 s8", "d6": "s8 s9"}
    triples = [(d, "has_symptom", s) for d, names in findings.items() for s in names.split()]
    triples += [(d, "associated_gene", g) for d, g in zip(findings, ("g", "g", "g", "h", "i", "j"))]
    return triples + [(d, "first_line_treatment", f"x{d[1]}") for d in findings]


def share(graph, triple) -> float:
    found = graph.frequency(*triple)
    return 1.0 if found is None else found


@pytest.mark.parametrize("name", GRAPHS)
def test_every_step_is_functional_or_has_a_typical_finding_of_that_end_only(name):
    """Against the plain triples; who has a more special finding has the general one."""
    graph = GRAPHS[name]
    findings = {tail for _, relation, tail in graph.triples if relation in EVIDENCE}
    out, into = neighbours(graph.triples)
    _, bearers = neighbours(closed(graph.triples, findings))
    for walk in WALKS[name]:
        pins = {pin.start: pin for pin in qualifiers_of(walk)}
        for step in walk.chain:
            ends = (out if step.forward else into)[step.start, step.relation]
            assert step.end in ends and (len(ends) == 1) == (step.end not in pins)
            if step.end in pins:
                pin = pins.pop(step.end)
                assert pin.triple in graph and share(graph, pin.triple) >= TYPICAL and len(ends) <= MAX_NODES
                assert ends & bearers[pin.end, pin.relation] == {step.end}
        assert not pins


@pytest.mark.parametrize("name", GRAPHS)
def test_a_qualifier_is_no_finding_of_the_evidence_and_no_node_of_the_chain(name):
    for walk in WALKS[name]:
        pins, passed = {pin.end for pin in qualifiers_of(walk)}, {walk.root, *(step.end for step in walk.chain)}
        assert not pins & {step.end for step in walk.evidence} and not pins & passed
        assert len(passed) == 1 + len(walk.chain)


def test_a_walk_whose_qualifier_is_the_target_is_not_used():
    """d2 is told from d3 by s5 alone, and m2 explains s5: at four hops s5 would be told and asked for."""
    triples = [*family_tree(), ("d2", "has_mechanism", "m2"), ("m2", "explains", "s5")]
    walker, rng = ExtendedWalker(build(triples), qualifiers=True), np.random.default_rng(0)
    ends = set()
    for _ in range(3000):
        walk = walker.walk(5, (1, 3), rng)
        if walk:
            ends.add(walk.answer)
            assert not {pin.end for pin in qualifiers_of(walk)} & {step.end for step in walk.chain}
    routes = [Walker.draw_chain(walker, "d1", 4, np.random.default_rng(seed)) for seed in range(50)]
    assert "s5" not in ends and "s5" in {route[-1].end for route in routes if route}


@pytest.mark.parametrize("ends", [MAX_NODES, MAX_NODES + 1])
def test_no_node_of_too_many_is_singled_out(ends):
    triples = [t for i in range(ends) for t in ((f"d{i}", "has_symptom", f"s{i}"), (f"d{i}", "caused_by", "g"))]
    walker = ExtendedWalker(build(triples), qualifiers=True)
    assert len(walker.branches("g")) == (ends if ends <= MAX_NODES else 0)


def test_a_branch_leads_only_to_nodes_that_have_findings():
    graph = build([*family_tree(), ("d7", "associated_gene", "g"), ("x9", "drug_mechanism", "a1"),
                   ("x8", "drug_mechanism", "a1")])
    walker = ExtendedWalker(graph, qualifiers=True)
    assert {step.end for step in walker.branches("g")} == {"d1", "d2", "d3"} and walker.branches("a1") == []
    assert walker.branches("x1") == [], "one neighbour is no branch"


def test_there_is_no_qualifier_if_every_finding_is_shared_or_very_rare():
    triples = [("d1", "caused_by", "g"), ("d2", "caused_by", "g"), ("d1", "has_symptom", "s1"),
               ("d1", "has_symptom", "s2"), ("d2", "has_symptom", "s1")]
    rng, step = np.random.default_rng(0), Step("g", "caused_by", "d1", False)
    for often, found in ((0.01, None), (0.5, Step("d1", "has_symptom", "s2", True))):
        shares = [float("nan")] * 3 + [often] + [float("nan")]
        graph = Graph(dict.fromkeys(("d1", "d2"), "Disease") | dict.fromkeys(("g", "s1", "s2"), "Thing"), triples,
                      frequency=shares)
        assert ExtendedWalker(graph, qualifiers=True).draw_qualifier(step, rng) == found
    assert ExtendedWalker(build(triples), qualifiers=True).draw_qualifier(Step("g", "caused_by", "d2", False), rng) is None


def test_without_qualifiers_the_walks_are_those_of_the_core():
    graph = GRAPHS["embedded"]
    for seed in range(40):
        plain, off = (walker.walk(3, (2, 4), np.random.default_rng(seed)) for walker in (
            Walker(graph), ExtendedWalker(graph)))
        assert plain == off and (plain is None or not qualifiers_of(plain))


@pytest.mark.parametrize("name", GRAPHS)
def test_each_qualifier_follows_its_noun_in_the_question(name):
    assert len(ITEMS[name]) > 10
    for item in ITEMS[name]:
        for triple in item.provenance["pins"]:
            assert triple in item.visible and triple in GRAPHS[name] and triple not in item.evidence
            mark = f"(the one with {triple[2]})"
            assert item.question.count(mark) == 1
            assert f"this disease {mark}" not in item.question, "the patient's disease is not the one that is meant"
        assert item.question.count("(the one with ") == len(item.provenance["pins"])


@pytest.mark.parametrize("name", GRAPHS)
def test_without_a_qualifier_the_checker_counts_the_answers(name):
    graph, facts, wider = GRAPHS[name], Facts(GRAPHS[name]), 0
    for item in ITEMS[name]:
        assert fault(item, facts) is None
        for pin in item.provenance["pins"]:
            weak = copy.deepcopy(item)
            weak.visible = [triple for triple in item.visible if triple != pin]
            variables = {item.masked, *item.provenance["hidden"]}
            told = {tail for _, _, tail in weak.visible} - variables
            answers = solutions(weak.visible, variables, item.masked, closed(graph.triples, told))
            said = fault(weak, facts)
            assert (said == f"{len(answers)} nodes satisfy the visible part") == (len(answers) > 1), said
            wider += len(answers) > 1
    assert wider > 5


def test_a_qualifier_that_the_question_does_not_name_is_a_fault():
    for item in ITEMS["genetics"]:
        pin = item.provenance["pins"][0]
        silent = dataclasses.replace(item, question=item.question.replace(f"(the one with {pin[2]}) ", ""))
        assert fault(silent, Facts(GRAPHS["genetics"])) == f"the question does not name '{pin[2]}'"


def test_the_evidence_of_an_item_is_about_the_root():
    for name in GRAPHS:
        for item in ITEMS[name]:
            assert item.evidence and {head for head, _, _ in item.evidence} == {item.provenance["root"]}
            assert len(item.evidence) + len(item.path) - 1 + len(item.provenance["pins"]) == len(item.visible)


def test_neither_the_plain_style_nor_chinese_can_word_a_qualifier():
    graph = GRAPHS["genetics"]
    walker = ExtendedWalker(graph, qualifiers=True)
    for walk in WALKS["genetics"][:20]:
        assert make_item(walk, walker, 2, np.random.default_rng(0)) is None
        zh = Chinese("varied", {name: f"名{i}" for i, name in enumerate(graph.names)})
        assert make_item(walk, walker, 2, np.random.default_rng(0), style=zh) is None
        made = make_item(walk, walker, 2, np.random.default_rng(0), style=VARIED)
        assert made is None or made.provenance["pins"] == [pin.triple for pin in qualifiers_of(walk)]
    for wording in (English(), Chinese("vignette", {name: f"名{i}" for i, name in enumerate(graph.names)})):
        items = synthesize(graph, 20, [2], seed=0, findings=(1, 4), qualifiers=True, style=wording)
        assert all(fault(item, Facts(graph)) is None and "pins" not in item.provenance for item in items)


def test_two_steps_of_a_chain_may_need_qualifiers():
    """d1 - g - d2 - h - d3: both genes have several diseases, so both steps need a qualifier."""
    findings = {"d1": "s1 s2 s4", "d2": "s3 s1", "d3": "s4 s1", "d4": "s5 s1", "d5": "s6 s1"}
    triples = [(d, "has_symptom", s) for d, names in findings.items() for s in names.split()]
    triples += [("d1", "caused_by", "g"), ("d2", "caused_by", "g"), ("d4", "caused_by", "g"),
                ("d2", "associated_gene", "h"), ("d3", "associated_gene", "h"), ("d5", "associated_gene", "h")]
    walker, most = ExtendedWalker(build(triples), qualifiers=True), 0
    rng = np.random.default_rng(0)
    drawn = [walker.walk(5, (1, 2), rng) for _ in range(600)]
    for walk in filter(None, drawn):
        several = [step for step in walk.chain if step not in walker.next_steps(step.start)]
        assert [pin.start for pin in qualifiers_of(walk)] == [step.end for step in several]
        assert not {pin.end for pin in qualifiers_of(walk)} & {step.end for step in walk.evidence}
        most = max(most, len(qualifiers_of(walk)))
    assert most == 2
