"""Tests for the paired bootstrap of extras/analysis/compare.py."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from minifleming.extras.analysis.compare import paired_bootstrap

Z95 = NormalDist().inv_cdf(0.975)


def test_a_paired_bootstrap_has_the_spread_of_its_closed_form():
    """The variance of a redrawn mean of won - lost is (q - d²) / n; its interval covers as often as it says."""
    rng = np.random.default_rng(0)
    first = (rng.random(800) < 0.5).astype(int)
    second = np.where(rng.random(800) < 0.2, 1 - first, first)
    mean, low, high = paired_bootstrap(first, second, draws=100_000)
    q, d = np.mean(first != second), np.mean(second - first)
    half = Z95 * math.sqrt((q - d * d) / 800)
    assert mean == pytest.approx(d) and (low, high) == pytest.approx((d - half, d + half), abs=0.0016)
    assert paired_bootstrap(first, first) == (0.0, 0.0, 0.0)
    swapped = paired_bootstrap(second, first, draws=100_000)
    assert (-swapped[0], -swapped[2], -swapped[1]) == pytest.approx((mean, low, high), abs=0.0016)
    assert paired_bootstrap(first, second, seed=3) == paired_bootstrap(first, second, seed=3)
    covered = 0
    for i in range(400):
        won, lost = rng.multinomial(300, [0.12, 0.08, 0.8])[:2]
        pair = np.zeros(300, int), np.zeros(300, int)
        pair[1][:won], pair[0][won : won + lost] = 1, 1
        _, low, high = paired_bootstrap(*pair, draws=2000, seed=i)
        covered += low <= 0.04 <= high
    assert 0.91 <= covered / 400 <= 0.985, "95 % within three sigma of 400 draws"
