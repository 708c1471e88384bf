"""[9/10] The update: from the groups of one step to new weights (arXiv:2509.15279 §3.3).

For each micro-batch, and then once for all of them:

    logprobs = packed_logprobs(model, pack)                        [M] tokens of its completions
    loss = aggregate(policy_loss(logprobs, old, advantage), ...)   global denominators
    loss.backward()
    optimizer_step(model, optimizer)                               sum over ranks, clip, AdamW

By default a step has one such update, so it is exactly on-policy: π_old is the policy itself and
every ratio is 1. With several (``rl.num_iterations``, ``rl.minibatches``), π_old is the *trainer's*
policy before the step; the sampler's log-probabilities are only compared with it.

Samples with zero advantage have zero gradient: without a KL term they skip both passes and still
count in every denominator. In every step the trainer's log-probabilities are compared with the
sampler's, and a number that is not finite stops the step before the weights change, on all ranks.

Shapes: M tokens of a micro-batch, B completions, T tokens of the longest one.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from minifleming.kernels.head import TokenLoss
from minifleming.lm.fsdp import activation_checkpointing, pad_batches_across_ranks
from minifleming.lm.model import LanguageModel
from minifleming.lm.optimizer import optimizer_step
from minifleming.lm.pack import dummy_forward, packed_logprobs, packed_loss
from minifleming.rlvr.objective import (
    GlobalCounts,
    aggregate,
    clipped,
    denominator,
    kl,
    objective_of,
    policy_loss,
)
from minifleming.rlvr.rollout import (
    Groups,
    Rollout,
    flatten,
    micro_batches,
    pad_to_rows,
    round_to_9_digits,
    set_logprobs,
    stored_rows,
)
from minifleming.run import distributed
from minifleming.run.errors import RunFailed
from minifleming.run.fields import RL


def update(model: LanguageModel, optimizer: torch.optim.Optimizer, groups: Groups, cfg: RL, *,
           reference: LanguageModel | None = None, key: tuple[int, ...] = (0, 0),
           fused: bool = False) -> dict:
    """Takes ``cfg.num_iterations`` · ``cfg.minibatches`` optimizer steps. Returns their metrics.

    Args:
        groups: this rank's groups.
        reference: the model of the KL term, needed if ``cfg.kl_coef`` is positive.
        key: seeds the order of the minibatches.
        fused: let the head compute the gradient where ``fused_loss_spec`` can describe the loss.

    Raises RunFailed on every rank, with the weights unchanged, if a reward, advantage,
    log-probability, loss or gradient is not finite, or if sampler and trainer differ by more than
    ``cfg.max_logprob_diff``.
    """
    device = model.device
    several = cfg.num_iterations * cfg.minibatches > 1
    trainable = []
    for group in groups:
        trainable.append([r for r in group if r.advantage != 0.0 or cfg.kl_coef > 0])
    with_gradient = sum(r.advantage != 0.0 for r in flatten(groups))
    prompts, with_gradient = map(int, distributed.all_sum([len(groups), with_gradient], device))
    with distributed.raise_on_all_ranks(device):
        check_rewards(groups)
        if cfg.kl_coef > 0:
            score(reference, trainable, cfg, "reference_logprobs")
        if not with_gradient and not cfg.kl_coef > 0:  # compare with the sampler on one group
            score(model, groups[:1], cfg, "trained_logprobs")
        elif several:
            score(model, trainable, cfg, "trained_logprobs")
    totals = []
    for number, chosen in enumerate(minibatches(prompts, cfg, key)):
        mine = [i for i in range(len(groups)) if global_index(i) in chosen]
        counts = count(groups, mine, cfg, device)
        optimizer.zero_grad(set_to_none=True)
        with distributed.raise_on_all_ranks(device), activation_checkpointing(
                model, cfg.activation_checkpointing):
            parts = backward(model, [trainable[i] for i in mine], cfg, counts,
                             number if several else None, fused)
        loss, low, high, divergence = distributed.all_sum(parts, device)
        if number == 0:
            difference = sampler_trainer_mismatch(groups, cfg, model)
        norm = 0.0
        if distributed.any_rank(any(trainable[i] for i in mine), device):
            norm = optimizer_step(model, optimizer, cfg.max_grad_norm, loss)
        totals.append((loss, norm, low, high, divergence))
    loss, norm, low, high, divergence = (math.fsum(column) / len(totals) for column in zip(*totals))
    metrics = {"loss": loss, "grad_norm": norm, "samples_with_gradient": with_gradient}
    metrics |= difference
    if objective_of(cfg).ratio != "none":
        metrics |= {"clipped_tokens_low": low, "clipped_tokens_high": high}
    if cfg.kl_coef > 0:
        metrics["kl"] = divergence
    return metrics


def minibatches(prompts: int, cfg: RL, key: tuple[int, ...]) -> list[set[int]]:
    """Returns the groups of each optimizer step, numbered over all ranks; each once an epoch."""
    chosen = []
    for epoch in range(cfg.num_iterations):
        order = np.random.default_rng([*key, epoch]).permutation(prompts).tolist()
        chosen += [set(order[m :: cfg.minibatches]) for m in range(cfg.minibatches)]
    return chosen


def global_index(i: int) -> int:
    """Returns the number of this rank's group ``i`` among those of all ranks."""
    return distributed.rank() + i * distributed.world_size()


