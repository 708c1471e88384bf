"""The reward (arXiv:2509.15279 §3.3): the answer is right, the format is kept, and nothing else.

    r(x, y) = correct · [label is right] + format · [strict format]        1.0 and 0.1 by default

Correctness counts only from a strictly parsed answer, so r is 0, 0.1 or 1.1. Length has no part in it.
"""

from __future__ import annotations

from minifleming.rods.answer import Verdict
from minifleming.run.fields import RL


def terms(verdict: Verdict, answer: str, cfg: RL) -> dict[str, float]:
    """The two parts of the reward of one completion, given the strict parser's verdict and the right label."""
    return {"correct": cfg.reward_correct * (verdict.label == answer), "format": cfg.reward_format * verdict.formatted}


def reward(verdict: Verdict, answer: str, cfg: RL) -> float:
    return sum(terms(verdict, answer, cfg).values())
