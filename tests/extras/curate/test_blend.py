"""Tests for the blend: counts by ratio, and the items drawn."""

import copy
import random
from collections import Counter
from fractions import Fraction

from bank import item

from minifleming.extras.curate.blend import blend, largest_remainder, most

RATIOS = {"source": {"kg": Fraction(1), "medqa": Fraction(2)}, "tier": {"easy": Fraction(1), "difficult": Fraction(1)}}


def some(**counts):
    """some(kg_easy=3) -> three easy items of the source kg."""
    return [item(f"{name}-{i}", source=name.split("_")[0], tier=name.split("_")[1])
            for name, count in counts.items() for i in range(count)]


POOL = some(kg_easy=50, kg_difficult=50, medqa_easy=50, medqa_difficult=50, other_easy=20, kg_moderate=20)


def test_largest_remainders():
    for shares, n, counts in (([1, 1, 1], 10, [4, 3, 3]), ([2, 1], 10, [7, 3]), ([1], 5, [5]),
                              ([1, 2, 3], 0, [0, 0, 0]), ([5, 3, 1], 4, [2, 1, 1]),
                              ([1, 1], 1, [1, 0])):
        assert largest_remainder([Fraction(s) for s in shares], n) == counts


def test_largest_remainders_are_within_one_of_the_share_and_add_up():
    rng = random.Random(0)
    for _ in range(300):
        shares = [Fraction(rng.randint(1, 20)) for _ in range(rng.randint(1, 7))]
        n = rng.randint(0, 50)
        counts = largest_remainder(shares, n)
        assert sum(counts) == n and all(abs(c - s * n / sum(shares)) < 1 for c, s in zip(counts, shares))


def test_the_blend_has_the_ratios():
    kept, left, classes = blend(POOL, 60, RATIOS, 0)
    assert Counter((i.source, i.tier) for i in kept) == {("kg", "easy"): 10, ("kg", "difficult"): 10,
                                                         ("medqa", "easy"): 20, ("medqa", "difficult"): 20}
    assert classes == [
        (("kg", "easy"), 10, 50), (("kg", "difficult"), 10, 50), (("medqa", "easy"), 20, 50),
        (("medqa", "difficult"), 20, 50)]
    assert Counter(d.reason for d in left) == {"not drawn": 140, "its class has no share": 40}


def test_the_deficit_is_reported_and_no_item_is_repeated():
    pool = some(kg_easy=3, kg_difficult=50, medqa_easy=50)
    kept, _, classes = blend(pool, 60, RATIOS, 0)
    drawn = Counter((i.source, i.tier) for i in kept)
    assert drawn == {("kg", "easy"): 3, ("kg", "difficult"): 10, ("medqa", "easy"): 20}
    assert len({i.id for i in kept}) == len(kept) and sum(c.short for c in classes) == 7 + 20


def test_most_is_the_largest_size_without_a_deficit():
    for pool in (POOL, some(kg_easy=7, kg_difficult=9, medqa_easy=13, medqa_difficult=40)):
        n = most(pool, RATIOS)
        for count, short in ((n, False), (n + 1, True)):
            classes = blend(pool, count, RATIOS, 0)[2]
            assert any(c.short for c in classes) is short
    assert most(some(kg_easy=5), RATIOS) == 0


def test_the_draw_depends_only_on_seed_and_id():
    kept, _, _ = blend(POOL, 60, RATIOS, 0)
    shuffled = random.Random(1).sample(POOL, len(POOL))
    assert [i.id for i in blend(shuffled, 60, RATIOS, 0)[0]] == [i.id for i in kept]
    assert {i.id for i in blend(POOL, 60, RATIOS, 1)[0]} != {i.id for i in kept}
    assert {i.id for i in kept} <= {i.id for i in blend(POOL, 90, RATIOS, 0)[0]}
    easy = [i.tier for i in kept]
    assert easy != sorted(easy) and easy != sorted(easy, reverse=True)  # mixed, not class after class


def test_the_step_is_pure_and_keeps_all_items():
    pool = POOL[:]
    before = copy.deepcopy(pool)
    kept, left, _ = blend(pool, 61, RATIOS, 3)
    assert pool == before and Counter([i.id for i in kept] + [d.item.id for d in left]) == Counter(i.id for i in pool)
    assert kept[0].provenance["lineage"] == [{"step": "blend"}] and not any(d.quarantined for d in left)


def test_no_ratios_and_a_ratio_of_zero():
    assert len(blend(POOL, 17, {}, 0)[0]) == 17 and len(blend(POOL, 999, {}, 0)[0]) == len(POOL)
    none = {"tier": {"easy": Fraction(1), "difficult": Fraction(0)}}
    assert {i.tier for i in blend(POOL, 30, none, 0)[0]} == {"easy"} and most(POOL, none) == 120
