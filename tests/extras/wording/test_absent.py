"""Tests for absent.py: absent findings are frequent in a competing diagnosis and never in the root."""

from collections import Counter

from minifleming.extras.wording.patient import FREQUENT, MAX_ABSENT, draw_absent
from minifleming.extras.wording.styles import Chinese, English
from minifleming.rods.distractors import DistractorSearch
from minifleming.rods.graph import Graph
from minifleming.rods.walk import Step, Walker
from tests.extras.wording.toy_walks import GRAPH, WALKER, rng, walk_of, walks
from tests.extras.wording.worded import make_item
from tests.rods.toy_graphs import build, clinic, closed, in_chinese, neighbours

OUT, _ = neighbours(GRAPH.triples)
_, BEARERS = neighbours(closed(GRAPH.triples, set(GRAPH.names)))
VIGNETTE = English("vignette")


def absents(seed=0, can_name=lambda name: True):
    source, search = rng(seed), DistractorSearch(WALKER)
    for walk in walks():
        names = sorted(search.competing_diagnoses(walk))
        yield walk, names, draw_absent(walk, WALKER, names, source, lambda name, walk=walk: (
            name != walk.answer and can_name(name)))


def test_absent_findings_are_frequent_in_a_diagnosis_and_never_in_the_root_by_is_a():
    counts, unknown = Counter(), 0
    for seed in range(3):
        for walk, names, steps in absents(seed):
            counts[len(steps)] += 1
            often = {}
            for rival in names:
                for step in WALKER.findings(rival):
                    share = GRAPH.frequency(*step.triple)
                    if (share is None or share >= FREQUENT) and walk.root not in BEARERS[step.end, step.relation]:
                        often[step.end] = share
            often.pop(walk.answer, None)
            assert {s.end for s in steps} <= set(often) and all(step.start == walk.root for step in steps)
            assert bool(steps) == bool(often) and len(steps) <= MAX_ABSENT
            unknown += any(often[step.end] is None for step in steps)
            excluded = [step.end in OUT[walk.root, "lacks_phenotype"] for step in steps]
            assert excluded == sorted(excluded, reverse=True)
            if OUT[walk.root, "lacks_phenotype"] & set(often):
                assert excluded[0], "findings excluded for the root come first"
    assert counts[1] > 10 and counts[2] > 10 and unknown


def test_findings_from_the_frequent_bound_on_are_used():
    names = dict.fromkeys(("d1", "d2"), "Disease") | dict.fromkeys(("s1", "s2", "s3"), "Symptom")
    triples = [("d1", "has_symptom", "s1"), ("d1", "has_symptom", "s3"), ("d2", "has_symptom", "s1"),
               ("d2", "has_symptom", "s2")]
    for share, told in ((0.5, 1), (0.25, 0), (FREQUENT, 1)):
        walker = Walker(Graph(names, triples, frequency=[1.0, 1.0, 1.0, share]))
        assert len(draw_absent(walk_of("s1 s3"), walker, ["d2"], rng(), lambda name: True)) == told


def test_only_names_of_the_language_are_named_as_absent():
    names = {name: zh for i, (name, zh) in enumerate(in_chinese(GRAPH).items()) if i % 2}
    named = 0
    for _, _, steps in absents(1, Chinese("vignette", names).has_surface_form):
        assert all(step.end in names for step in steps)
        named += len(steps)
    assert named > 10


def test_targets_hidden_nodes_and_options_are_never_absent_and_only_vignettes_have_absent_findings():
    """Here the chain ends at a finding, which competing diagnoses have."""
    triples = [*clinic().triples]
    for n, s in zip("1234", ("s5", "s4", "s2", "s1")):
        triples += [(f"d{n}", "has_mechanism", f"m{n}"), (f"m{n}", "explains", s)]
    walker = Walker(build(triples))
    chain = (Step("d1", "has_mechanism", "m1", True), Step("m1", "explains", "s5", True))
    made = [make_item(walk_of("s1 s2 s3", *chain), walker, n, rng(seed), style=English(style))
            for seed in range(40) for n in (2, 3) for style in ("vignette", "varied")]
    seen = [item for item in made if item and item.absent]
    for item in seen:
        absent = {tail for _, _, tail in item.absent}
        assert not absent & {"s5", *item.options.values()}
        assert all(f" {name}" in item.question for name in absent)
    assert seen and all(not item.absent for item in made[1::2] if item)


def test_a_hidden_finding_is_never_absent():
    """s5 is between the root and the target, and d4, a competing diagnosis, has it."""
    triples = [*clinic().triples]
    for n, s in zip("1234", ("s5", "s4", "s2", "s1")):
        triples += [(f"d{n}", "has_mechanism", f"m{n}"), (f"m{n}", "explains", s), (f"t{n}", "detects", s)]
    chain = (Step("d1", "has_mechanism", "m1", True), Step("m1", "explains", "s5", True),
             Step("s5", "detects", "t1", False))
    made = [make_item(walk_of("s1 s2 s3", *chain), Walker(build(triples)), 4, rng(seed), style=VIGNETTE)
            for seed in range(40)]
    told = {tail for item in made for _, _, tail in item.absent}
    assert "s4" in told and "s5" not in told
