"""[7/10] The reward: the answer is correct, the format is kept, and nothing else.

    r(x, y) = c · [label is correct] + f · [strict format]        arXiv:2509.15279 §3.3

with c = ``rl.reward_correct`` (1.0) and f = ``rl.reward_format`` (0.1). From the sampled ids to r:

    completion ids -> text before the end token -> Verdict(label, rule) -> {"correct", "format"} ->
    r

A label counts only in a completion that keeps the strict format, so r is 0, 0.1 or 1.1. Length has
no part in it, except that a completion cut off at ``rl.max_new_tokens`` has no end token, and so no
label.
"""

from __future__ import annotations

from minifleming.lm.tokenizer import Tokenizer
from minifleming.rods.answer import Verdict, parse_strict
from minifleming.run.fields import RL


def verify_answer(tokenizer: Tokenizer, ids: list[int], finished: bool, labels: str) -> Verdict:
    """Returns the strict parser's verdict on a completion.

    Args:
        ids: the sampled token ids, with the end token if there is one.
        finished: whether the last id is an end token.
        labels: the labels of the item's options, such as "ABCD".
    """
    if finished:
        ids = ids[:-1]
    return parse_strict(tokenizer.decode(ids), labels, finished)


def reward_terms(verdict: Verdict, answer: str, cfg: RL) -> dict[str, float]:
    """Returns the two terms of the reward of a completion. ``answer`` is the correct label."""
    return {
        "correct": cfg.reward_correct * (verdict.label == answer),
        "format": cfg.reward_format * verdict.formatted,
    }


def reward(verdict: Verdict, answer: str, cfg: RL) -> float:
    """Returns r(x, y), the sum of the terms."""
    return sum(reward_terms(verdict, answer, cfg).values())
