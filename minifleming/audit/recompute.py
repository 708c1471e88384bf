"""The objective a second way, for the audit: plain Python over the logged numbers of one step, no tensors, no autograd.

What a token adds to the loss, and that value's derivative by its log-probability p (A the advantage, ρ = exp(p - old)):

    none       -A p                          -A
    token      -min(ρ A, clip(ρ) A)          -A ρ, or 0 where the clip acts
    sequence   the same with s = exp(mean of p - old over the tokens), over all of them together: -A s, or 0
    cispo_weight  -clip(ρ) A p                  -clip(ρ) A
    KL         β κ(d), d = reference - p     k1: β, k2: -β d, k3: β (1 - exp d); weighted by ρ: β ρ (κ + κ')
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from minifleming.rlvr.objective import Counts, Objective, objective_of
from minifleming.rlvr.rollout import Rollout
from minifleming.rlvr.update import gaps_of, minibatches
from minifleming.rlvr.weigh import divisor_of
from minifleming.run.fields import RL


@dataclass
class Share:
    """What one sample added to one update."""

    loss: float
    coefficient: list[float]
    clipped: list[int]
    divergence: float
    divisor: int


def share(r: Rollout, logprobs: list[float], old: list[float], cfg: RL, counts: Counts) -> Share:
    """A sample's part of an update whose counts these are, under ``logprobs``."""
    objective, n = objective_of(cfg), len(logprobs)
    logs = [p - q for p, q in zip(logprobs, old)]
    if objective.ratio == "sequence":
        logs = [math.fsum(logs) / n] * n
    divisor = divisor_of(r, cfg, counts)
    found = [_token(p, math.exp(log), r.advantage, objective) for p, log in zip(logprobs, logs)]
    extra = [(0.0, 0.0)] * n
    if cfg.kl_coef > 0:
        extra = [_divergence(p, q, reference, cfg) for p, q, reference in zip(logprobs, old, r.reference)]
    return Share(
        math.fsum(v + cfg.kl_coef * k for (v, *_), (k, _) in zip(found, extra)) / divisor,
        [(slope + cfg.kl_coef * bend) / divisor for (_, slope, *_), (_, bend) in zip(found, extra)],
        [sum(token[2] for token in found), sum(token[3] for token in found)],
        math.fsum(k for k, _ in extra) / divisor, divisor)


def _token(p: float, ratio: float, A: float, objective: Objective) -> tuple[float, float, bool, bool]:
    """Value, derivative, clipped below, clipped above."""
    if objective.ratio == "none":
        return -p * A, -A, False, False
    low, high = 1 - objective.clip[0], 1 + objective.clip[1]
    bounded = min(max(ratio, low), high)
    if objective.ratio == "cispo_weight":
        return -bounded * A * p, -bounded * A, ratio < low and A != 0, ratio > high and A != 0
    below, above = ratio < low and A < 0, ratio > high and A > 0
    return -min(ratio * A, bounded * A), 0.0 if below or above else -A * ratio, below, above


def _divergence(p: float, old: float, reference: float, cfg: RL) -> tuple[float, float]:
    d = reference - p
    value, slope = {"k1": (-d, 1.0), "k2": (d * d / 2, -d), "k3": (math.exp(d) - 1 - d, 1 - math.exp(d))}[
        cfg.kl_estimator]
    if cfg.kl_importance_weighted:
        ratio = math.exp(p - old)
        return ratio * value, ratio * (value + slope)
    return value, slope


def weigh(groups: list[list[Rollout]], logged: list[list[dict]], cfg: RL, key: tuple[int, ...]) -> dict:
    """Set denominators, coefficients and updates of all samples of a step from their log-probabilities in the log.

    Returns the figures that follow: loss, mismatch, and where there are such, what was clipped and the KL.
    """
    several = cfg.num_iterations * cfg.minibatches > 1
    totals = []
    for number, chosen in enumerate(minibatches(len(groups), cfg, key)):
        counts = Counts(len(groups[0]) * len(chosen), sum(len(r.ids) for i in chosen for r in groups[i]),
                        cfg.max_new_tokens)
        shares = []
        for i in sorted(chosen):
            for r, entry in zip(groups[i], logged[i]):
                r.denominator = r.denominator or divisor_of(r, cfg, counts)
                if r.advantage == 0.0 and not cfg.kl_coef > 0:
                    continue
                logprobs = entry["updates"][len(r.updates)]["logprobs"] if several else r.trained
                part = share(r, logprobs, r.trained, cfg, counts)
                shares.append(part)
                if not r.updates:
                    r.coefficient = part.coefficient
                if several:
                    r.updates.append({"update": number, "logprobs": logprobs, "denominator": part.divisor,
                                      "coefficient": part.coefficient, "clipped": part.clipped})
        totals.append([math.fsum(s.loss for s in shares), sum(s.clipped[0] for s in shares),
                       sum(s.clipped[1] for s in shares), math.fsum(s.divergence for s in shares)])
    loss, low, high, divergence = (math.fsum(column) / len(totals) for column in zip(*totals))
    gaps = [gap for group in groups for r in group for gap in gaps_of(r.logprobs, r.trained)]
    found = {"loss": loss, "trained": sum(r.advantage != 0.0 for group in groups for r in group),
             "mismatch": max(gaps, default=0.0), "mismatch_mean": math.fsum(gaps) / max(len(gaps), 1)}
    if objective_of(cfg).ratio != "none":
        found |= {"clipped_low": low, "clipped_high": high}
    return found | ({"kl": divergence} if cfg.kl_coef > 0 else {})
