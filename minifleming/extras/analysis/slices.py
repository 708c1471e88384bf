"""Accuracy by slices of the items: tier, hops, rarity, source, number of options, length of the answer.

    {"dimension": "hops", "slice": "2", "n": 512, "correct": 401, "accuracy": 0.783, "ci_low": 0.745,
     "ci_high": 0.817}

Each dimension splits all records, so the sizes of its slices sum to n. A slice of fewer than ``FEWEST``
items shows only its size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minifleming.evaluation.tables import accuracy_of

FEWEST = 30
DIMENSIONS = ("tier", "hops", "rarity", "source", "options", "tokens")
QUANTILES = {"rarity": 10, "tokens": 5}


def slices(records: Sequence[dict], confidence: float = 0.95) -> list[dict]:
    """Returns one row per slice; rarity is split in tenths, tokens (the answer's length) in fifths."""
    rows = []
    for dimension in DIMENSIONS:
        parts: dict[str, list[dict]] = {}
        for name, record in zip(_names(dimension, records), records):
            parts.setdefault(name, []).append(record)
        for name in sorted(parts, key=lambda name: (name == "none", name)):
            row = {"dimension": dimension, "slice": name, "n": len(parts[name])}
            if row["n"] >= FEWEST:
                row |= accuracy_of(parts[name], confidence)
            rows.append(row)
    return rows


def _names(dimension: str, records: Sequence[dict]) -> list[str]:
    values = [record.get(dimension) for record in records]
    if dimension not in QUANTILES:
        return [_name(value) for value in values]
    parts = QUANTILES[dimension]
    known = [value for value in values if value]
    if not known:
        return ["none"] * len(values)
    cuts = np.quantile(known, np.arange(1, parts) / parts, method="lower")
    names = []
    for value in values:  # equal values fall in one part: none is split
        part = int(np.searchsorted(cuts, value or 0, side="left")) + 1
        names.append(f"{part:02d} of {parts}" if value else "none")
    return names


def _name(value) -> str:
    if isinstance(value, int) and value:
        return f"{value:02d}"
    return str(value) if value else "none"
