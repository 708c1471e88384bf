"""Tests for walk.py: functional steps leave no choice, evidence determines its root, draws follow the weights."""

import hashlib

import numpy as np
import pytest

from minifleming.rods.graph import Graph
from minifleming.rods.readers import load_graph
from minifleming.rods.walk import EVIDENCE, NOT_WALKED, TYPICAL, Step, Walker
from tests.rods.toy_graphs import build, clinic, neighbours

GRAPH = load_graph("embedded")
OUT, INTO = neighbours(GRAPH.triples)
WALKER = Walker(GRAPH)


def walks(count: int, hops=(1, 2, 3, 4, 5), findings=(2, 4), seed: int = 0, walker: Walker = WALKER):
    rng, made = np.random.default_rng(seed), []
    while len(made) < count:
        walk = walker.walk(hops[len(made) % len(hops)], findings, rng)
        made += [walk] if walk else []
    return made


WALKS = walks(300)


def chi_square(seen: list[int], share: np.ndarray) -> float:
    expected = np.asarray(share) * sum(seen)
    return float(((np.array(seen) - expected) ** 2 / expected).sum())


def test_functional_steps_are_all_edges_with_one_neighbor_and_no_others():
    """For every node, against the plain set of triples, in both directions."""
    for name in GRAPH.names:
        wanted = {Step(name, r, min(t), True) for r in GRAPH.relations if len(t := OUT[name, r]) == 1}
        wanted |= {Step(name, r, min(h), False) for r in GRAPH.relations if len(h := INTO[name, r]) == 1}
        found = WALKER.next_steps(name)
        assert set(found) == {step for step in wanted if step.relation not in NOT_WALKED}
        assert len(found) == len(set(found))


def test_a_step_gives_its_edge_in_the_direction_of_the_graph():
    assert Step("d1", "treated_by", "x1", True).triple == ("d1", "treated_by", "x1")
    assert Step("x1", "treated_by", "d1", False).triple == ("d1", "treated_by", "x1")


def test_a_chain_is_connected_functional_and_visits_no_node_twice():
    for walk in WALKS:
        at, visited = walk.root, [walk.root]
        for step in walk.chain:
            assert step.start == at and step.triple in GRAPH and step.relation not in NOT_WALKED
            ends = OUT[at, step.relation] if step.forward else INTO[at, step.relation]
            assert ends == {step.end}, "the step has other ends"
            at = step.end
            visited.append(at)
        assert len(set(visited)) == len(visited) and at == walk.answer


def test_a_walk_has_the_requested_hops():
    for hops in (1, 2, 3, 4, 5, 6):
        for walk in walks(20, hops=(hops,)):
            assert walk.hops == hops == 1 + len(walk.chain)


@pytest.mark.parametrize("findings", [(1, 1), (1, 3), (2, 4), (3, 3), (4, 6)])
def test_the_evidence_determines_its_root(findings):
    """No other node has all findings; their number is within the bounds; none occurs twice."""
    for walk in walks(60, findings=findings, seed=1):
        sets = [INTO[step.end, step.relation] for step in walk.evidence]
        assert set.intersection(*sets) == {walk.root}
        assert findings[0] <= len(walk.evidence) <= findings[1]
        assert len({step.end for step in walk.evidence}) == len(walk.evidence)
        assert all(s.start == walk.root and s.forward and s.relation in EVIDENCE for s in walk.evidence)


def test_the_evidence_has_no_more_findings_than_needed():
    for walk in WALKS:
        if len(walk.evidence) > 2:
            shorter = [INTO[step.end, step.relation] for step in walk.evidence[:-1]]
            assert set.intersection(*shorter) > {walk.root}


