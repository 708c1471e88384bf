"""Accuracy by slices of the items: tier, hops, rarity, source, number of options, length of the answer.

    {"dimension": "hops", "slice": "2", "n": 512, "correct": 401, "accuracy": 0.783, "ci_low": 0.745, "ci_high": 0.817}

Each dimension parts all records: the sizes of its slices sum to n. Slices of fewer than ``FEWEST`` items show their
size alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from minifleming.evaluation.statistics import wilson

FEWEST = 30
DIMENSIONS = ("tier", "hops", "rarity", "source", "options", "tokens")


def slices(records: Sequence[dict], right: Callable[[dict], bool], confidence: float = 0.95) -> list[dict]:
    """A row a slice, dimension by dimension; of rarity deciles, of tokens (the answer's length) fifths."""
    rows = []
    for dimension in DIMENSIONS:
        names = _names(dimension, records)
        sizes, correct = Counter(names), Counter(name for name, r in zip(names, records) if right(r))
        for name in sorted(sizes, key=lambda name: (name == "none", name)):
            n, k = sizes[name], correct[name]
            row = {"dimension": dimension, "slice": name, "n": n}
            if n >= FEWEST:
                low, high = wilson(k, n, confidence)
                row |= {"correct": k, "accuracy": k / n, "ci_low": low, "ci_high": high}
            rows.append(row)
    return rows


def _names(dimension: str, records: Sequence[dict]) -> list[str]:
    values = [record.get(dimension) for record in records]
    if dimension in ("rarity", "tokens"):
        parts = 10 if dimension == "rarity" else 5
        known = [value for value in values if value]
        cuts = np.quantile(known, [i / parts for i in range(1, parts)], method="lower") if known else []
        return [f"{int(np.searchsorted(cuts, value, side='left')) + 1:02d} of {parts}" if value else "none"
                for value in values]  # equal values fall in one part: none is split
    return [f"{value:02d}" if isinstance(value, int) and value else str(value) if value else "none"
            for value in values]
