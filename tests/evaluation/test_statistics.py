"""Tests of evaluation/statistics.py and the statistics of bench/tiny_seeds.py: each is computed a second way."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from bench.tiny_seeds import bootstrap_difference, t_interval
from minifleming.evaluation.statistics import holm, macro_interval, mcnemar, wilson

Z95 = NormalDist().inv_cdf(0.975)


def score_root(right: int, n: int, z: float, upper: bool) -> float:
    """The p at which |p_hat - p| = z sqrt(p (1 - p) / n), by bisection on one side of p_hat."""
    p_hat = right / n
    inner, outer = p_hat, 1.0 if upper else 0.0
    for _ in range(200):
        middle = (inner + outer) / 2
        if abs(p_hat - middle) < z * math.sqrt(middle * (1 - middle) / n):
            inner = middle
        else:
            outer = middle
    return (inner + outer) / 2


@pytest.mark.parametrize(("right", "n", "low", "high"), [
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)])
def test_wilson_gives_the_published_intervals(right, n, low, high):
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("n", [1, 2, 7, 50, 298, 1273])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_bounds_solve_the_score_equation(n, confidence):
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    for right in sorted({0, 1, n // 3, n // 2, n - 1, n}):
        low, high = wilson(right, n, confidence)
        assert low == pytest.approx(score_root(right, n, z, upper=False), abs=1e-9)
        assert high == pytest.approx(score_root(right, n, z, upper=True), abs=1e-9)


def test_wilson_has_closed_forms_at_its_ends_and_without_data():
    """0 of n: [0, z²/(n+z²)]; n of n its mirror image; no data: everything is possible."""
    for n in (1, 10, 500):
        edge = Z95**2 / (n + Z95**2)
        assert wilson(0, n) == pytest.approx((0.0, edge), abs=1e-12)
        assert wilson(n, n) == pytest.approx((1 - edge, 1.0), abs=1e-12)
    assert wilson(0, 0) == (0.0, 1.0)


def test_wilson_mirrors_holds_the_estimate_and_narrows():
    for right in range(41):
        low, high = wilson(right, 40)
        assert 0.0 <= low <= right / 40 <= high <= 1.0
        mirrored = wilson(40 - right, 40)
        assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-12)
        wide, more = wilson(right, 40, 0.99), wilson(10 * right, 400)
        assert wide[1] - wide[0] > high - low > more[1] - more[0]


def test_wilson_covers_about_as_often_as_it_says():
    """Exact coverage by enumeration of the binomial, averaged over p; single p may lie below (Brown et al. 2001)."""
    n, shares = 50, []
    for p in np.linspace(0.05, 0.95, 91):
        shares.append(sum(math.comb(n, r) * p**r * (1 - p) ** (n - r)
                          for r in range(n + 1) if wilson(r, n)[0] <= p <= wilson(r, n)[1]))
    assert 0.945 < np.mean(shares) < 0.96


def by_enumeration(b: int, c: int) -> float:
    """Two-sided exact p: the share of all 2^(b+c) equally likely splits that are at least as uneven."""
    n = b + c
    uneven = sum(abs(2 * sum(split) - n) >= abs(b - c) for split in itertools.product((0, 1), repeat=n))
    return uneven / 2**n


def test_mcnemar_equals_the_enumeration_of_all_splits():
    for b, c in itertools.product(range(7), repeat=2):
        assert mcnemar(b, c) == pytest.approx(by_enumeration(b, c), abs=1e-12), (b, c)


def test_mcnemar_known_values_symmetry_and_large_counts():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 10) == pytest.approx(2 / 1024)
    assert mcnemar(1, 5) == pytest.approx(7 / 32)  # 2 (1 + 6) / 64
    assert mcnemar(7, 7) == 1.0
    assert mcnemar(30, 12) == mcnemar(12, 30)
    assert 0 < mcnemar(1500, 1700) < 1e-3 < mcnemar(1590, 1610) <= 1.0  # no overflow at thousands of items
    assert mcnemar(0, 3000) == 0.0  # below the smallest double


def test_mcnemar_keeps_its_level_under_the_null():
    """P(p <= 0.05) under a fair split is at most 0.05: the test is exact, so conservative, never liberal."""
    for n in range(1, 60):
        level = sum(math.comb(n, b) for b in range(n + 1) if mcnemar(b, n - b) <= 0.05) / 2**n
        assert level <= 0.05


def test_holm_known_vectors():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.0001, 0.9, 0.012, 0.5]) == pytest.approx([0.0004, 1.0, 0.036, 1.0])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_rejects_what_the_step_down_rule_rejects():
    """Sorted p_(1) <= p_(2) <= ...: reject while p_(i) <= alpha / (m - i + 1), stop at the first failure."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = (rng.random(rng.integers(1, 9)) ** 3).tolist()
        rejected: set[int] = set()
        for place, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
            if p[i] > 0.05 / (len(p) - place):
                break
            rejected.add(i)
        assert {i for i, q in enumerate(holm(p)) if q <= 0.05} == rejected


