"""Tests for variants.py: variants of the answer are no options, and no question names a masked node."""

import pytest

from minifleming.extras.wording.styles import Chinese, read_chinese_names
from minifleming.extras.wording.variants import has_words, leaks_masked_name, names_masked_node, same_family
from minifleming.rods.item import Item
from minifleming.rods.readers import load_graph
from minifleming.rods.walk import Walker
from tests.extras.wording.toy_walks import GRAPH, TREATED, WALKER, rng, walk_of, walks
from tests.extras.wording.worded import find, make_item, synthesize
from tests.rods.toy_graphs import build, clinic, neighbours

EMBEDDED = load_graph("embedded")
OUT, _ = neighbours(GRAPH.triples)


def related(a: str, b: str) -> bool:
    """Of one family by name, or one an ancestor of the other."""
    def above(name):
        found = {name}
        while more := {t for at in found for t in OUT[at, "is_a"]} - found:
            found |= more
        return found
    return same_family(a, b) or a in above(b) or b in above(a)


@pytest.mark.parametrize("exclude_variants", [False, True])
def test_variants_of_the_answer_are_no_distractors(exclude_variants):
    families = 0
    for walk in walks():
        for name in find(walk, WALKER, 4, rng(1), exclude_variants=exclude_variants):
            families += related(name, walk.answer)
    assert (families > 0) == (not exclude_variants)


@pytest.mark.parametrize("two_targets", [False, True])
@pytest.mark.parametrize("exclude_variants", [False, True])
def test_excluding_variants_reaches_the_options_of_an_item(two_targets, exclude_variants):
    """Ancestors and descendants are never options; nodes with a common gene only if variants are allowed."""
    triples = [*clinic().triples, ("x2", "is_a", "x1"), ("x3", "has_gene", "g"), ("x1", "has_gene", "g")]
    seen = set()
    for seed in range(20):
        walker = Walker(build(triples))
        item = make_item(walk_of("s1 s2 s3", TREATED), walker, 2, rng(seed), two_targets=two_targets,
                         exclude_variants=exclude_variants)
        seen |= {name for label in item.options for name in item.nodes(label)}
    assert "x2" not in seen and ("x3" in seen) == (not exclude_variants) and "x4" in seen


def leaky(question="It has s1.", finding="s1", names=("Odd ataxia",), hidden=("gene B",), told=None, language="en"):
    labels = {"A": "; ".join(names), "B": "other"}
    return Item("i", question, labels, "A", language=language, masked=labels["A"],
                path=[("r", "has_symptom", finding)], visible=[("r", "has_symptom", finding)],
                provenance={"hidden": list(hidden), "nodes": {"A": list(names)}} | ({"told": told} if told else {}))


@pytest.mark.parametrize("change, leaking, telling", [
    ({}, False, False),
    ({"question": "It has ODD ataxia."}, True, False),  # leaks_masked_name ignores case
    ({"question": "It has Odd ataxia."}, True, True), ({"question": "It has Odd ataxias."}, False, False),
    ({"question": "It has a gene B."}, True, True),  # what is hidden
    ({"names": ("Odd ataxia", "x1"), "question": "It has x1."}, True, True),  # half of a pair
    ({"finding": "ataxia"}, True, False),  # a finding that is part of the name
    ({"finding": "late odd ataxia"}, True, False),  # the name within a finding, as the graph writes it
    ({"question": "有怪病。", "told": {"Odd ataxia": "怪病"}, "language": "zh"}, False, True),
    ({"question": "有怪病人。", "told": {"Odd ataxia": "怪病"}, "language": "zh"}, False, True)])
def test_leaks_and_names_of_masked_nodes(change, leaking, telling):
    item = leaky(**change)
    assert (leaks_masked_name(item), names_masked_node(item)) == (leaking, telling)


def test_without_variants_or_in_chinese_no_question_leaks_a_masked_name():
    def seen(**options):
        return synthesize(EMBEDDED, 200, [1, 2, 3], seed=0, findings=(2, 4), **options)

    assert any(map(leaks_masked_name, seen())), "else this proves nothing"
    assert not any(leaks_masked_name(item) or names_masked_node(item) for item in seen(exclude_variants=True))
    zh = seen(style=Chinese("varied", read_chinese_names("", EMBEDDED)))
    assert not any(leaks_masked_name(item) or names_masked_node(item) for item in zh)


def test_a_name_counts_as_separate_words_to_the_letter():
    rows = [("has a.b now", True), ("has aXb now", False), ("has xa.b now", False), ("has a.by now", False),
            ("a.b", True), ("(a.b)", True), ("has a.b, c", True), ("has a.b1", False), ("has -a.b-", True)]
    assert [has_words(text, "a.b") for text, _ in rows] == [found for _, found in rows]
