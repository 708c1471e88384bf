"""Intervals and paired tests for accuracies, in numpy, and exact where exactness is cheap."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np


def wilson(right: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the Wilson score interval of a proportion (Wilson 1927). n = 0 gives (0, 1)."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = right / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, min(p, center - half)), min(1.0, max(p, center + half))  # despite rounding


def mcnemar(only_first: int, only_second: int) -> float:
    """Returns the p-value of the exact two-sided McNemar test (McNemar 1947).

    Args: items that only the first, and only the second, of two paired variants got right.
    """
    n = only_first + only_second
    tail = sum(math.comb(n, i) for i in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**n)


def holm(p_values: list[float]) -> list[float]:
    """Returns the p-values adjusted for several tests by Holm's step-down method (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def macro_interval(groups: list[np.ndarray], *, draws: int = 10_000, seed: int = 0,
                   confidence: float = 0.95) -> tuple[float, float, float]:
    """Returns the mean of the benchmarks' accuracies and its percentile bootstrap interval.

    Items are resampled within each benchmark: the number of correct items is binomial, so the draw
    is exact. If all or no items of a benchmark are correct, resampling shows no spread. Then the
    Wilson limits l_i, u_i of the accuracies p_i give the interval: mean(p) - sqrt(Σ (p_i - l_i)²)/m
    and mean(p) + sqrt(Σ (u_i - p_i)²)/m (Zou and Donner 2008).

    Args:
        groups: correct (1) or not (0) of each item, one array per benchmark, none empty.
    """
    rng = np.random.default_rng(seed)
    accuracies = [float(np.mean(group)) for group in groups]
    total = np.zeros(draws)
    for group, p in zip(groups, accuracies):
        total += rng.binomial(len(group), p, size=draws) / len(group)
    m = len(groups)
    mean = float(np.mean(accuracies))
    if all(0 < p < 1 for p in accuracies):
        tail = (1 - confidence) / 2
        low, high = np.quantile(total / m, [tail, 1 - tail])
        return mean, float(low), float(high)
    below, above = [], []
    for group, p in zip(groups, accuracies):
        low, high = wilson(int(np.sum(group)), len(group), confidence)
        below.append(p - low)
        above.append(high - p)
    return mean, max(0.0, mean - math.hypot(*below) / m), min(1.0, mean + math.hypot(*above) / m)