def test_a_finding_on_the_chain_is_not_evidence():
    """Here the chain runs through a finding: d1 - mechanism - explains s1."""
    graph = build([("d1", "has_symptom", "s1"), ("d1", "has_symptom", "s2"), ("d1", "has_symptom", "s3"),
                   ("d1", "has_mechanism", "m1"), ("m1", "explains", "s1")])
    for walk in walks(30, hops=(3,), findings=(2, 2), walker=Walker(graph)):
        assert walk.answer == "s1" and {step.end for step in walk.evidence} == {"s2", "s3"}


def test_a_root_with_no_determining_findings_is_never_drawn():
    """d2 has every finding of d1, so d1 has no evidence; d2 has some."""
    graph = build([("d1", "has_symptom", "s1"), ("d1", "has_symptom", "s2"),
                   *[("d2", "has_symptom", s) for s in ("s1", "s2", "s3")]])
    assert {walk.root for walk in walks(50, hops=(1,), findings=(1, 3), walker=Walker(graph))} == {"d2"}


def test_dead_ends_give_no_walk():
    rng = np.random.default_rng(0)
    assert Walker(build([("x1", "treats", "d1")])).walk(1, (1, 2), rng) is None, "no relation is evidence"
    assert Walker(clinic()).walk(9, (1, 4), rng) is None, "no chain is that long"


def weights_by_hand(triples: list, rarity: float, boost: float) -> dict[str, float]:
    ends = [name for head, _, tail in triples for name in (head, tail)]
    rare = {head for head, relation, tail in triples if (relation, tail) == ("has_prevalence", "rare disease")}
    return {name: (1 + ends.count(name)) ** -rarity * (boost if name in rare else 1) for name in set(ends)}


@pytest.mark.parametrize("rarity, boost", [(0.0, 1.0), (0.0, 3.0), (0.5, 2.0), (1.0, 1.0), (2.0, 5.0)])
def test_root_probabilities_are_the_formula_and_draws_follow_them(rarity, boost):
    """w(v) = boost (1 + degree)^-rarity: exactly in the table, and in 4,000 draws by chi-square (p > 1e-4)."""
    triples = [*clinic().triples, ("d1", "has_prevalence", "rare disease"), ("d2", "has_prevalence", "rare disease"),
               ("d3", "has_prevalence", "common disease"), ("d4", "has_prevalence", "common disease")]
    walker = Walker(build(triples), rarity, boost)
    weights = weights_by_hand(triples, rarity, boost)
    roots = [walker.graph.names[v] for v in walker.roots]
    share = np.array([weights[root] for root in roots]) / sum(weights[root] for root in roots)
    assert roots == ["d1", "d2", "d3", "d4"]
    np.testing.assert_allclose(walker.root_probability, share, rtol=1e-12)
    drawn = [walk.root for walk in walks(4000, hops=(1,), findings=(1, 4), walker=walker)]
    assert chi_square([drawn.count(root) for root in roots], share) < 21.1  # 3 degrees of freedom


def test_more_rarity_means_more_rare_and_less_connected_diseases():
    """On the embedded graph the expected share of rare roots rises with the boost, the mean degree falls with
    the exponent, and 2,000 draws lie within five standard errors of that share."""
    rare = {t[0] for t in GRAPH.triples if t[1:] == ("has_prevalence", "rare disease")}
    degrees = GRAPH.degrees()

    def expected(rarity: float, boost: float) -> tuple[float, float]:
        walker = Walker(GRAPH, rarity, boost)
        is_rare = np.array([GRAPH.names[v] in rare for v in walker.roots])
        return float(walker.root_probability @ is_rare), float(walker.root_probability @ degrees[walker.roots])

    shares = [expected(0.0, boost)[0] for boost in (0.5, 1.0, 2.0, 8.0)]
    assert shares == sorted(shares) and shares[-1] > shares[0] + 0.2
    assert shares[1] == pytest.approx(len(rare) / GRAPH.types.count("Disease"))
    means = [expected(rarity, 1.0)[1] for rarity in (0.0, 0.5, 1.0, 2.0)]
    assert means == sorted(means, reverse=True) and means[0] > means[-1]
    rng, walker = np.random.default_rng(0), Walker(GRAPH, 0.5, 2.0)
    share = expected(0.5, 2.0)[0]
    drawn = [GRAPH.names[walker.roots[i]] in rare
             for i in rng.choice(len(walker.roots), 2000, p=walker.root_probability)]
    assert abs(np.mean(drawn) - share) < 5 * (share * (1 - share) / 2000) ** 0.5


