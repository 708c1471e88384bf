"""Intervals and paired tests for accuracies, in plain numpy and exact where exactness is cheap."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # Student's t, 0.975, 1..10 degrees


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
    """Mean of second - first with a bootstrap interval over seeds and items jointly: seeds are drawn, then for each
    drawn seed its own items, for every seed was tested on items of its own.

    Few seeds make it narrow: their spread is taken with n, not n - 1, and without Student's heavier tails;
    ``t_interval`` over the seeds' differences is the cautious companion.

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
        drawn = rng.integers(items, size=(seeds, items))
        means[i] = np.take_along_axis(delta[rng.integers(seeds, size=seeds)], drawn, axis=1).mean()
    tail = (1 - confidence) / 2
    return float(delta.mean()), *(float(q) for q in np.quantile(means, [tail, 1 - tail]))


def t_interval(differences: list[float]) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval of one figure per seed, for 2 to 11 seeds."""
    n = len(differences)
    if not 2 <= n <= len(T95) + 1:
        raise ValueError(f"t_interval needs 2 to {len(T95) + 1} figures, not {n}")
    mean, deviation = float(np.mean(differences)), float(np.std(differences, ddof=1))
    half = T95[n - 2] * deviation / math.sqrt(n)
    return mean, mean - half, mean + half
