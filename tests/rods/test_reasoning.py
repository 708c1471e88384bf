"""Stated hops: every edge can be said and read back, what is no edge is told apart, and long texts take no time."""

import time

import pytest

from minifleming.rods.phrases import EMBEDDED_RELATIONS, listing, phrase, statement
from minifleming.rods.readers import load_graph
from minifleming.rods.reasoning import MAX_ANDS, stated_hops, support
from minifleming.rods.walk import EVIDENCE
from tests.rods.toy_graphs import clinic

GRAPH = load_graph("embedded")


@pytest.mark.parametrize("forward", [True, False])
def test_every_edge_of_the_graph_is_read_back_from_its_statement(forward):
    wrong = [t for t in GRAPH.triples if stated_hops(f" {statement(*t, forward)} .", GRAPH) != [(t, True)]]
    assert wrong == []


def test_every_disease_is_read_back_from_the_list_of_its_findings():
    """Names that contain "and" included."""
    for disease in (name for name in GRAPH.names if GRAPH.type_of(name) == "Disease"):
        edges = [(disease, r, t) for r in EVIDENCE for t in GRAPH.tails(disease, r)]
        verb = "points" if len(edges) == 1 else "point"
        text = f" {listing([t for _, _, t in edges])} {verb} to {disease} ."
        assert stated_hops(text, GRAPH) == [(edge, True) for edge in edges]


@pytest.mark.parametrize("forward", [True, False])
def test_every_edge_is_read_back_from_prose(forward):
    """Capital, full stop, and nothing else of the spaced form; all the more if another sentence follows."""
    wrong = []
    for triple in GRAPH.triples:
        said = statement(*triple, forward)
        text = f"The case is clear: {said[0].upper()}{said[1:]}. So that is it."
        if stated_hops(text, GRAPH) != [(triple, True)]:
            wrong.append(said)
    assert wrong == []


def test_no_name_has_more_ands_than_the_reader_joins():
    assert max(name.count(" and ") for name in GRAPH.names) <= MAX_ANDS


S = "has_symptom"


@pytest.mark.parametrize("text, hops", [
    ("", []),
    (" . ", []),
    (" the patient looks ill .", []),
    (" d1 lacks s4 . back .", []),
    (" so x1 (B)", []),
    (" s1 points to d1 .", [(("d1", S, "s1"), True)]),
    (" s1 points to d1", [(("d1", S, "s1"), True)]),
    (" s4 points to d1 .", [(("d1", S, "s4"), False)]),
    (" s1 and s4 point to d1 .", [(("d1", S, "s1"), True), (("d1", S, "s4"), False)]),
    (" s1 , s2 and s3 point to d1 .", [(("d1", S, name), True) for name in ("s1", "s2", "s3")]),
    (" nonsense points to d1 .", [(("d1", S, "nonsense"), False)]),
    (" s1 points to nowhere .", []),
    (" d1 is treated with x1 .", [(("d1", "first_line_treatment", "x1"), True)]),
    (" x1 treats d1 .", [(("d1", "first_line_treatment", "x1"), True)]),
    (" d1 treats x1 .", [(("x1", "first_line_treatment", "d1"), False)]),
    (" d1 is treated with x2 .", [(("d1", "first_line_treatment", "x2"), False)]),
    (" d1 is treated with water .", []),
    (" D1 is treated with x1 .", [(("d1", "first_line_treatment", "x1"), True)]),
    ("S1 points to D1. The d1 is treated with x1, so x1 (B).",
     [(("d1", S, "s1"), True), (("d1", "first_line_treatment", "x1"), True)]),
    ("S1, s2, and s3 suggest d1; therefore, d1 is treated with x2.",
     [*((("d1", S, name), True) for name in ("s1", "s2", "s3")), (("d1", "first_line_treatment", "x2"), False)]),
    ("S4 indicates d1.", [(("d1", S, "s4"), False)]),
    ("Nonsense points to d1.", []),
    ("s1 does not point to d1.", []),
    ("s1 points to d1, but d1 lacks s4.", [(("d1", S, "s1"), True)]),
    ("S1 points\nto d1", [(("d1", S, "s1"), True)]),
    (" d1 is treated with x1 . x1 works by a1 .",
     [(("d1", "first_line_treatment", "x1"), True), (("x1", "drug_mechanism", "a1"), True)]),
    (" consider d2 : s1 points to d2 . d2 lacks s3 .", [(("d2", S, "s1"), True)]),
    (" s4 points to d2 . wait , d2 lacks s3 . s1 points to d1 .",
     [(("d2", S, "s4"), True), (("d1", S, "s1"), True)]),
    (" wait , s1 points to d1 .", [(("d1", S, "s1"), True)]),
    (" s1 points to d1 . s1 points to d1 .", [(("d1", S, "s1"), True)] * 2),
])
def test_what_a_text_states(text, hops):
    assert stated_hops(text, clinic()) == hops
    found = support(text, "x1", clinic())
    assert (found == "unread") == (not hops) and (found == "false") == any(not true for _, true in hops)


def test_support_wants_every_hop_true_and_the_last_at_what_was_chosen():
    text = " s1 points to d1 . d1 is treated with x1 ."
    assert support(text + " so x1 (A)", "x1", clinic()) == "chain"
    assert support(text + " x1 works by a2 .", "x1", clinic()) == "false", "one false hop is enough"
    assert support(text + " so x2 (B)", "x2", clinic()) == "gap", "a true chain to somewhere else"
    assert support(" s1 point to to d1 . so x1 (A)", "x1", clinic()) == "unread"


def test_phrases_of_one_direction_tell_the_relations_apart():
    """But for the evidence relations, which share "points to": the graph decides there."""
    said = [phrase(r, forward).verb for r in EMBEDDED_RELATIONS for forward in (True, False) if r not in EVIDENCE]
    assert len(set(said)) == len(said)


def test_a_relation_without_a_phrase_is_said_by_its_name():
    assert statement("a", "lives_in", "b") == "a lives in b"
    assert statement("a", "lives_in", "b", forward=False) == "b is lives in of a"
    assert phrase("lives_in").link == "'lives in' partner"


@pytest.mark.parametrize("names, text", [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a , b and c")])
def test_a_listing(names, text):
    assert listing(names) == text


REPETITIONS = (
    ("fever , ", "fever point to tuberculosis ."), ("fever and ", "fever point to tuberculosis ."),
    ("fever points to tuberculosis . ", ""), (" . ", ""), ("a", ""), ("wait , ", ""), (" is treated with", ""),
    ("tuberculosis is treated with ", ""), (" ", "."), (": ", ""),
)


def assert_linear_time(piece: str, end: str, lengths: tuple[int, ...]) -> None:
    """Four times the text takes far less than sixteen times the time."""
    def seconds(length: int) -> float:
        text = (piece * (length // len(piece)))[-length:] + end
        start = time.process_time()
        stated_hops(text, GRAPH)
        stated_hops(text.title().replace(" .", "."), GRAPH)
        return time.process_time() - start

    best = [min(seconds(lengths[0]) for _ in range(3))]
    for length in lengths[1:]:
        best.append(min(seconds(length) for _ in range(2)))
        assert best[-1] < 8 * max(best[-2], 0.002), (piece, end, length)


def test_repeated_text_is_read_in_linear_time():
    for piece, end in REPETITIONS[:3]:
        assert_linear_time(piece, end, (4_000, 16_000))


@pytest.mark.slow
def test_long_repeated_text_is_read_in_linear_time():
    for piece, end in REPETITIONS:
        assert_linear_time(piece, end, (4_000, 16_000, 64_000, 256_000))
