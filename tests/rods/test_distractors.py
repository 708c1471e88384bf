"""Tests for distractors.py: wrong options under is_a and deficits, against set logic over the triples."""

from functools import cache

import numpy as np

from minifleming.rods.distractors import DistractorSearch
from minifleming.rods.question import ItemBuilder
from minifleming.rods.walk import EVIDENCE, Step, Walk, Walker
from tests.rods.items import synthesize
from tests.rods.toy_graphs import build, clinic, closed, genetics, neighbours

GRAPH = genetics(0)
WALKER = Walker(GRAPH)
SEARCH = DistractorSearch(WALKER)
OUT, INTO = neighbours(GRAPH.triples)
ALL = closed(GRAPH.triples, set(GRAPH.names))  # with everything that follows by is_a
HAS, BEARERS = neighbours(ALL)
TREATED = Step("d1", "first_line_treatment", "x1", True)


def rng(seed=0):
    return np.random.default_rng(seed)


def walk_of(findings: str, *chain, root="d1") -> Walk:
    return Walk(root, tuple(Step(root, "has_symptom", s, True) for s in findings.split()), chain)


def find(walk, graph, count, seed=0, deficit=None, **more):
    return DistractorSearch(Walker(graph), **more).find(walk, count, rng(seed), deficit or {})


@cache
def walks():
    source = rng(3)
    drawn = [WALKER.walk(1 + draw % 2, (1, 4), source) for draw in range(200)]
    return [walk for walk in drawn if walk][:60]


def above(name: str) -> set[str]:
    found = {name}
    while more := {t for at in found for t in OUT[at, "is_a"]} - found:
        found |= more
    return found


def related(a: str, b: str) -> bool:
    return a in above(b) or b in above(a)


def test_nodes_with_a_finding_have_it_or_a_more_specific_one():
    wider = 0
    for relation in WALKER.evidence_relations:
        for finding in GRAPH.names:
            nodes = WALKER.nodes_with_finding(Step("", relation, finding, True))
            found = {GRAPH.names[node] for node in nodes}
            assert found == BEARERS[finding, relation]
            wider += found > INTO[finding, relation]
    assert wider > 5


def test_the_evidence_determines_its_root_under_is_a_and_has_no_very_rare_finding():
    for walk in walks():
        assert set.intersection(*(BEARERS[s.end, s.relation] for s in walk.evidence)) == {walk.root}
        shares = [GRAPH.frequency(*step.triple) for step in walk.evidence]
        assert all(share is None or share >= 0.05 for share in shares)
    assert {None, 0.1} & {GRAPH.frequency(*s.triple) for walk in walks() for s in walk.evidence}


def test_competing_diagnoses_share_some_and_not_all_findings_under_is_a():
    roots = {h for h, r, _ in GRAPH.triples if r in EVIDENCE}
    for walk in walks():
        wanted = {}
        for name in roots:
            shared = [step for step in walk.evidence if name in BEARERS[step.end, step.relation]]
            if 0 < len(shared) < len(walk.evidence) and GRAPH.type_of(name) == GRAPH.type_of(walk.root):
                wanted[name] = len(shared)
        assert SEARCH.competing_diagnoses(walk) == wanted
        for name in wanted:
            assert SEARCH.missing_findings(walk, name) == [
                step for step in walk.evidence if name not in BEARERS[step.end, step.relation]]


def test_a_competing_diagnosis_has_the_roots_type_and_is_among_the_chosen_roots():
    triples = [*clinic().triples, ("k1", "has_symptom", "s1"), ("k1", "first_line_treatment", "x9")]
    search = DistractorSearch(Walker(build(triples, {"k1": "Toxin"})))
    assert set(search.competing_diagnoses(walk_of("s1 s2 s3", TREATED))) == {"d2", "d3", "d4"}
    few = Walker(clinic(), num_diseases=2)
    found = DistractorSearch(few).competing_diagnoses(walk_of("s1 s2 s3"))
    assert set(found) <= {few.graph.names[n] for n in few.roots}


