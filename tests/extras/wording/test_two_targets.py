"""Tests for two_targets.py: options are pairs, and neither half of a pair reveals the other."""

import pytest

from minifleming.extras.wording.builder import find_pairs
from minifleming.extras.wording.variants import VariantSearch
from minifleming.rods.distractors import DistractorSearch
from minifleming.rods.query import Facts
from minifleming.rods.readers import load_graph
from minifleming.rods.walk import Step, Walker
from tests.extras.wording.test_variants import related
from tests.extras.wording.toy_walks import GRAPH, TREATED, WALKER, rng, walk_of, walks
from tests.extras.wording.worded import make_item, synthesize
from tests.rods.items import fault
from tests.rods.toy_graphs import build, clinic, neighbours

OUT, INTO = neighbours(GRAPH.triples)


@pytest.mark.parametrize("exclude_variants", [False, True])
def test_pairs_are_a_competing_diagnosis_and_the_end_of_its_chain(exclude_variants):
    """The diagnosis lacks a finding; the first missing one is the discriminating triple."""
    made, kinships, banned = 0, 0, set(GRAPH.names[::7])
    search = (VariantSearch if exclude_variants else DistractorSearch)(WALKER, lambda name: name not in banned)
    for walk in walks():
        if not walk.chain or not walk.evidence:
            continue
        shared = search.competing_diagnoses(walk)
        found = find_pairs(walk, search, rng(2))
        for (rival, end), (said, triple) in found.items():
            assert said == rival and rival in shared and end != rival and not {rival, end} & banned
            assert triple == search.missing_findings(walk, rival)[0].triple and end not in (walk.answer, walk.root)
            ends = {rival}
            for step in walk.chain:
                ends = set().union(*((OUT if step.forward else INTO)[near, step.relation] for near in ends))
            assert end in ends and GRAPH.type_of(end) == GRAPH.type_of(walk.answer)
            near = {walk.chain[-1].start}
            assert not any({end, at} == {h, t} for h, _, t in GRAPH.triples for at in near)
            kin = related(rival, walk.root) or related(end, walk.answer)
            kinships, made = kinships + kin, made + 1
        counts = [shared[rival] for rival, _ in found]
        assert counts == sorted(counts, reverse=True)
    assert made > 50 and (kinships > 0) == (not exclude_variants)


def test_a_pair_is_never_one_node_twice():
    """The chain from d2 leads back to d2 itself, and further to d5."""
    triples = [*clinic().triples, *((d, "associated_gene", g) for d, g in (
        ("d1", "g1"), ("d7", "g1"), ("d2", "g2"), ("d5", "g2"), ("d3", "g3")))]
    chain = (Step("d1", "associated_gene", "g1", True), Step("g1", "associated_gene", "d7", False))
    assert list(find_pairs(walk_of("s1 s2 s3", *chain), DistractorSearch(Walker(build(triples))), rng())) == [("d2", "d5")]


def test_each_half_of_the_answer_is_an_option_with_a_wrong_other_half():
    """Else the diagnosis alone, or the treatment alone, would give the answer."""
    for seed in range(20):
        item = make_item(walk_of("s1 s2 s3", TREATED), Walker(clinic()), 3, rng(seed), two_targets=True)
        options = [tuple(item.nodes(label)) for label in item.options]
        assert ("d1", "x1") in options and len(set(options)) == 3
        wrong = [pair for pair in options if pair != ("d1", "x1")]
        assert {pair[0] == "d1" for pair in wrong} == {pair[1] == "x1" for pair in wrong} == {True, False}
        assert fault(item, Facts(clinic())) is None


def test_one_hop_has_one_target():
    item = make_item(walk_of("s1 s2 s3"), Walker(clinic()), 3, rng(), two_targets=True)
    assert len(item.nodes(item.answer)) == 1 and item.masked == "d1"


def test_the_share_of_pairs_is_the_requested_one_and_their_questions_name_neither_node():
    graph = load_graph("embedded")
    facts = Facts(graph)
    for share, low, high in ((0.0, 0, 0), (0.3, 60, 120), (1.0, 300, 300)):
        items = synthesize(graph, 300, [2, 3], seed=0, two_targets=share)
        two = [item for item in items if len(item.nodes(item.answer)) == 2]
        assert low <= len(two) <= high and len(items) == 300
        assert [reason for item in items if (reason := fault(item, facts))] == []
        assert all(name not in item.question for item in items for name in item.nodes(item.answer))