def test_the_next_node_is_drawn_by_weight_too():
    """From d1 two functional edges lead on, to ends of degree 1 and 5: weights 1/2 and 1/6, odds 3 to 1."""
    triples = [("d1", "has_symptom", "s1"), ("d1", "first_line_treatment", "x1"), ("d1", "has_mechanism", "m1")]
    triples += [("m1", "is_near", f"t{i}") for i in range(4)]
    walker = Walker(build(triples), rarity=1.0, rare_boost=1.0)
    ends = [walk.answer for walk in walks(4000, hops=(2,), findings=(1, 1), walker=walker)]
    share = np.array([1 / 2, 1 / 6]) / (1 / 2 + 1 / 6)
    assert chi_square([ends.count("x1"), ends.count("m1")], share) < 15.1  # 1 degree of freedom, p > 1e-4


def test_the_same_generator_gives_the_same_walks():
    assert walks(50, seed=7) == walks(50, seed=7) == walks(50, seed=7, walker=Walker(GRAPH))
    assert walks(50, seed=7) != walks(50, seed=8)


def test_findings_from_the_typical_frequency_on_are_used():
    names = dict.fromkeys(("d1", "d2"), "Disease") | dict.fromkeys(("s1", "s2", "s3"), "Symptom")
    triples = [("d1", "has_symptom", s) for s in ("s1", "s2", "s3")]
    for share, used in ((TYPICAL, True), (0.04, False), (0.0, False), (1.0, True), (float("nan"), True)):
        graph = Graph(names, triples, frequency=np.array([share, 1.0, float("nan")]).tolist())
        found = {step.end for step in Walker(graph).findings("d1")}
        assert found == {"s2", "s3"} | ({"s1"} if used else set())


def test_only_the_given_evidence_relations_are_evidence():
    """Neither they nor what evidence is by default are walked."""
    graph = build([*clinic().triples, *((f"d{n}", "smells_of", f"o{n}") for n in "1234"),
                   *((f"d{n}", "has_lab_finding", f"l{n}") for n in "1234")])
    walker = Walker(graph, evidence=("smells_of",))
    for walk in walks(60, hops=(1, 2, 3), findings=(1, 2), walker=walker):
        assert {step.relation for step in walk.evidence} == {"smells_of"}
        assert not {step.relation for step in walk.chain} & {"smells_of", *EVIDENCE}
    assert walker.next_steps("o1") == [] != Walker(graph).next_steps("o1")


def test_evidence_denials_and_classes_are_never_walked():
    for relation in NOT_WALKED:
        triples = [("d1", "has_symptom", "s1"), ("d1", relation, "z1"), ("d1", "first_line_treatment", "x1")]
        assert {step.end for step in Walker(build(triples)).next_steps("d1")} == {"x1"}, relation
    assert {"is_a", "lacks_phenotype", "lacks_onset", "lacks_inheritance", "does_not_express"} <= set(NOT_WALKED)


def test_a_limited_number_of_roots_is_a_fixed_choice_by_the_hash_of_their_names():
    """A larger choice holds the smaller one, and the order of the graph's rows does not matter."""
    names = sorted({h for h, r, _ in GRAPH.triples if r in EVIDENCE},
                   key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    turned = Graph(dict(reversed(dict(zip(GRAPH.names, GRAPH.types)).items())), GRAPH.triples[::-1])
    for count in (1, 7, 80):
        for graph in (GRAPH, turned):
            walker = Walker(graph, num_diseases=count)
            assert {graph.names[v] for v in walker.roots} == set(names[:count])
            assert walker.is_root.sum() == count
