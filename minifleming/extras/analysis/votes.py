"""Several samples of each item: avg@k, pass@k and maj@k.

    [["B", "B", None, "C"], ...]    the labels of k samples of each item (None: unparsed)
    ["B", ...]                      the right labels

An unparsed sample is wrong: it counts in every denominator, and it has no vote. An item without a vote
is wrong.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from minifleming.extras.analysis import Analysis, calibration
from minifleming.rods import answer
from minifleming.rods.item import Item

Labels = Sequence[str | None]
HEADING = "Several samples"
COVERAGES = (0.5, 0.8)


def analyse(ask: Callable[[Path, list[Item], str], list[dict]], sets: Mapping[str, list[Item]],
            samples: int, out: Path) -> Analysis:
    """Asks all items with ``ask``, which draws this many samples."""
    rows = {}
    for name, items in sets.items():
        rows[name] = voted(ask(out / "samples" / f"{name}.jsonl", items, f"{name} x {samples}"))
    return Analysis("votes", HEADING, rows, markdown(rows))


def rights(samples: Sequence[Labels], answers: Sequence[str]) -> np.ndarray:
    """Returns the number of right samples of each item. int [items]"""
    return np.array([list(labels).count(gold) for labels, gold in zip(samples, answers, strict=True)])


def avg_at_k(samples: Sequence[Labels], answers: Sequence[str]) -> tuple[float, float, float]:
    """Returns the mean accuracy of a sample, and its standard errors from the items and from sampling.

    For n items with k samples and shares p_i of right ones, the squared standard error of the mean is
    var(p_i) / n (n - 1 in the variance). The part mean(p_i (1 - p_i) / (k - 1)) / n comes from sampling,
    unbiased; the rest comes from the items, and is 0 where chance makes it negative. nan if n or k is 1.
    """
    k = _equal_lengths(samples)
    p, n = rights(samples, answers) / k, len(samples)
    if n < 2 or k < 2:
        return float(p.mean()), math.nan, math.nan
    sampling = float((p * (1 - p)).sum()) / (k - 1) / n**2
    return float(p.mean()), math.sqrt(max(0.0, float(p.var(ddof=1)) / n - sampling)), math.sqrt(sampling)


def pass_at_k(samples: Sequence[Labels], answers: Sequence[str], k: int) -> float:
    """Returns the mean over items of the unbiased estimate (arXiv:2107.03374, Eq. 1)."""
    found = []
    for labels, right in zip(samples, rights(samples, answers)):
        found.append(answer.pass_at_k(len(labels), int(right), k))
    return float(np.mean(found))


def maj_at_k(samples: Sequence[Labels], answers: Sequence[str]) -> float:
    """Returns the accuracy of the vote of all k samples."""
    return float(np.mean(list(map(vote_credit, samples, answers))))


def vote_credit(labels: Labels, gold: str) -> float:
    """Returns 1/m if m labels tie for the most votes and the right one is among them, else 0."""
    votes = Counter(label for label in labels if label is not None)
    winners = [label for label, count in votes.items() if count == max(votes.values())]
    return 1 / len(winners) if gold in winners else 0.0


def confidences(samples: Sequence[Labels], answers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the winner's share of all samples, unparsed ones included, and its credit. [items] each"""
    top = []
    for labels in samples:
        votes = Counter(label for label in labels if label is not None)
        top.append(max(votes.values(), default=0) / len(labels))
    return np.array(top), np.array(list(map(vote_credit, samples, answers)))


def _equal_lengths(samples: Sequence[Labels]) -> int:
    lengths = {len(labels) for labels in samples}
    if len(lengths) != 1 or 0 in lengths:
        reason = f"every item needs equally many samples, at least one; found {sorted(lengths)}"
        raise ValueError(reason)
    return lengths.pop()


def voted(records: Sequence[dict]) -> dict:
    """Returns all figures of one benchmark. ``records``: the samples of an item follow each other."""
    samples: dict[str, list[str | None]] = {}
    gold = {}
    for record in records:
        samples.setdefault(record["item"], []).append(record["strict"])
        gold[record["item"]] = record["answer"]
    labels = list(samples.values())
    answers = list(gold.values())
    k = _equal_lengths(labels)
    mean, by_item, by_sample = avg_at_k(labels, answers)
    shares, credit = confidences(labels, answers)
    selective = {str(c): calibration.selective_accuracy(shares, credit, c) for c in COVERAGES}
    return {"n": len(labels), "k": k, "avg": mean, "error_of_items": by_item,
            "error_of_samples": by_sample, "pass": pass_at_k(labels, answers, k),
            "maj": maj_at_k(labels, answers), "ece": calibration.ece(shares, credit),
            "brier": calibration.brier(shares, credit), "selective": selective,
            "reliability": calibration.reliability(shares, credit)}


def markdown(rows: dict[str, dict]) -> str:
    lines = ["| benchmark | n | k | avg@k | pass@k | maj@k | ECE | Brier | maj@k of the surest 50 %, 80 % |",
             "|---|---|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        parts = f"± {100 * row['error_of_items']:.1f} ± {100 * row['error_of_samples']:.1f}"
        surest = ", ".join(f"{100 * row['selective'][str(c)]:.1f}" for c in COVERAGES)
        lines.append(f"| {name} | {row['n']} | {row['k']} | {100 * row['avg']:.1f} {parts} | "
                     f"{100 * row['pass']:.1f} | {100 * row['maj']:.1f} | {row['ece']:.3f} | "
                     f"{row['brier']:.3f} | {surest} |")
    return "\n".join([
        *lines, "",
        "In %; ±: standard error from the items, and from the sampling. An unparsed sample is wrong and "
        "has no vote; ties count in parts. Confidence: the winner's share of all samples."])
