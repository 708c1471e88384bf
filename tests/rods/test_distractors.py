"""Wrong options and absent findings under is_a, kinship and debts, against plain set logic over the triples."""

from collections import Counter

import numpy as np
import pytest

from minifleming.extras.wording.kin import same_family
from minifleming.extras.wording.wording import Wording
from minifleming.rods.distractors import distractors, lacked, pairs, rivals
from minifleming.rods.item import Item
from minifleming.rods.proof import Facts, fault
from minifleming.rods.question import ABSENT, OFTEN, absent_findings, leaks, make_item, tells_masked
from minifleming.rods.synthesize import synthesise
from minifleming.rods.walk import EVIDENCE, Step, Walk, Walker
from tests.rods.toy_graphs import build, clinic, closed, genetics, in_chinese, neighbours

GRAPH = genetics(0)
WALKER = Walker(GRAPH, pins=True)
OUT, INTO = neighbours(GRAPH.triples)
ALL = closed(GRAPH.triples, set(GRAPH.names))  # with everything that follows by is_a
HAS, BEARERS = neighbours(ALL)
TREATED = Step("d1", "first_line_treatment", "x1", True)
VIGNETTE = Wording("vignette")


def rng(seed=0):
    return np.random.default_rng(seed)


def walk_of(findings: str, *chain, root="d1") -> Walk:
    return Walk(root, tuple(Step(root, "has_symptom", s, True) for s in findings.split()), chain)


def some_walks(count=60, hops=(1, 2, 3)):
    source, made = rng(3), []
    while len(made) < count:
        walk = WALKER.walk(hops[len(made) % len(hops)], (1, 4), source)
        made += [walk] if walk else []
    return made


WALKS = some_walks()


def test_bearers_are_those_that_have_the_finding_or_a_more_special_one():
    wider = 0
    for relation in WALKER.told:
        for finding in GRAPH.names:
            found = {GRAPH.names[n] for n in WALKER.bearers(relation, finding)}
            assert found == BEARERS[finding, relation]
            wider += found > INTO[finding, relation]
    assert wider > 5


def test_the_evidence_determines_its_root_under_is_a_and_what_is_rare_in_it_is_not_told():
    for walk in WALKS:
        assert set.intersection(*(BEARERS[s.end, s.relation] for s in walk.evidence)) == {walk.root}
        shares = [GRAPH.frequency(*step.triple) for step in walk.evidence]
        assert all(share is None or share >= 0.05 for share in shares)
    assert {None, 0.1} & {GRAPH.frequency(*s.triple) for walk in WALKS for s in walk.evidence}


def test_rivals_share_some_and_not_all_findings_under_is_a():
    for walk in WALKS:
        wanted = {}
        for name in {h for h, r, _ in GRAPH.triples if r in EVIDENCE}:
            shared = [(step.relation, step.end) for step in walk.evidence if name in BEARERS[step.end, step.relation]]
            if 0 < len(shared) < len(walk.evidence) and GRAPH.type_of(name) == GRAPH.type_of(walk.root):
                wanted[name] = len(shared)
        assert rivals(walk, WALKER) == wanted
        for name in wanted:
            assert lacked(walk, WALKER, name) == [
                step for step in walk.evidence if name not in BEARERS[step.end, step.relation]]


def test_a_rival_is_of_the_roots_type_and_has_findings_that_count():
    graph = build([*clinic().triples, ("k1", "has_symptom", "s1"), ("k1", "first_line_treatment", "x9")],
                  {"k1": "Toxin"})
    assert set(rivals(walk_of("s1 s2 s3", TREATED), Walker(graph))) == {"d2", "d3", "d4"}
    few = Walker(clinic(), roots=2)
    assert set(rivals(walk_of("s1 s2 s3"), few)) <= {few.graph.names[n] for n in few.roots}


def related(a: str, b: str) -> bool:
    """Of one family by name, or one above the other by is_a."""
    def above(name):
        found = {name}
        while more := {t for at in found for t in OUT[at, "is_a"]} - found:
            found |= more
        return found
    return same_family(a, b) or a in above(b) or b in above(a)


