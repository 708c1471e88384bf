"""Is a share of votes what it seems: does 70 % of the votes mean 70 % right?

    confidence [0.5, 0.7, 1.0], right [0, 1, 1]  ->  ECE, Brier score, a reliability table, selective accuracy

``right`` may be a fraction (votes.py: a tie). Nothing here depends on the order of the items.
"""

from __future__ import annotations

import math

import numpy as np

BINS = 10


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[dict]:
    """One row a bin of equal width, (low, high], the first with its 0: number of items, mean confidence, accuracy.

    The means of an empty bin are None.
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    if not np.all((confidence >= 0) & (confidence <= 1)):
        raise ValueError("a confidence lies outside [0, 1]")
    edges = np.arange(1, bins) / bins  # 0.3 as 3 / 10, as a share of votes is made
    place = np.searchsorted(edges, confidence, side="left")
    rows = []
    for i in range(bins):
        here = place == i
        n = int(here.sum())
        rows.append({"low": i / bins, "high": (i + 1) / bins, "n": n,
                     "confidence": float(confidence[here].mean()) if n else None,
                     "accuracy": float(right[here].mean()) if n else None})
    return rows


def ece(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: the bins' |confidence - accuracy|, weighted by their items (arXiv:1706.04599, Eq. 3).

    nan without items.
    """
    rows = [row for row in reliability(confidence, right, bins) if row["n"]]
    total = sum(row["n"] for row in rows)
    return sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / total if total else math.nan


def brier(confidence: np.ndarray, right: np.ndarray) -> float:
    """Mean squared difference of confidence and correctness of the chosen label (Brier 1950); nan without items."""
    gap = np.asarray(confidence, np.float64) - np.asarray(right, np.float64)
    return float((gap * gap).mean()) if len(gap) else math.nan


def selective_accuracy(confidence: np.ndarray, right: np.ndarray, coverage: float) -> float:
    """Accuracy of the most confident share ``coverage`` of the items, at least one; nan without items.

    Where the cut falls among equally confident items, they count with their mean: what a random choice gives.
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    if not 0 < coverage <= 1:
        raise ValueError(f"a coverage lies in (0, 1], not {coverage}")
    if not len(confidence):
        return math.nan
    kept = max(1, math.floor(coverage * len(confidence) + 1e-9))
    cut = np.sort(confidence)[::-1][kept - 1]
    above, at = confidence > cut, confidence == cut
    return float((right[above].sum() + (kept - above.sum()) * right[at].mean()) / kept)