def count(groups: Groups, mine: list[int], cfg: RL, device: torch.device) -> GlobalCounts:
    """Returns the global counts of an optimizer step on groups ``mine``; sets new denominators."""
    rollouts = flatten(map(groups.__getitem__, mine))
    tokens = sum(len(r.completion_ids) for r in rollouts)
    sequences, tokens = map(int, distributed.all_sum([len(rollouts), tokens], device))
    counts = GlobalCounts(sequences, tokens, cfg.max_new_tokens)
    for r in rollouts:
        r.denominator = r.denominator or loss_denominator(r, cfg, counts)
    return counts


def loss_denominator(r: Rollout, cfg: RL, counts: GlobalCounts) -> int:
    """Returns what each token of a sample is divided by."""
    mode = objective_of(cfg).aggregation
    length = len(r.completion_ids) if mode == "sequence_mean" else 1
    return denominator(mode, counts) * length


def backward(model: LanguageModel, groups: Groups, cfg: RL, counts: GlobalCounts,
             number: int | None, fused: bool = False) -> list[float]:
    """Computes the gradients of this rank's part of the loss.

    ``number``: which of the step's updates this is; None if it is the only one. Returns that part
    of the loss, the numbers of tokens clipped from below and above, and the part of the mean KL.
    """
    objective = objective_of(cfg)
    totals = [0.0, 0.0, 0.0, 0.0]
    finite = True
    batches = micro_batches(groups, cfg.micro_batch_tokens)
    for micro_batch in pad_batches_across_ranks(batches, model):
        if micro_batch is None:
            dummy_forward(model).sum().mul(0).backward()
            continue
        pack, rollouts = micro_batch
        spec = fused_loss_spec(rollouts, cfg, counts, number is None, model) if fused else None
        head_loss, flat = packed_loss(model, pack, spec, cfg.temperature)
        finite &= bool(flat.isfinite().all())
        flat = as_logged(flat)
        if number is None:  # on-policy: π_old is the policy itself
            set_logprobs(rollouts, flat.tolist(), "trained_logprobs")

        logprobs, mask = pad_to_rows(rollouts, flat)
        logprobs.requires_grad_().retain_grad()  # its gradient is the coefficient of the log
        old = stored_rows(rollouts, "trained_logprobs", model.device)
        advantage = torch.tensor([r.advantage for r in rollouts], dtype=torch.float64).to(old)
        values = policy_loss(logprobs, old, advantage, mask, objective)
        divergence = 0.0
        if cfg.kl_coef > 0:
            reference = stored_rows(rollouts, "reference_logprobs", model.device)
            estimate = kl(logprobs, reference, old, cfg.kl_estimator, cfg.kl_importance_weighted)
            values = values + cfg.kl_coef * estimate
            divergence = aggregate(estimate.detach(), mask, objective.aggregation, counts).item()
        loss = aggregate(values, mask, objective.aggregation, counts)
        loss.backward()
        if spec is not None:  # then ``flat`` has no gradient, and the head has one for the model
            head_loss.backward()

        low, high = clipped(logprobs.detach(), old, advantage, mask, objective)
        record_update(rollouts, logprobs, (low, high), cfg, counts, number)
        parts = (loss.item(), int(low.sum()), int(high.sum()), divergence)
        totals = [total + part for total, part in zip(totals, parts)]
    check_logprobs(finite)  # after the loop: the other ranks need this one in their collectives
    return totals