@pytest.mark.parametrize("apart", [False, True])
def test_distractors_by_hand(apart):
    """Of the answer's type, usable, without an edge to the node before it; apart, no variety of the answer."""
    kinships, banned = 0, set(GRAPH.names[::5])
    for walk in WALKS:
        found = distractors(walk, WALKER, 4, rng(1), apart=apart, usable=lambda name: name not in banned)
        for name, (rival, triple) in found.items():
            assert name != walk.answer and name not in banned and GRAPH.type_of(name) == GRAPH.type_of(walk.answer)
            assert not (apart and related(name, walk.answer)) and name != walk.root
            kinships += related(name, walk.answer)
            if walk.chain:
                last = walk.chain[-1]
                assert triple == last.triple
                special = {last.start} | {h for h, r, t in ALL if r == "is_a" and t == last.start}
                assert not any({name, other} == {h, t} for h, _, t in GRAPH.triples for other in special)
            else:
                assert triple == lacked(walk, WALKER, name)[0].triple and rival == name
    assert (kinships > 0) == (not apart)


def test_what_is_owed_most_comes_first_among_rivals_and_among_the_others():
    walk, walker = walk_of("s1 s2 s3", TREATED), Walker(clinic())
    for owed in ({"x4": 2, "x2": 1}, {"x2": 3, "x3": 2, "x4": 1}, {"x3": 1, "x2": -1, "x4": -2}):
        for seed in range(10):
            names = list(distractors(walk, walker, 3, rng(seed), owed))
            assert [owed.get(name, 0) for name in names] == sorted((owed.get(n, 0) for n in names), reverse=True)
    triples = [("d1", "has_symptom", "s1"), *((f"d{n}", "has_symptom", f"s{n}") for n in range(2, 9))]
    lonely = Walker(build([*triples, *((f"d{n}", "first_line_treatment", f"x{n}") for n in range(1, 9))]))
    for seed in range(10):
        found = distractors(walk_of("s1", TREATED), lonely, 3, rng(seed), {"x5": 9, "x7": 8})
        assert list(found)[:2] == ["x5", "x7"] and len(found) == 3
        assert {rival for rival, _ in found.values()} == {""}


def test_a_shared_end_belongs_to_the_rival_that_shares_most():
    """d2 shares two findings, d5 one, and both lead to x2."""
    graph = build([*clinic().triples, ("d5", "has_symptom", "s1"), ("d5", "first_line_treatment", "x2")])
    for seed in range(20):
        found = distractors(walk_of("s1 s2 s3", TREATED), Walker(graph), 3, rng(seed))
        assert found["x2"][0] == "d2"
        wide = distractors(walk_of("s1 s2 s3", TREATED), Walker(graph), 9, rng(seed))
        assert wide["x2"][0] == "d2", "filling up does not take the rival away"


def test_a_rival_reaches_its_end_through_steps_in_either_direction():
    """d1 - gene - disease by a backward step; its rival d2 the same way to d5."""
    triples = [*clinic().triples, *((d, "associated_gene", g) for d, g in (
        ("d1", "g1"), ("d7", "g1"), ("d2", "g2"), ("d5", "g2")))]
    chain = (Step("d1", "associated_gene", "g1", True), Step("g1", "associated_gene", "d7", False))
    found = distractors(walk_of("s1 s2 s3", *chain), Walker(build(triples)), 2, rng(),
                        usable=lambda name: name != "d2")
    assert found["d5"][0] == "d2" and "d1" not in found, "the root is no wrong answer"


@pytest.mark.parametrize("apart", [False, True])
def test_pairs_by_hand(apart):
    """A rival that lacks a told finding, with what its own chain leads to; the first missing finding tells it apart."""
    made, kinships, banned = 0, 0, set(GRAPH.names[::7])
    for walk in WALKS:
        if not walk.chain or not walk.evidence:
            continue
        shared = rivals(walk, WALKER)
        found = pairs(walk, WALKER, rng(2), apart, lambda name: name not in banned)
        for (rival, end), (said, triple) in found.items():
            assert said == rival and rival in shared and end != rival and not {rival, end} & banned
            assert triple == lacked(walk, WALKER, rival)[0].triple and end not in (walk.answer, walk.root)
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
    assert made > 50 and (kinships > 0) == (not apart)


