"""Laws of extras/analysis/calibration.py: by hand, at the extremes, and whatever the order of the items."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minifleming.extras.analysis.calibration import brier, ece, reliability, selective_accuracy

CONFIDENCE, RIGHT = np.array([0.15, 0.15, 0.95, 0.85, 0.0, 1.0]), np.array([0, 1, 1, 0, 0, 1.0])


def test_by_hand():
    """Bins: two at 0.15 (half right), 0.85 (wrong), 0.95 and 1.0 (right), 0.0 (wrong)."""
    assert ece(CONFIDENCE, RIGHT) == pytest.approx((2 * 0.35 + 0.85 + 2 * 0.025 + 0) / 6, abs=1e-12)
    gaps = [0.15, 0.85, 0.05, 0.85, 0.0, 0.0]
    assert brier(CONFIDENCE, RIGHT) == pytest.approx(sum(g * g for g in gaps) / 6, abs=1e-12)
    rows = reliability(CONFIDENCE, RIGHT)
    assert [row["n"] for row in rows] == [1, 2, 0, 0, 0, 0, 0, 0, 1, 2]
    assert rows[1] == {"low": 0.1, "high": 0.2, "n": 2, "confidence": pytest.approx(0.15), "accuracy": 0.5}
    assert rows[2]["confidence"] is None and rows[2]["accuracy"] is None


@pytest.mark.parametrize("tenths", range(11))
def test_a_bin_holds_its_upper_edge(tenths):
    place = [row["n"] for row in reliability([tenths / 10], [1])].index(1)
    assert place == max(0, tenths - 1)


def test_perfect_and_worst():
    rng = np.random.default_rng(0)
    right = (rng.random(500) < 0.5).astype(float)
    assert ece(right, right) == brier(right, right) == 0.0
    assert ece(1 - right, right) == brier(1 - right, right) == 1.0
    assert ece(np.full(500, right.mean()), right) == pytest.approx(0.0, abs=1e-12)


def test_the_order_of_the_items_and_the_empty_bins_do_not_matter():
    rng = np.random.default_rng(1)
    confidence, right = rng.integers(0, 9, size=400) / 8, (rng.random(400) < 0.6).astype(float)
    order = rng.permutation(400)
    for figure in (ece, brier, lambda c, r: selective_accuracy(c, r, 0.5), lambda c, r: selective_accuracy(c, r, 0.8)):
        assert figure(confidence, right) == pytest.approx(figure(confidence[order], right[order]), abs=1e-12)
        assert 0 <= figure(confidence, right) <= 1
    assert sum(row["n"] for row in reliability(confidence, right)) == 400


def test_selective_accuracy_is_the_mean_over_random_breaks_of_ties():
    confidence, right = np.array([0.9, 0.5, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0, 1.0])
    assert selective_accuracy(confidence, right, 0.2) == 1.0
    assert selective_accuracy(confidence, right, 0.4) == pytest.approx((1 + 1 / 3) / 2)
    assert selective_accuracy(confidence, right, 0.8) == pytest.approx(0.5)
    assert selective_accuracy(confidence, right, 1.0) == pytest.approx(right.mean())
    assert selective_accuracy(confidence, right, 0.01) == 1.0, "at least one item"
    assert selective_accuracy(np.linspace(0, 1, 10), np.arange(10) >= 7, 0.3) == 1.0, "0.3 of ten are three"
    assert selective_accuracy(np.linspace(0, 1, 100), np.arange(100) >= 72, 0.29) == pytest.approx(28 / 29), "29 of 100"


def test_without_items_and_out_of_bounds():
    nothing = np.array([])
    assert all(math.isnan(x) for x in (ece(nothing, nothing), brier(nothing, nothing),
                                       selective_accuracy(nothing, nothing, 0.5)))
    with pytest.raises(ValueError, match="outside"):
        reliability([1.2], [1])
    with pytest.raises(ValueError, match="coverage"):
        selective_accuracy(CONFIDENCE, RIGHT, 0.0)