def fused_loss_spec(rollouts: list[Rollout], cfg: RL, counts: GlobalCounts, on_policy: bool,
                    model: LanguageModel) -> TokenLoss | None:
    """Returns the loss per token, for a head that computes its gradient while it holds the logits.

    Returns None if a token's gradient depends on other tokens' log-probabilities or on a reference,
    or if the head must compute exactly as the sampler does. The head works in fp32, so at the very
    edge of a clip it may differ from ``policy_loss``.
    """
    objective = objective_of(cfg)
    if cfg.kl_coef > 0 or model.batch_invariant:
        return None
    if objective.ratio == "sequence" and not on_policy:
        return None
    weight, advantage, old, coefficient = [], [], [], []
    for r in rollouts:
        n = len(r.completion_ids)
        share = 1 / loss_denominator(r, cfg, counts)
        weight += [share] * n
        advantage += [r.advantage] * n
        coefficient += [-(share * r.advantage)] * n
        old += r.trained_logprobs
    if on_policy or objective.ratio == "none":  # every ratio is 1, so dL/dlogπ = - A / denominator
        return TokenLoss("weighted", torch.tensor(coefficient, device=model.device))
    columns = [torch.tensor(column, device=model.device) for column in (weight, advantage, old)]
    return TokenLoss(objective.ratio, *columns, *objective.clip)


def sampler_trainer_mismatch(groups: Groups, cfg: RL, model: LanguageModel) -> dict[str, float]:
    """Returns the largest and mean |log π_sampler - log π_trainer| over the scored tokens.

    Raises RunFailed if the largest exceeds ``cfg.max_logprob_diff``.
    """
    limit = cfg.max_logprob_diff or (3.0 if model.compute_dtype == torch.bfloat16 else 1e-3)
    differences = logprob_differences(groups)
    largest = max(distributed.all_gather([max(differences, default=0.0)], model.device))
    total, tokens = distributed.all_sum([math.fsum(differences), len(differences)], model.device)
    if largest > limit:
        raise RunFailed(
            f"sampler and trainer disagree by {largest:.3g} in log-probability, more than "
            f"rl.max_logprob_diff {limit:.3g}: the update is refused")
    return {"logprob_diff_max": largest, "logprob_diff_mean": total / max(tokens, 1)}


def logprob_differences(groups: Groups) -> list[float]:
    """Returns |sampler - trainer| for each token that the trainer has scored."""
    differences = []
    for r in flatten(groups):
        differences += [abs(a - b) for a, b in zip(r.logprobs, r.trained_logprobs)]
    return differences


def score(model: LanguageModel, groups: Groups, cfg: RL, field: str) -> None:
    """Stores the model's log-probabilities of the rollouts under ``field``, without a gradient."""
    finite = True
    batches = micro_batches(groups, cfg.micro_batch_tokens)
    for micro_batch in pad_batches_across_ranks(batches, model):
        with torch.no_grad():
            if micro_batch is None:
                dummy_forward(model)
                continue
            pack, rollouts = micro_batch
            logprobs = packed_logprobs(model, pack, cfg.temperature)
        finite &= bool(logprobs.isfinite().all())
        set_logprobs(rollouts, round_to_9_digits(logprobs.tolist()), field)
    if model.sharded:
        model.reshard()  # the next optimizer step makes the gathered weights stale
    check_logprobs(finite)


def as_logged(logprobs: Tensor) -> Tensor:
    """Returns the nine-digit numbers of the log in fp64, with the gradient of ``logprobs``. [M]"""
    rounded = torch.tensor(round_to_9_digits(logprobs.tolist()), dtype=torch.float64)
    return rounded.to(logprobs.device) + (logprobs - logprobs.detach()).double()


def record_update(rollouts: list[Rollout], logprobs: Tensor, clips: tuple[Tensor, Tensor], cfg: RL,
                  counts: GlobalCounts, number: int | None) -> None:
    """Stores what the log says about this update of each sample. All tensors [B, T]."""
    low, high = (mask.sum(-1).tolist() for mask in clips)
    for i, r in enumerate(rollouts):
        n = len(r.completion_ids)
        coefficient = logprobs.grad[i, :n].tolist()
        if len(set(coefficient)) == 1:
            coefficient = coefficient[0]
        if not r.updates:
            r.coefficient = coefficient
        if number is not None:
            r.updates.append({
                "update": number, "logprobs": logprobs[i, :n].tolist(),
                "denominator": loss_denominator(r, cfg, counts), "coefficient": coefficient,
                "clipped": [low[i], high[i]]})


def check_rewards(groups: Groups) -> None:
    for r in flatten(groups):
        if not (math.isfinite(r.reward) and math.isfinite(r.advantage)):
            raise RunFailed("a reward or advantage is not finite: the update is refused")


def check_logprobs(finite: bool) -> None:
    if not finite:
        raise RunFailed("a log-probability is not finite: the update is refused")