def test_a_pair_is_never_one_node_twice():
    """The chain from d2 leads back to d2 itself, and further to d5."""
    triples = [*clinic().triples, *((d, "associated_gene", g) for d, g in (
        ("d1", "g1"), ("d7", "g1"), ("d2", "g2"), ("d5", "g2"), ("d3", "g3")))]
    chain = (Step("d1", "associated_gene", "g1", True), Step("g1", "associated_gene", "d7", False))
    assert list(pairs(walk_of("s1 s2 s3", *chain), Walker(build(triples)), rng())) == [("d2", "d5")]


def absents(seed=0, wording=VIGNETTE):
    source = rng(seed)
    for walk in WALKS:
        names = sorted(rivals(walk, WALKER))
        yield walk, names, absent_findings(walk, WALKER, names, source, wording, {walk.answer})


def test_absent_findings_are_often_seen_in_a_rival_and_never_in_the_root_by_is_a():
    counts, unknown = Counter(), 0
    for seed in range(3):
        for walk, names, steps in absents(seed):
            counts[len(steps)] += 1
            often = {}
            for rival in names:
                for step in WALKER.findings(rival):
                    share = GRAPH.frequency(*step.triple)
                    if (share is None or share >= OFTEN) and walk.root not in BEARERS[step.end, step.relation]:
                        often[step.end] = share
            often.pop(walk.answer, None)
            assert {s.end for s in steps} <= set(often) and all(step.start == walk.root for step in steps)
            assert bool(steps) == bool(often) and len(steps) <= ABSENT
            unknown += any(often[step.end] is None for step in steps)
            excluded = [step.end in OUT[walk.root, "lacks_phenotype"] for step in steps]
            assert excluded == sorted(excluded, reverse=True)
            if OUT[walk.root, "lacks_phenotype"] & set(often):
                assert excluded[0], "what is excluded for the root comes first"
    assert counts[1] > 10 and counts[2] > 10 and unknown


def test_a_finding_that_a_rival_has_in_just_enough_patients_is_told():
    from minifleming.rods.graph import Graph
    names = dict.fromkeys(("d1", "d2"), "Disease") | dict.fromkeys(("s1", "s2", "s3"), "Symptom")
    triples = [("d1", "has_symptom", "s1"), ("d1", "has_symptom", "s3"), ("d2", "has_symptom", "s1"),
               ("d2", "has_symptom", "s2")]
    for share, told in ((0.5, 1), (0.25, 0), (OFTEN, 1)):
        walker = Walker(Graph(names, triples, frequency=[1.0, 1.0, 1.0, share]))
        assert len(absent_findings(walk_of("s1 s3"), walker, ["d2"], rng(), VIGNETTE, set())) == told


def test_only_names_of_the_language_are_told_as_absent():
    names = {name: zh for i, (name, zh) in enumerate(in_chinese(GRAPH).items()) if i % 2}
    zh, told = Wording("vignette", "zh", names), 0
    for _, _, steps in absents(1, zh):
        assert all(step.end in names for step in steps)
        told += len(steps)
    assert told > 10


def test_what_is_asked_hidden_or_an_option_is_never_told_as_absent_and_vignettes_alone_tell_any():
    """Here diseases point to findings along the chain: what is asked for is a finding that rivals have."""
    triples = [*clinic().triples]
    for n, s in zip("1234", ("s5", "s4", "s2", "s1")):
        triples += [(f"d{n}", "has_mechanism", f"m{n}"), (f"m{n}", "explains", s)]
    walker = Walker(build(triples))
    chain = (Step("d1", "has_mechanism", "m1", True), Step("m1", "explains", "s5", True))
    made = [make_item(walk_of("s1 s2 s3", *chain), walker, n, rng(seed), "t", wording=Wording(style))
            for seed in range(40) for n in (2, 3) for style in ("vignette", "varied")]
    seen = [item for item in made if item and item.absent]
    for item in seen:
        absent = {tail for _, _, tail in item.absent}
        assert not absent & {"s5", *item.options.values()}
        assert all(f" {name}" in item.question for name in absent)
    assert seen and all(not item.absent for item in made[1::2] if item)


