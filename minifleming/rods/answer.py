"""The one strict parser of completions, for the reward, the checks of traces and the grader.

    <think>reasoning</think><answer>C</answer>

Exactly one non-empty think block, then exactly one answer block with exactly one label of *this
item*, then the end token, and nothing else. ASCII white space is trimmed around the blocks and
around the label. Full-width letters, "C.", "(C)" and the option's text are wrong here (the
lenient grader reads them). Judged on the text of the sampled ids before the end token; a
completion without an end token is truncated, whatever it says.

Every check is linear in the length of the text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SPACE = " \t\r\n\f\v"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The label or None, the rule that decided, and the position of the label in the text."""

    label: str | None
    rule: str  # ok, truncated, think, answer, order, outside, empty_think, label
    span: tuple[int, int] = (0, 0)

    @property
    def formatted(self) -> bool:
        return self.rule == "ok"


def parse_strict(text: str, labels: str, finished: bool = True) -> Verdict:
    """Returns the verdict on a completion's text (without its end token) for these ``labels``."""
    if not finished:
        return Verdict(None, "truncated")
    for tag in TAGS:
        if text.count(tag) != 1:
            return Verdict(None, "think" if "think" in tag else "answer")
    at = [text.index(tag) for tag in TAGS]
    if at != sorted(at):
        return Verdict(None, "order")
    after = [i + len(tag) for i, tag in zip(at, TAGS)]
    outside = (text[: at[0]], text[after[1] : at[2]], text[after[3] :])
    if any(part.strip(SPACE) for part in outside):
        return Verdict(None, "outside")
    if not text[after[0] : at[1]].strip():
        return Verdict(None, "empty_think")
    body = text[after[2] : at[3]]
    label = body.strip(SPACE)
    if len(label) != 1 or label not in labels:
        return Verdict(None, "label")
    start = after[2] + body.index(label)
    return Verdict(label, "ok", (start, start + 1))


def reasoning_of(text: str) -> str:
    """Returns the text between the first <think> and the first </think> after it, or ''."""
    _, opened, rest = text.partition("<think>")
    inside, closed, _ = rest.partition("</think>")
    return inside if opened and closed else ""


def pass_at_k(n: int, right: int, k: int) -> float:
    """Returns the unbiased estimate of P(at least one of k samples is right).

    ``right`` of ``n`` samples are right:
    1 - C(n - right, k) / C(n, k), in exact integers (Chen et al. 2021, arXiv:2107.03374, Eq. 1).
    """
    if not (0 <= right <= n and 1 <= k <= n):
        raise ValueError(f"pass_at_k needs 0 <= right <= n and 1 <= k <= n, not {right}, {n}, {k}")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)
