"""The objective a second way, for the audit: plain Python over the logged numbers.

The loss of a token and its derivative by the token's log-probability p, with A the advantage, ρ =
exp(p - old) and d = reference - p:

    none           -A p                          -A
    token          -min(ρ A, clip(ρ) A)          -A ρ, or 0 where the ratio is clipped
    sequence       as token with s = exp(mean of p - old over the tokens) in place of ρ
    cispo_weight   -clip(ρ) A p                  -clip(ρ) A
    KL             β κ(d)                        k1: β, k2: -β d, k3: β (1 - exp d)
    weighted KL    β ρ κ(d)                      β ρ (κ + κ')
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from minifleming.rlvr.objective import GlobalCounts, Objective, objective_of
from minifleming.rlvr.rollout import Groups, Rollout
from minifleming.rlvr.update import logprob_differences, loss_denominator, minibatches
from minifleming.run.fields import RL


@dataclass
class Contribution:
    """What one sample added to one update, or all samples together."""

    loss: float = 0.0
    kl: float = 0.0
    clipped: list[int] = field(default_factory=lambda: [0, 0])  # tokens, below and above
    coefficient: list[float] = field(default_factory=list)


def sequence_contribution(r: Rollout, logprobs: list[float], cfg: RL,
                          counts: GlobalCounts) -> Contribution:
    """Returns a sample's contribution to an update under ``logprobs``, with π_old as logged."""
    objective = objective_of(cfg)
    divisor = loss_denominator(r, cfg, counts)
    logs = [p - old for p, old in zip(logprobs, r.trained_logprobs)]
    if objective.ratio == "sequence":
        logs = [math.fsum(logs) / len(logs)] * len(logs)
    found = Contribution()
    losses, kls = [], []
    for t, p in enumerate(logprobs):
        loss, slope, low, high = token_loss(p, math.exp(logs[t]), r.advantage, objective)
        if cfg.kl_coef > 0:
            value, kl_slope = kl_estimate(p, r.trained_logprobs[t], r.reference_logprobs[t], cfg)
            kls.append(value)
            loss += cfg.kl_coef * value
            slope += cfg.kl_coef * kl_slope
        losses.append(loss)
        found.coefficient.append(slope / divisor)
        found.clipped[0] += low
        found.clipped[1] += high
    found.loss = math.fsum(losses) / divisor
    found.kl = math.fsum(kls) / divisor
    return found


def token_loss(p: float, ratio: float, A: float,
               objective: Objective) -> tuple[float, float, bool, bool]:
    """Returns the loss, its derivative by p, and whether the ratio is clipped below and above."""
    if objective.ratio == "none":
        return -p * A, -A, False, False
    low = 1 - objective.clip[0]
    high = 1 + objective.clip[1]
    bounded = min(max(ratio, low), high)
    if objective.ratio == "cispo_weight":
        return -bounded * A * p, -bounded * A, ratio < low and A != 0, ratio > high and A != 0
    below = ratio < low and A < 0
    above = ratio > high and A > 0
    slope = 0.0 if below or above else -A * ratio
    return -min(ratio * A, bounded * A), slope, below, above


def kl_estimate(p: float, old: float, reference: float, cfg: RL) -> tuple[float, float]:
    """Returns the estimate of the KL term of a token and its derivative by p."""
    d = reference - p
    if cfg.kl_estimator == "k1":
        value, slope = -d, 1.0
    elif cfg.kl_estimator == "k2":
        value, slope = d * d / 2, -d
    else:
        value, slope = math.exp(d) - 1 - d, 1 - math.exp(d)
    if cfg.kl_importance_weighted:
        ratio = math.exp(p - old)
        return ratio * value, ratio * (value + slope)
    return value, slope


def recompute_update(groups: Groups, logged: list[list[dict]], cfg: RL,
                     key: tuple[int, ...]) -> dict:
    """Sets denominators, coefficients and updates of a step's samples from the log.

    Returns the metrics that follow from them: loss, logprob_diff_*, clipped_tokens_* and kl.
    """
    updates = cfg.num_iterations * cfg.minibatches
    totals: list[Contribution] = []
    for number, chosen in enumerate(minibatches(len(groups), cfg, key)):
        mine = [groups[i] for i in sorted(chosen)]
        tokens = sum(len(r.completion_ids) for r in sum(mine, []))
        counts = GlobalCounts(len(mine) * len(mine[0]), tokens, cfg.max_new_tokens)
        for i in sorted(chosen):
            for r, entry in zip(groups[i], logged[i]):
                r.denominator = r.denominator or loss_denominator(r, cfg, counts)
                if r.advantage == 0.0 and not cfg.kl_coef > 0:
                    continue
                logprobs = r.trained_logprobs
                if updates > 1:
                    logprobs = entry["updates"][len(r.updates)]["logprobs"]
                part = sequence_contribution(r, logprobs, cfg, counts)
                totals.append(part)
                if not r.updates:
                    r.coefficient = part.coefficient
                if updates > 1:
                    r.updates.append({
                        "update": number, "logprobs": logprobs,
                        "denominator": loss_denominator(r, cfg, counts),
                        "coefficient": part.coefficient, "clipped": part.clipped})
    loss = math.fsum(p.loss for p in totals) / updates
    low = sum(p.clipped[0] for p in totals) / updates
    high = sum(p.clipped[1] for p in totals) / updates
    divergence = math.fsum(p.kl for p in totals) / updates
    differences = logprob_differences(groups)
    metrics = {
        "loss": loss,
        "samples_with_gradient": sum(r.advantage != 0.0 for r in sum(groups, [])),
        "logprob_diff_max": max(differences, default=0.0),
        "logprob_diff_mean": math.fsum(differences) / max(len(differences), 1),
    }
    if objective_of(cfg).ratio != "none":
        metrics |= {"clipped_tokens_low": low, "clipped_tokens_high": high}
    if cfg.kl_coef > 0:
        metrics["kl"] = divergence
    return metrics