def test_options_of_one_wording_make_no_item():
    names = {name: zh for name, zh in in_chinese(clinic()).items()}
    walk, walker = walk_of("s1 s2 s3", TREATED), Walker(clinic())
    assert make_item(walk, walker, 4, rng(), "t", wording=Wording("plain", "zh", names))
    alike = Wording("plain", "zh", names | {"x2": names["x3"]})
    assert make_item(walk, walker, 4, rng(), "t", wording=alike) is None
    assert make_item(walk, walker, 4, rng(), "t",
                     wording=Wording("plain", "zh", {n: z for n, z in names.items() if n != "x1"})) is None
    assert make_item(walk, walker, 4, rng(), "t",
                     wording=Wording("plain", "zh", {n: z for n, z in names.items() if n != "x2"})) is None
    for both in (False, True):
        item = make_item(walk, walker, 3, rng(), "t", both=both, wording=Wording(
            "plain", "zh", {n: z for n, z in names.items() if n not in ("x2", "d2")}))
        assert item and "x2" not in {name for pair in item.provenance["nodes"].values() for name in pair}


def test_ids_differ_with_the_question_and_with_the_options():
    walk, walker = walk_of("s1 s2 s3", TREATED), Walker(clinic())
    items = [make_item(walk, walker, 3, rng(seed), "t", wording=Wording("varied")) for seed in range(60)]
    asked = {(item.question, *item.options.values()) for item in items}
    assert len({item.id for item in items}) == len(asked) > len({item.question for item in items}) > 1
    assert len(asked) > len({tuple(item.options.values()) for item in items})


def test_an_item_tells_the_best_distractors_what_each_rival_lacks_and_the_weight_of_its_root():
    for item in synthesise(GRAPH, 80, [1, 2], seed=0, findings=(1, 4), options=3):
        root = item.provenance["root"]
        degree = sum(root in (h, t) for h, _, t in GRAPH.triples)
        assert item.rarity == round((1 + degree) ** -0.5, 6)
        for label, rival in item.provenance["rivals"].items():
            told = [tail for _, relation, tail in item.evidence if rival not in BEARERS[tail, relation]]
            assert item.provenance["lacks"].get(label) == (told if rival else None)
    graph = build([*clinic().triples, ("d5", "has_symptom", "s1"), ("d5", "first_line_treatment", "x5")])
    for seed in range(20):
        item = make_item(walk_of("s1 s2 s3", TREATED), Walker(graph), 4, rng(seed), "t")
        assert "x5" not in item.options.values()
        owed = make_item(walk_of("s1 s2 s3", TREATED), Walker(graph), 2, rng(seed), "t", {"x5": 1})
        assert "x5" in owed.options.values()


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_apart_reaches_the_options_of_an_item(both, apart):
    """What is more special or more general is never offered; of one gene, only where options need not be apart."""
    triples = [*clinic().triples, ("x2", "is_a", "x1"), ("x3", "has_gene", "g"), ("x1", "has_gene", "g")]
    seen = set()
    for seed in range(20):
        walker = Walker(build(triples))
        item = make_item(walk_of("s1 s2 s3", TREATED), walker, 2, rng(seed), "t", both=both, apart=apart)
        seen |= {name for label in item.options for name in item.nodes(label)}
    assert "x2" not in seen and ("x3" in seen) == (not apart) and "x4" in seen


