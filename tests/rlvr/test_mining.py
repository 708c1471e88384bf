"""Pools, decks and the plateau rule (trap T42 among them)."""

from __future__ import annotations

from collections import Counter

import pytest

from minifleming.rlvr.curriculum import State, plateau_reason, tier_pools
from minifleming.rlvr.mining import ShuffledCycle, apportion_counts, classify, mine
from minifleming.run.fields import Mining, Stage1
from tests.rlvr.conftest import colour_items


def test_classes_by_pass_rate():
    cfg = Mining(failed_below=0.25, mastered_above=0.75)
    assert [classify(p / 4, cfg) for p in range(5)] == ["wrong", "wrong", "middle", "right", "right"]


def test_mine_sorts_every_item_once_and_quarantines_after_two_rounds_at_zero():
    cfg = Mining(samples=4, quarantine_after=2)
    passes = {"a": 0, "b": 1, "c": 2, "d": 4}
    pools, streaks = mine(passes, {}, cfg)
    assert pools == {"right": ["d"], "middle": ["c"], "wrong": ["a", "b"], "quarantine": []}
    pools, streaks = mine(passes | {"b": 0}, streaks, cfg)
    assert pools["quarantine"] == ["a"] and pools["wrong"] == ["b"] and streaks == {"a": 2, "b": 1}
    pools, streaks = mine(passes | {"a": 3, "b": 0, "c": 0}, streaks, cfg)
    assert pools["quarantine"] == ["b"] and pools["right"] == ["a", "d"], "a right sample ends the streak"


def test_quarantine_takes_at_most_half_of_the_wrong_the_longest_streaks_first():
    cfg = Mining(samples=4, quarantine_after=2)
    passes, streaks = dict.fromkeys("abcde", 0) | {"f": 4}, {"a": 1, "b": 5, "c": 3, "d": 1, "e": 1}
    pools, after = mine(passes, streaks, cfg)
    assert pools == {"right": ["f"], "middle": [], "wrong": ["a", "d", "e"], "quarantine": ["b", "c"]}
    assert after == {"a": 2, "b": 6, "c": 4, "d": 2, "e": 2}, "who stays keeps the streak"
    assert mine({"a": 0}, {"a": 9}, cfg)[0]["wrong"] == ["a"], "a pool is never emptied"


@pytest.mark.parametrize("total", [1, 2, 3, 7, 16])
def test_T42_one_to_two_is_exact_over_time(total):
    weights, sizes = {"right": 1, "wrong": 2}, {"right": 1000, "wrong": 1000, "middle": 1000}
    dealt = Counter()
    for step in range(30):
        counts = apportion_counts(total, weights, sizes, step)
        assert sum(counts.values()) == total
        dealt.update(counts)
        assert abs(dealt["right"] - total * (step + 1) / 3) <= 0.5 + 1e-9
    assert dealt["middle"] == 0 and dealt["wrong"] == 2 * dealt["right"]


def test_T42_a_small_class_gives_all_it_has_and_the_others_fill_up():
    counts = apportion_counts(12, {"right": 1, "wrong": 2}, {"right": 50, "wrong": 3, "middle": 5}, 0)
    assert counts["wrong"] == 3 and sum(counts.values()) == 12
    assert apportion_counts(12, {"right": 1, "wrong": 2}, {"right": 2, "wrong": 1}, 0) == {"right": 2, "wrong": 1}


def test_T42_decks_starve_nobody_and_deal_no_card_twice_in_a_hand():
    deck = ShuffledCycle([f"i{n}" for n in range(7)], [1, 2])
    dealt = []
    for _ in range(7):
        hand = deck.next(3)
        assert len(set(hand)) == 3
        dealt += hand
    counts = Counter(dealt)
    assert set(counts) == set(deck.ids) and max(counts.values()) - min(counts.values()) <= 1


def test_T42_a_resumed_deck_goes_on():
    whole = ShuffledCycle([f"i{n}" for n in range(10)], [5])
    hands = [whole.next(4) for _ in range(5)]
    resumed = ShuffledCycle([f"i{n}" for n in range(10)], [5], 0)
    for hand in hands:
        resumed = ShuffledCycle(resumed.ids, resumed.key, resumed.position)
        assert resumed.next(4) == hand


def test_tier_pools_and_the_fig2_preset():
    items = colour_items(9)
    assert {k: len(v) for k, v in tier_pools(items, ["moderate", "easy"]).items()} == {"moderate": 3, "easy": 3}
    assert {k: len(v) for k, v in tier_pools(items, ["fig2"]).items()} == {"moderate+difficult": 6, "easy": 3}


def test_plateau_is_reward_sparsity_within_bounds():
    cfg = Stage1(min_steps=5, max_steps=50, plateau_threshold=0.5, window=3)
    assert plateau_reason(State(step=4, zero_variance=[0.9] * 4), cfg) is None, "not before min_steps"
    assert plateau_reason(State(step=6, zero_variance=[0.9] * 3), cfg) == "sparsity"
    assert plateau_reason(State(step=20, zero_variance=[0.1, 0.9, 0.4]), cfg) is None
    assert plateau_reason(State(step=50, zero_variance=[0.0] * 3), cfg) == "max_steps"
