"""Intervals and paired tests for accuracies, in plain numpy and exact where exactness is cheap."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np


def wilson(right: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927). n = 0 gives (0, 1)."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))  # p lies inside, rounding or not


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact McNemar test: the binomial probability of a split at least as uneven (McNemar 1947).

    Args: items that only the first, and only the second, of two paired variants got right.
    """
    n = only_first + only_second
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, i) for i in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**n)


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjustment for several tests (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def bootstrap_difference(first: np.ndarray, second: np.ndarray, *, draws: int = 10_000, seed: int = 0,
                         confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of second - first with a bootstrap interval over seeds and items jointly.

    Args:
        first, second: right (1) or wrong (0) of each item under each seed, paired. [seeds, items]
    Returns:
        mean difference, lower and upper percentile bound.
    """
    delta = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    seeds, items = delta.shape
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for i in range(draws):
        rows = delta[rng.integers(seeds, size=seeds)]
        weights = np.bincount(rng.integers(items, size=items), minlength=items)
        means[i] = rows.mean(0) @ weights / items
    tail = (1 - confidence) / 2
    return float(delta.mean()), *(float(q) for q in np.quantile(means, [tail, 1 - tail]))