def test_among_pairs_each_half_is_offered_with_a_wrong_other_half():
    """Else the diagnosis alone, or the treatment alone, would give the answer."""
    for seed in range(20):
        item = make_item(walk_of("s1 s2 s3", TREATED), Walker(clinic()), 3, rng(seed), "t", both=True)
        options = [tuple(item.nodes(label)) for label in item.options]
        assert ("d1", "x1") in options and len(set(options)) == 3
        wrong = [pair for pair in options if pair != ("d1", "x1")]
        assert {pair[0] == "d1" for pair in wrong} == {pair[1] == "x1" for pair in wrong} == {True, False}
        assert fault(item, Facts(clinic())) is None


def test_one_hop_asks_for_one_node_even_where_two_were_wanted():
    item = make_item(walk_of("s1 s2 s3"), Walker(clinic()), 3, rng(), "t", both=True)
    assert len(item.nodes(item.answer)) == 1 and item.masked == "d1"


def test_neither_the_root_nor_the_node_before_the_answer_is_offered():
    """Both stand in the answer's place of its relation and have no edge of their own that rules them out."""
    triples = [*clinic().triples, ("x5", "drug_mechanism", "a1"), ("d5", "first_line_treatment", "x5")]
    chain = (TREATED, Step("x1", "drug_mechanism", "a1", True), Step("a1", "drug_mechanism", "x5", False),
             Step("x5", "first_line_treatment", "d5", False))
    assert set(distractors(walk_of("s1 s2 s3", *chain), Walker(build(triples)), 9, rng())) == {"d2", "d3", "d4"}
    genes = [("d1", "associated_gene", "g1"), ("g1", "binds", "g2"), ("g3", "binds", "g1"), ("g4", "binds", "g5")]
    walk = walk_of("s1 s2 s3", Step("d1", "associated_gene", "g1", True), Step("g1", "binds", "g2", True))
    assert set(distractors(walk, Walker(build([*clinic().triples, *genes])), 9, rng())) == {"g5"}


def test_a_hidden_finding_is_never_told_as_absent():
    """s5 stands between the root and the test that is asked for, and d4, a rival, has it."""
    triples = [*clinic().triples]
    for n, s in zip("1234", ("s5", "s4", "s2", "s1")):
        triples += [(f"d{n}", "has_mechanism", f"m{n}"), (f"m{n}", "explains", s), (f"t{n}", "detects", s)]
    chain = (Step("d1", "has_mechanism", "m1", True), Step("m1", "explains", "s5", True),
             Step("s5", "detects", "t1", False))
    made = [make_item(walk_of("s1 s2 s3", *chain), Walker(build(triples)), 4, rng(seed), "t", wording=VIGNETTE)
            for seed in range(40)]
    told = {tail for item in made for _, _, tail in item.absent}
    assert "s4" in told and "s5" not in told


def leaky(question="It has s1.", finding="s1", names=("Odd ataxia",), hidden=("gene B",), told=None, language="en"):
    labels = {"A": "; ".join(names), "B": "other"}
    return Item("i", question, labels, "A", language=language, masked=labels["A"],
                path=[("r", "has_symptom", finding)], visible=[("r", "has_symptom", finding)],
                provenance={"hidden": list(hidden), "nodes": {"A": list(names)}} | ({"told": told} if told else {}))


@pytest.mark.parametrize("change, leaking, telling", [
    ({}, False, False),
    ({"question": "It has ODD ataxia."}, True, False),  # leaks() is blind to case
    ({"question": "It has Odd ataxia."}, True, True), ({"question": "It has Odd ataxias."}, False, False),
    ({"question": "It has a gene B."}, True, True),  # what is hidden
    ({"names": ("Odd ataxia", "x1"), "question": "It has x1."}, True, True),  # half of a pair
    ({"finding": "ataxia"}, True, False),  # a finding that is part of the name
    ({"finding": "late odd ataxia"}, True, False),  # the name within a finding, as the graph writes it
    ({"question": "有怪病。", "told": {"Odd ataxia": "怪病"}, "language": "zh"}, False, True),
    ({"question": "有怪病人。", "told": {"Odd ataxia": "怪病"}, "language": "zh"}, False, True)])
def test_what_leaks_and_what_tells_a_masked_name(change, leaking, telling):
    item = leaky(**change)
    assert (leaks(item), tells_masked(item)) == (leaking, telling)
