"""Tests for duplicates: near items against all pairs, exact copies, and label conflicts."""

import copy
import dataclasses
import itertools
from fractions import Fraction

import numpy as np
import pytest
from bank import CAUSES, bank, item
from planting import plant, reordered

from minifleming.extras.curate.duplicates import (
    duplicates_step,
    features,
    greedy,
    prefix_length,
    similarities,
)
from minifleming.extras.curate.text import answer_key

THRESHOLDS = [Fraction(t) for t in ("0.3", "0.5", "0.65", "0.8", "0.95", "1")]


def pool(seed):
    """Many near pairs: a bank, light edits of it, and edits of the edits."""
    base = bank(40, seed)
    twice = plant(plant(base, seed), seed + 1, twice=True)
    items = [*base, *plant(base, seed + 2), *twice]
    return [dataclasses.replace(i, id=f"p{n}") for n, i in enumerate(items)]


def brute(sets, threshold, same):
    """All pairs, by the definition, in floating-point-free arithmetic of its own."""
    kept, found = [], []
    for i, a in enumerate(sets):
        match = None
        for j in kept:
            b = sets[j]
            pairs = [(len(x & y), len(x | y)) for x, y in zip(a, b)]
            if same(i, j) and all(Fraction(both, either) >= threshold for both, either in pairs):
                match = j
                break
        found.append(match)
        if match is None:
            kept.append(i)
    return found


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("seed", range(3))
def test_greedy_equals_a_comparison_of_all_pairs(threshold, seed):
    sets = [features(i) for i in pool(seed)]
    for same in (lambda a, b: True, lambda a, b: (a + b) % 2 == 0):
        found = greedy(sets, threshold, same)
        assert found == brute(sets, threshold, same)
    assert any(m is not None for m in greedy(sets, threshold, lambda a, b: True))


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_greedy_on_random_sets_at_the_threshold(threshold):
    """Small sets over few features: similarities fall on the threshold all the time."""
    rng = np.random.default_rng(7)
    def some():
        return frozenset((str(x),) for x in rng.choice(9, int(rng.integers(1, 8)), replace=False))
    sets = [(some(), some()) for _ in range(300)]
    assert greedy(sets, threshold, lambda a, b: True) == brute(sets, threshold, lambda a, b: True)


def test_prefix_lengths_and_similarities_are_exact():
    assert [prefix_length(n, Fraction(4, 5)) for n in (1, 5, 10, 15, 35)] == [1, 2, 3, 4, 8]
    a = frozenset("abcd"), frozenset("x")
    b = frozenset("abcde"), frozenset("y")
    assert similarities(a, b) == [Fraction(4, 5), 0]


def test_the_first_copy_is_kept_and_reported():
    a = item("a", options=("Iron", "Zinc", "Tin"), answer="A")
    b = item("b", question="which VITAMIN is missing in scurvy", options=("tin", "Iron.", "zinc"), answer="B")
    for first, second in ((a, b), (b, a)):
        kept, left = duplicates_step([first, item("c", question="What else?"), second])
        assert [i.id for i in kept] == [first.id, "c"] and left[0].item.id == second.id
        assert (left[0].reason, left[0].evidence, left[0].quarantined) == ("exact duplicate", {"of": first.id}, False)


LONG = "A sailor of forty has had bleeding gums and loose teeth for three months at sea , which vitamin is missing ?"


def test_near_duplicates_need_question_options_and_answer():
    a = item("a", LONG)
    near_one = item("b", LONG.replace("three", "four"))
    kept, left = duplicates_step([a, near_one])
    assert [d.reason for d in left] == ["near duplicate"] and left[0].evidence["of"] == "a"
    similarity = left[0].evidence["similarity"]
    assert 0.8 <= similarity["question"] < 1 and similarity["options"] == 1
    assert duplicates_step([a, item("b", LONG.replace("three", "four"), answer="B")])[1] == []
    other = ("Vitamin C", "Copper", "Selenium", "Biotin")
    assert duplicates_step([a, item("b", LONG, other)])[1] == []  # the same stem, other options
    assert duplicates_step([a, near_one], near=Fraction("0.95"))[1] == []


def test_the_same_stem_with_other_options_is_no_duplicate():
    rng = np.random.default_rng(0)
    items = [item(str(i), "Which of the following is true?", [CAUSES[k] for k in rng.choice(16, 4, replace=False)])
             for i in range(30)]
    seen = {frozenset(i.options.values()) for i in items}
    assert len(seen) == 30 and all(d.quarantined is False for d in duplicates_step(items)[1])
    sets = [features(i)[1] for i in items]
    close = {j for i, j in itertools.combinations(range(30), 2) if 5 * len(sets[i] & sets[j]) >= 4 * len(sets[i] | sets[j])}
    assert {int(d.item.id) for d in duplicates_step(items)[1]} <= close


def test_contradicting_labels_all_go_to_quarantine_with_the_evidence():
    a, b, c = item("a"), item("b", answer="B"), item("c")
    kept, left = duplicates_step([a, item("x", question="What else?"), b, c])
    assert [i.id for i in kept] == ["x"] and [d.item.id for d in left] == ["a", "b", "c"]
    assert all(d.quarantined and d.reason == "label conflict" for d in left)
    assert left[0].evidence == {"answers": {"a": "Vitamin C", "b": "Vitamin D", "c": "Vitamin C"}}


def test_a_reordered_copy_with_the_same_answer_is_no_conflict():
    a = item("a")
    b = dataclasses.replace(reordered(a, np.random.default_rng(3)), id="b")
    assert b.answer != a.answer and b.options[b.answer] == a.options[a.answer]
    assert [d.reason for d in duplicates_step([a, b])[1]] == ["exact duplicate"]


def test_the_step_is_pure_keeps_all_items_and_the_order_and_is_idempotent():
    items = pool(5)
    before = copy.deepcopy(items)
    kept, left = duplicates_step(items)
    assert items == before and sorted([i.id for i in kept] + [d.item.id for d in left]) == sorted(i.id for i in items)
    order = [i.id for i in items]
    assert [i.id for i in kept] == [n for n in order if n in {i.id for i in kept}]
    assert [d.item.id for d in left] == [n for n in order if n in {d.item.id for d in left}]
    assert duplicates_step(kept)[1] == [] and all(i.provenance["lineage"][-1] == {"step": "duplicates"} for i in kept)
    names = {i.id for i in kept}
    assert all(d.evidence["of"] in names for d in left if not d.quarantined)
    assert all(answer_key(i) for i in kept)
