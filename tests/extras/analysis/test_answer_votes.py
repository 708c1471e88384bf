"""Laws of extras/analysis/votes.py: every figure is computed a second way, by enumeration."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from minifleming.extras.analysis.votes import (
    avg_at_k,
    confidences,
    maj_at_k,
    markdown,
    pass_at_k,
    rights,
    vote_credit,
    voted,
)

LABELS = ("A", "B", None)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_a_vote_earns_what_breaking_its_ties_at_random_earns(k):
    """All samples of length k over two labels and "unparsed"; the winner is drawn among those with the most votes."""
    for labels in itertools.product(LABELS, repeat=k):
        votes = {label: labels.count(label) for label in "AB" if label in labels}
        winners = [label for label in votes if votes[label] == max(votes.values())]
        earned = Fraction(winners.count("A"), len(winners)) if winners else Fraction(0)
        assert vote_credit(labels, "A") == pytest.approx(float(earned))
        assert vote_credit(labels[::-1], "A") == vote_credit(labels, "A"), "no matter in which order"


def test_an_unparsed_sample_never_votes_and_always_counts():
    samples, answers = [["A", None, None, None]], ["A"]
    assert maj_at_k(samples, answers) == 1.0 and avg_at_k(samples, answers)[0] == 0.25
    assert pass_at_k(samples, answers, 1) == 0.25 and pass_at_k(samples, answers, 4) == 1.0
    assert maj_at_k([[None, None]], ["A"]) == 0.0
    assert confidences([["A", None, None, None], [None] * 4], ["A", "A"])[0].tolist() == [0.25, 0.0]
    assert rights([["A", None], ["B", "B"]], ["A", "B"]).tolist() == [1, 2]


def test_pass_at_k_is_the_mean_over_all_subsets():
    rng = np.random.default_rng(0)
    samples = [[LABELS[i] for i in rng.integers(3, size=6)] for _ in range(20)]
    for k in range(1, 7):
        brute = np.mean([np.mean([any(label == "A" for label in part) for part in itertools.combinations(labels, k)])
                         for labels in samples])
        assert pass_at_k(samples, ["A"] * 20, k) == pytest.approx(brute, abs=1e-12)


def test_one_sample_makes_all_three_the_accuracy():
    samples, answers = [["A"], ["B"], [None], ["A"]], ["A", "A", "A", "A"]
    assert avg_at_k(samples, answers)[0] == pass_at_k(samples, answers, 1) == maj_at_k(samples, answers) == 0.5
    assert all(map(math.isnan, avg_at_k(samples, answers)[1:]))


@pytest.mark.parametrize("spread", [0.0, 0.25])
def test_the_parts_of_the_error_are_those_of_a_simulation(spread):
    """Items' rates 0.5 - spread and 0.5 + spread, 30 items, 5 samples: known parts, whose sum is the error."""
    rng = np.random.default_rng(1)
    means, items, sampling = [], [], []
    for _ in range(3000):
        rates = 0.5 + spread * rng.choice([-1, 1], size=30)
        labels = [["A" if x else "B" for x in rng.random(5) < rate] for rate in rates]
        mean, by_item, by_sample = avg_at_k(labels, ["A"] * 30)
        means.append(mean)
        items.append(by_item**2)
        sampling.append(by_sample**2)
    true_sampling = (0.25 - spread**2) / 5 / 30
    assert np.mean(sampling) == pytest.approx(true_sampling, rel=0.03)
    assert np.var(means) == pytest.approx(true_sampling + spread**2 / 30, rel=0.1)
    if spread:
        assert np.mean(items) == pytest.approx(spread**2 / 30, rel=0.05)


@pytest.mark.parametrize("samples", [[["A"], ["A", "B"]], [[], []], []])
def test_items_without_equally_many_samples_have_no_average(samples):
    with pytest.raises(ValueError, match="equally many samples"):
        avg_at_k(samples, ["A"] * len(samples))


def test_confidence_is_the_share_of_the_winner_and_its_worth_the_vote():
    top, worth = confidences([["A", "A", "B", None], ["A", "B"], ["B", "B"]], ["A", "A", "A"])
    assert top.tolist() == [0.5, 0.5, 1.0] and worth.tolist() == [1.0, 0.5, 0.0]


def test_the_figures_of_a_benchmarks_records():
    samples = {"i1": ["A", "A", None, "B"], "i2": ["B", "A", "B", "A"], "i3": [None] * 4}
    records = [{"item": item, "sample": s, "strict": label, "answer": "A"}
               for item, labels in samples.items() for s, label in enumerate(labels)]
    row = voted(records)
    assert (row["n"], row["k"], row["avg"], row["pass"]) == (3, 4, pytest.approx(4 / 12), pytest.approx(2 / 3))
    assert row["maj"] == pytest.approx(0.5), "1, a half for the tie, 0"
    assert row["brier"] == pytest.approx((0.25 + 0 + 0) / 3) and row["selective"]["0.5"] == 0.75
    assert sum(part["n"] for part in row["reliability"]) == 3
    assert "| x | 3 | 4 | 33.3 ± " in markdown({"x": row}) and "| 66.7 | 50.0 |" in markdown({"x": row})