def test_distractors_have_the_answers_type_and_no_edge_to_the_node_before_it():
    banned = set(GRAPH.names[::5])
    search = DistractorSearch(WALKER, lambda name: name not in banned)
    for walk in walks():
        for name, (diagnosis, triple) in search.find(walk, 4, rng(1), {}).items():
            assert name not in (walk.answer, walk.root) and name not in banned
            assert GRAPH.type_of(name) == GRAPH.type_of(walk.answer) and not related(name, walk.answer)
            if walk.chain:
                last = walk.chain[-1]
                assert triple == last.triple
                specific = {last.start} | {h for h, r, t in ALL if r == "is_a" and t == last.start}
                assert not any({name, other} == {h, t} for h, _, t in GRAPH.triples for other in specific)
            else:
                assert triple == search.missing_findings(walk, name)[0].triple and diagnosis == name


def test_the_largest_deficit_comes_first_among_diagnoses_and_among_other_nodes():
    walk = walk_of("s1 s2 s3", TREATED)
    for deficit in ({"x4": 2, "x2": 1}, {"x2": 3, "x3": 2, "x4": 1}, {"x3": 1, "x2": -1, "x4": -2}):
        for seed in range(10):
            names = list(find(walk, clinic(), 3, seed, deficit))
            values = [deficit.get(name, 0) for name in names]
            assert values == sorted(values, reverse=True)
    triples = [("d1", "has_symptom", "s1"), *((f"d{n}", "has_symptom", f"s{n}") for n in range(2, 9))]
    lonely = build([*triples, *((f"d{n}", "first_line_treatment", f"x{n}") for n in range(1, 9))])
    for seed in range(10):
        found = find(walk_of("s1", TREATED), lonely, 3, seed, {"x5": 9, "x7": 8})
        assert list(found)[:2] == ["x5", "x7"] and len(found) == 3
        assert {diagnosis for diagnosis, _ in found.values()} == {""}


def test_diagnoses_that_share_more_findings_come_first():
    """The evidence is s1, s2, s3: d2, d3 and d4 share two of them; d5 shares one and comes last."""
    graph = build([*clinic().triples, ("d5", "has_symptom", "s1"), ("d5", "first_line_treatment", "x5")])
    for seed in range(20):
        found = find(walk_of("s1 s2 s3", TREATED), graph, 3, seed)
        assert list(found)[-1] == "x5" and set(list(found)[:3]) == {"x2", "x3", "x4"}
        assert {name: diagnosis for name, (diagnosis, _) in found.items()} == {f"x{n}": f"d{n}" for n in "2345"}


def test_other_nodes_of_the_relation_fill_up():
    """d9 shares nothing with d1: its drug is used, with no diagnosis."""
    graph = build([("d1", "has_symptom", "s1"), ("d1", "first_line_treatment", "x1"),
                   ("d9", "has_symptom", "s9"), ("d9", "first_line_treatment", "x9")])
    assert find(walk_of("s1", TREATED), graph, 1) == {"x9": ("", TREATED.triple)}


def test_a_candidate_with_any_edge_to_the_node_before_the_answer_is_not_used():
    walk = walk_of("s1 s2 s3", TREATED)
    assert "x2" in find(walk, clinic(), 3)
    for edge in (("d1", "other_treatment", "x2"), ("x2", "forbids", "d1")):
        assert "x2" not in find(walk, build([*clinic().triples, edge]), 3)


