"""Several samples of each item: avg@k, pass@k and maj@k, with one policy for what could not be read.

    [["B", "B", None, "C"], ...]   and   ["B", ...]      labels of k samples an item (None: unparsed), and its answer

An unparsed sample is a wrong sample: it counts in every denominator, and it has no vote. An item without a vote is
wrong.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from minifleming.extras.analysis import calibration
from minifleming.rods import answer

Labels = Sequence[str | None]
COVERAGES = (0.5, 0.8)


def rights(samples: Sequence[Labels], answers: Sequence[str]) -> np.ndarray:
    """Number of right samples of each item. int [items]"""
    return np.array([sum(label == gold for label in labels) for labels, gold in zip(samples, answers, strict=True)])


def avg_at_k(samples: Sequence[Labels], answers: Sequence[str]) -> tuple[float, float, float]:
    """Mean accuracy of a sample, and the two parts of its standard error: from the items drawn, and from the sampling.

    Of n items with k samples and the share p_i of right ones each, the squared standard error of the mean is
    var(p_i) / n (n - 1 in the variance). Of it, mean(p_i (1 - p_i) / (k - 1)) / n is the sampling's, unbiased; the
    rest is the items', set to 0 where chance makes it negative. nan where n or k is 1.
    """
    k = _equal_lengths(samples)
    p, n = rights(samples, answers) / k, len(samples)
    if n < 2 or k < 2:
        return float(p.mean()), math.nan, math.nan
    sampling = float((p * (1 - p)).sum()) / (k - 1) / n**2
    return float(p.mean()), math.sqrt(max(0.0, float(p.var(ddof=1)) / n - sampling)), math.sqrt(sampling)


def pass_at_k(samples: Sequence[Labels], answers: Sequence[str], k: int) -> float:
    """Mean over items of the unbiased estimate (arXiv:2107.03374, Eq. 1)."""
    return float(np.mean([answer.pass_at_k(len(labels), int(right), k)
                          for labels, right in zip(samples, rights(samples, answers))]))


def maj_at_k(samples: Sequence[Labels], answers: Sequence[str]) -> float:
    """Accuracy of the vote of all k samples; where m labels tie for the most votes, the right one earns 1/m."""
    return float(np.mean([share_of_win(labels, gold) for labels, gold in zip(samples, answers, strict=True)]))


def share_of_win(labels: Labels, gold: str) -> float:
    votes = Counter(label for label in labels if label is not None)
    winners = [label for label, count in votes.items() if count == max(votes.values())]
    return 1 / len(winners) if gold in winners else 0.0


def confidences(samples: Sequence[Labels], answers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Share of all samples, unparsed ones included, that voted for the winner; what the winner earns. [items] each"""
    top = [max(Counter(label for label in labels if label is not None).values(), default=0) / len(labels)
           for labels in samples]
    return np.array(top), np.array([share_of_win(labels, gold) for labels, gold in zip(samples, answers, strict=True)])


def _equal_lengths(samples: Sequence[Labels]) -> int:
    lengths = {len(labels) for labels in samples}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"every item needs the same number of samples, at least one; found {sorted(lengths)}")
    return lengths.pop()


def voted(records: Sequence[dict]) -> dict:
    """All figures of one benchmark's records, ``sample`` by ``sample`` of each item in a row."""
    samples: dict[str, list[str | None]] = {}
    for record in records:
        samples.setdefault(record["item"], []).append(record["strict"])
    gold = {record["item"]: record["answer"] for record in records}
    labels, answers = list(samples.values()), [gold[item] for item in samples]
    k = _equal_lengths(labels)
    mean, by_item, by_sample = avg_at_k(labels, answers)
    shares, worth = confidences(labels, answers)
    return {"n": len(labels), "k": k, "avg": mean, "error_of_items": by_item, "error_of_samples": by_sample,
            "pass": pass_at_k(labels, answers, k), "maj": maj_at_k(labels, answers),
            "ece": calibration.ece(shares, worth), "brier": calibration.brier(shares, worth),
            "selective": {str(c): calibration.selective_accuracy(shares, worth, c) for c in COVERAGES},
            "reliability": calibration.reliability(shares, worth)}


def markdown(rows: dict[str, dict]) -> str:
    lines = ["| benchmark | n | k | avg@k | pass@k | maj@k | ECE | Brier | maj@k of the surest 50 %, 80 % |",
             "|---|---|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        parts = f"± {100 * row['error_of_items']:.1f} ± {100 * row['error_of_samples']:.1f}"
        surest = ", ".join(f"{100 * row['selective'][str(c)]:.1f}" for c in COVERAGES)
        lines.append(f"| {name} | {row['n']} | {row['k']} | {100 * row['avg']:.1f} {parts} | {100 * row['pass']:.1f} | "
                     f"{100 * row['maj']:.1f} | {row['ece']:.3f} | {row['brier']:.3f} | {surest} |")
    return "\n".join([*lines, "", "In %; ±: standard error from the items, and from the sampling. An unparsed sample "
                      "is wrong and has no vote; ties count in parts. Confidence: the winner's share of all samples."])
