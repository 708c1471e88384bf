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


def paired_bootstrap(first: np.ndarray, second: np.ndarray, *, draws: int = 10_000, seed: int = 0,
                     confidence: float = 0.95) -> tuple[float, float, float]:
    """Difference of two checkpoints on the same items, second - first, with its percentile interval (Efron 1979).

    Items are redrawn with their pair. Of 0/1 values only the numbers of won and lost items matter, and these are
    multinomial in a redraw: the draw is exact, and takes no memory per item.

    Args:
        first, second: right (1) or wrong (0) of each item. [items], at least one
    """
    delta = np.asarray(second, np.int64) - np.asarray(first, np.int64)
    n, won, lost = len(delta), int((delta > 0).sum()), int((delta < 0).sum())
    counts = np.random.default_rng(seed).multinomial(n, [won / n, lost / n, (n - won - lost) / n], size=draws)
    tail = (1 - confidence) / 2
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, [tail, 1 - tail])
    return float(delta.mean()), float(low), float(high)


def macro_interval(groups: list[np.ndarray], *, draws: int = 10_000, seed: int = 0, confidence: float = 0.95
                   ) -> tuple[float, float, float]:
    """Mean of the benchmarks' accuracies with its percentile interval; items are redrawn within each benchmark.

    Of 0/1 values the number of right ones in a redraw is binomial: the draw is exact. Where no item of a benchmark is
    right, or all are, redraws never differ, and the interval would be too narrow: then it is made of the Wilson limits
    l_i, u_i of the p_i instead, mean(p) - sqrt(sum (p_i - l_i)^2) / m and so on (Zou and Donner 2008, "MOVER").

    Args:
        groups: right (1) or wrong (0) of each item, one array a benchmark, none empty.
    """
    rng, total, p = np.random.default_rng(seed), np.zeros(draws), [float(np.mean(group)) for group in groups]
    for group, share in zip(groups, p):
        total += rng.binomial(len(group), share, size=draws) / len(group)
    mean, tail = float(np.mean(p)), (1 - confidence) / 2
    if not any(share in (0, 1) for share in p):
        low, high = np.quantile(total / len(groups), [tail, 1 - tail])
        return mean, float(low), float(high)
    limits = [wilson(int(np.sum(group)), len(group), confidence) for group in groups]
    below, above = (math.hypot(*(share - limit[side] for share, limit in zip(p, limits))) for side in (0, 1))
    return mean, max(0.0, mean - below / len(p)), min(1.0, mean + above / len(p))


def detectable_difference(n: int, discordant: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest difference of two accuracies on the same n items that McNemar's test finds with this power.

        d = (z_(1-alpha/2) sqrt(q) + z_power sqrt(q - d^2)) / sqrt(n)        q: share of discordant items

    The normal approximation of Connor (Biometrics 43, 1987) without continuity correction, solved for d; the exact test
    needs a little more. nan where even d = q, every discordant item won, is not found.
    """
    if n <= 0 or not 0 < discordant <= 1:
        raise ValueError(f"detectable_difference needs items and a share of discordant ones, not {n} and {discordant}")
    z, b = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    # d sqrt(n) - z sqrt(q) = b sqrt(q - d^2), squared: (n + b^2) d^2 - 2 z sqrt(n q) d + (z^2 - b^2) q = 0
    half = z * math.sqrt(n * discordant)
    d = (half + math.sqrt(half * half - (n + b * b) * (z * z - b * b) * discordant)) / (n + b * b) \
        if half * half >= (n + b * b) * (z * z - b * b) * discordant else math.nan
    return d if d <= discordant else math.nan