def test_a_node_with_a_descendant_of_the_node_before_the_answer_is_not_used():
    """d9 is inherited by k, which is a j: it has j as well, and may not be an option next to d2."""
    findings = [("d1", "has_symptom", s) for s in ("s1", "s2")] + [("d8", "has_symptom", "s1")]
    modes = [("d1", "has_inheritance", "j"), ("d2", "has_inheritance", "j"), ("d9", "has_inheritance", "k"),
             ("d8", "has_inheritance", "m"), ("d7", "has_inheritance", "m")]
    walk = walk_of("s1 s2", Step("d1", "has_inheritance", "j", True), Step("j", "has_inheritance", "d2", False))
    for more, allowed in (([], True), ([("k", "is_a", "j")], False)):
        graph = build([*findings, *modes, *more], {"j": "Mode", "k": "Mode"})
        search = DistractorSearch(Walker(graph))
        assert (search.discriminating_triple(walk, "d9") is not None) == allowed
        assert search.discriminating_triple(walk, "d7") is not None


def test_a_shared_end_belongs_to_the_diagnosis_that_shares_most():
    """d2 shares two findings, d5 one, and both lead to x2."""
    graph = build([*clinic().triples, ("d5", "has_symptom", "s1"), ("d5", "first_line_treatment", "x2")])
    for seed in range(20):
        for count in (3, 9):
            assert find(walk_of("s1 s2 s3", TREATED), graph, count, seed)["x2"].diagnosis == "d2"


def test_a_diagnosis_reaches_its_end_through_steps_in_either_direction():
    """d1 - gene - disease by a backward step; d2 reaches d5 in the same way."""
    triples = [*clinic().triples, *((d, "associated_gene", g) for d, g in (
        ("d1", "g1"), ("d7", "g1"), ("d2", "g2"), ("d5", "g2")))]
    chain = (Step("d1", "associated_gene", "g1", True), Step("g1", "associated_gene", "d7", False))
    found = find(walk_of("s1 s2 s3", *chain), build(triples), 2, is_usable=lambda name: name != "d2")
    assert found["d5"].diagnosis == "d2" and "d1" not in found, "the root is no wrong answer"


def test_neither_the_root_nor_the_node_before_the_answer_is_used():
    """Both are at the answer's end of its relation, and no edge of their own rules them out."""
    triples = [*clinic().triples, ("x5", "drug_mechanism", "a1"), ("d5", "first_line_treatment", "x5")]
    chain = (TREATED, Step("x1", "drug_mechanism", "a1", True), Step("a1", "drug_mechanism", "x5", False),
             Step("x5", "first_line_treatment", "d5", False))
    assert set(find(walk_of("s1 s2 s3", *chain), build(triples), 9)) == {"d2", "d3", "d4"}
    genes = [("d1", "associated_gene", "g1"), ("g1", "binds", "g2"), ("g3", "binds", "g1"), ("g4", "binds", "g5")]
    walk = walk_of("s1 s2 s3", Step("d1", "associated_gene", "g1", True), Step("g1", "binds", "g2", True))
    assert set(find(walk, build([*clinic().triples, *genes]), 9)) == {"g5"}


def test_an_item_takes_the_best_distractors_and_records_what_each_diagnosis_lacks():
    for item in synthesize(GRAPH, 80, [1, 2], seed=0, findings=(1, 4), options=3):
        root = item.provenance["root"]
        degree = sum(root in (h, t) for h, _, t in GRAPH.triples)
        assert item.rarity == round((1 + degree) ** -0.5, 6)
        for label, diagnosis in item.provenance["rivals"].items():
            lacks = [tail for _, relation, tail in item.evidence if diagnosis not in BEARERS[tail, relation]]
            assert item.provenance["lacks"].get(label) == (lacks if diagnosis else None)
    graph = build([*clinic().triples, ("d5", "has_symptom", "s1"), ("d5", "first_line_treatment", "x5")])
    walk, walker = walk_of("s1 s2 s3", TREATED), Walker(graph)
    for seed in range(20):
        item = ItemBuilder(walker, 4).build(walk, rng(seed))
        assert "x5" not in item.options.values()
        item = ItemBuilder(walker, 2).build(walk, rng(seed), option_deficit={"x5": 1})
        assert "x5" in item.options.values()