def test_holm_keeps_order_and_stays_between_p_and_bonferroni():
    rng = np.random.default_rng(1)
    for _ in range(100):
        p = rng.random(6)
        adjusted = np.array(holm(p.tolist()))
        assert (adjusted >= p).all() and (adjusted <= np.minimum(1, 6 * p) + 1e-12).all()
        assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
        order = rng.permutation(6)
        assert holm(p[order].tolist()) == pytest.approx(adjusted[order].tolist())


def test_bootstrap_mean_is_exact_and_the_seed_decides():
    rng = np.random.default_rng(2)
    first, second = (rng.integers(0, 2, (3, 40)) for _ in range(2))
    found = bootstrap_difference(first, second, draws=500, seed=4)
    assert found[0] == (second - first).sum() / 120
    assert found == bootstrap_difference(first, second, draws=500, seed=4)
    assert found[1:] != bootstrap_difference(first, second, draws=500, seed=5)[1:]
    assert found[1] <= found[0] <= found[2]


@pytest.mark.slow
def test_bootstrap_takes_back_its_sign_and_knows_certainty():
    rng = np.random.default_rng(3)
    first, second = (rng.integers(0, 2, (2, 60)) for _ in range(2))
    mean, low, high = bootstrap_difference(first, second, draws=800)
    assert bootstrap_difference(second, first, draws=800) == pytest.approx((-mean, -high, -low))
    assert bootstrap_difference(first, first) == (0.0, 0.0, 0.0)
    ones = np.ones((2, 5))
    assert bootstrap_difference(ones * 0, ones, draws=50) == (1.0, 1.0, 1.0)
    narrow = bootstrap_difference(first, second, draws=800, confidence=0.5)
    assert low < narrow[1] < narrow[2] < high


def test_bootstrap_resamples_items():
    """One seed: the interval is the normal one, 2 · 1.96 · sd / sqrt(items), and not smaller by sqrt(draws)."""
    rng = np.random.default_rng(5)
    delta = rng.choice([-1.0, 0.0, 1.0], size=(1, 400), p=[0.15, 0.6, 0.25])
    _, low, high = bootstrap_difference(np.zeros_like(delta), delta, draws=4000)
    assert high - low == pytest.approx(2 * Z95 * delta.std() / 20, rel=0.06)


def test_bootstrap_resamples_seeds():
    """Every item alike, seeds different: all the width is the seeds' (items alone would give none)."""
    per_seed = np.linspace(-1, 1, 30)[:, None]
    delta = np.repeat(per_seed, 50, axis=1)
    _, low, high = bootstrap_difference(np.zeros_like(delta), delta, draws=4000)
    assert high - low == pytest.approx(2 * Z95 * per_seed.std() / math.sqrt(30), rel=0.08)


@pytest.mark.slow
def test_bootstrap_covers_a_known_difference():
    """Seeds, and items of each seed's own, have effects; the true 0.1 lies in about 95 % of the intervals, not 70."""
    rng, inside, trials = np.random.default_rng(6), 0, 150
    for _ in range(trials):
        items, seeds = rng.random((12, 80)), rng.normal(0, 0.03, (12, 1))
        first = rng.random((12, 80)) < 0.2 + 0.5 * items
        second = rng.random((12, 80)) < 0.3 + 0.5 * items + seeds
        _, low, high = bootstrap_difference(first, second, draws=250, seed=0)
        inside += low <= 0.1 <= high
    assert 0.9 <= inside / trials <= 1.0


def test_t_interval_of_a_known_vector_and_its_coverage():
    assert t_interval([1, 2, 3, 4, 5]) == pytest.approx((3, 3 - 1.96293, 3 + 1.96293), abs=1e-4)
    rng = np.random.default_rng(7)
    found = [t_interval(rng.normal(0.3, 1, 5).tolist()) for _ in range(2000)]
    assert 0.935 < np.mean([low <= 0.3 <= high for _, low, high in found]) < 0.965
    for bad in ([1.0], [0.0] * 12):
        with pytest.raises(ValueError, match="2 to 11"):
            t_interval(bad)


def test_the_macro_average_weighs_benchmarks_alike_and_redraws_within_them():
    small, large = np.array([1, 0, 0, 0] * 10), np.array([1, 1, 1, 0] * 1000)
    mean, low, high = macro_interval([small, large], draws=100_000)
    assert mean == pytest.approx(0.5)
    half = Z95 * math.sqrt(0.25 * 0.75 / 40 + 0.25 * 0.75 / 4000) / 2
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.013)


def test_a_benchmark_at_nought_or_a_hundred_leaves_the_macro_average_its_width():
    none, all_right, some = np.zeros(200), np.ones(50), np.array([1, 0, 0, 0] * 10)
    assert macro_interval([none]) == (0.0, 0.0, pytest.approx(wilson(0, 200)[1])), "of one benchmark: Wilson's"
    assert macro_interval([all_right]) == (1.0, pytest.approx(wilson(50, 50)[0]), 1.0)
    mean, low, high = macro_interval([none, some])
    u, (l, h) = wilson(0, 200)[1], wilson(10, 40)
    assert mean == pytest.approx(0.125)
    assert (low, high) == pytest.approx((0.125 - (0.25 - l) / 2, 0.125 + math.hypot(u, h - 0.25) / 2))
