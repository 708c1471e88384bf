"""The optimizer steps on the rollouts of one step: one, exactly on-policy, by default.

The loss is a function of the trained log-probabilities alone, so it is differentiated in two parts: dL/dlogπ of every
token, in fp64 for the log ("coefficient"), and these through the model, micro-batch by micro-batch. Where a token's
follows from itself alone (weigh.py) the head makes the second while the logits are there, in fp32: on the policy that
sampled from those very numbers, rounded; later by the same formula, so at the very edge of a clip the two may differ.

Sequences with zero advantage have zero gradient: without a KL term they skip the forward and backward pass, and stay in
every denominator. At every step the trainer's log-probabilities of what is trained on (or, where nothing is, of one
group a rank) are compared with those that the sampler recorded, and nothing that is not finite reaches the weights;
every rank decides alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from minifleming.lm.fsdp import activation_checkpointing, pad_batches_across_ranks, reshard
from minifleming.lm.model import LanguageModel
from minifleming.lm.optimizer import optimizer_step
from minifleming.lm.pack import Group, Pack, dummy_forward, pack_groups, packed_logprobs, packed_loss
from minifleming.rlvr.objective import Counts, objective_of
from minifleming.rlvr.rollout import Rollout, short
from minifleming.rlvr.weigh import Weighed, divisor_of, policy_of, weigh
from minifleming.run import distributed
from minifleming.run.errors import RunFailed
from minifleming.run.fields import RL

Groups = list[list[Rollout]]
MicroBatch = tuple[Pack, list[Rollout]]


def update(model: LanguageModel, optimizer: torch.optim.Optimizer, groups: Groups, cfg: RL, *, samples: int,
           prompts: int, reference: LanguageModel | None = None, key: tuple[int, ...] = (0, 0)) -> dict:
    """``cfg.num_iterations`` passes over this step's groups, ``cfg.minibatches`` optimizer steps each. Returns the figures.

    Args:
        groups: this rank's. prompts: the number of groups of all ranks. samples: k.
        reference: the model that the KL term is taken to, if ``cfg.kl_coef`` is positive.
        key: seeds the order of the minibatches.

    Raises RunFailed, on every rank and before the weights change, when a reward, advantage, log-probability, loss or
    gradient is not finite, or when sampler and trainer differ by more than ``cfg.max_logprob_diff``.
    """
    trained = [[r for r in group if r.advantage != 0.0 or cfg.kl_coef > 0] for group in groups]
    several = cfg.num_iterations * cfg.minibatches > 1
    count = int(distributed.all_sum([sum(r.advantage != 0.0 for group in groups for r in group)], model.device)[0])
    with distributed.raise_on_all_ranks(model.device):
        _finite((x for group in groups for r in group for x in (r.reward, r.advantage)), "reward or advantage")
        if cfg.kl_coef > 0:
            score(reference, trained, cfg, "reference")
        if several:
            score(model, trained, cfg, "trained")
        if not count and not cfg.kl_coef:  # nothing to train on: sampler and trainer are compared on one group all the same
            score(model, groups[:1], cfg, "trained")
    figures = []
    for number, chosen in enumerate(minibatches(prompts, cfg, key)):
        mine = [i for i in range(len(groups)) if distributed.rank() + i * distributed.world_size() in chosen]
        tokens, moves = distributed.all_sum([sum(len(r.ids) for i in mine for r in groups[i]),
                                          sum(len(trained[i]) for i in mine)], model.device)
        counts = Counts(samples * len(chosen), int(tokens), cfg.max_new_tokens)
        for r in (r for i in mine for r in groups[i] if not r.denominator):
            r.denominator = divisor_of(r, cfg, counts)
        optimizer.zero_grad(set_to_none=True)
        with distributed.raise_on_all_ranks(model.device), activation_checkpointing(model, cfg.activation_checkpointing):
            part = backward(model, [trained[i] for i in mine], cfg, counts, number if several else None)
        loss, low, high, divergence = distributed.all_sum(part, model.device)
        if number == 0:
            mismatch = measure(groups, cfg, model)
        norm = optimizer_step(model, optimizer, cfg.max_grad_norm, loss) if moves else 0.0
        figures.append((loss, norm, low, high, divergence))
    loss, norm, low, high, divergence = (math.fsum(column) / len(figures) for column in zip(*figures))
    found = {"loss": loss, "grad_norm": norm, "trained": count, **mismatch}
    if objective_of(cfg).ratio != "none":
        found |= {"clipped_low": low, "clipped_high": high}
    return found | ({"kl": divergence} if cfg.kl_coef > 0 else {})


def minibatches(prompts: int, cfg: RL, key: tuple[int, ...]) -> list[set[int]]:
    """Which groups (numbered over all ranks) each optimizer step of a step takes: each group once an epoch."""
    orders = [np.random.default_rng([*key, epoch]).permutation(prompts).tolist() for epoch in range(cfg.num_iterations)]
    return [set(order[m :: cfg.minibatches]) for order in orders for m in range(cfg.minibatches)]


def backward(model: LanguageModel, groups: Groups, cfg: RL, counts: Counts, number: int | None) -> list[float]:
    """Gradients of this rank's part of the loss. ``number``: of the update, where a step has several.

    Returns that part of the loss, the tokens clipped below and above, and the part of the mean KL.
    """
    total, finite, first = [0.0, 0.0, 0.0, 0.0], True, number is None
    for batch in pad_batches_across_ranks(micro_batches(groups, cfg.micro_batch_tokens), model):
        if batch is None:
            dummy_forward(model).sum().mul(0).backward()
            continue
        pack, rollouts = batch
        policy = policy_of(rollouts, cfg, counts, first, model)
        loss, logprobs = packed_loss(model, pack, policy, cfg.temperature)
        finite &= bool(logprobs.isfinite().all())
        flat = short(logprobs.tolist())
        if first:
            _store(rollouts, flat, "trained")
        found = weigh(rollouts, flat, cfg, counts, first, model.device)
        if policy:
            loss.backward()
        else:
            logprobs.backward(found.coefficient[found.mask].to(logprobs.dtype))
        _note(rollouts, flat, found, cfg, counts, number)
        total = [a + b for a, b in zip(total, (found.loss, int(found.low.sum()), int(found.high.sum()), found.kl))]
    _refuse_unless(finite)  # not before all ranks are through: a sharded model needs them all
    return total


def measure(groups: Groups, cfg: RL, model: LanguageModel) -> dict[str, float]:
    """|sampler - trainer| in log-probability, largest and mean over the tokens scored; refused beyond the limit."""
    device, limit = model.device, cfg.max_logprob_diff or (3.0 if model.compute_dtype == torch.bfloat16 else 1e-3)
    gaps = [gap for group in groups for r in group for gap in gaps_of(r.logprobs, r.trained)]
    largest = max(distributed.all_gather([max(gaps, default=0.0)], device))
    total, count = distributed.all_sum([math.fsum(gaps), len(gaps)], device)
    if largest > limit:
        raise RunFailed(f"sampler and trainer disagree by {largest:.3g} in log-probability, more than "
                        f"rl.max_logprob_diff {limit:.3g}: the update is refused")
    return {"mismatch": largest, "mismatch_mean": total / max(count, 1)}


def gaps_of(logprobs: list[float], trained: list[float]) -> list[float]:
    return [abs(a - b) for a, b in zip(logprobs, trained)]


def score(model: LanguageModel, groups: Groups, cfg: RL, field: str) -> None:
    """Store the model's log-probabilities of the rollouts under ``field``, without a gradient."""
    finite = True
    for batch in pad_batches_across_ranks(micro_batches(groups, cfg.micro_batch_tokens), model):
        with torch.no_grad():
            logprobs = packed_logprobs(model, batch[0], cfg.temperature)[0] if batch else dummy_forward(model)
        if batch:
            finite &= bool(logprobs.isfinite().all())
            _store(batch[1], short(logprobs.tolist()), field)
    reshard(model)
    _refuse_unless(finite)


def micro_batches(groups: Groups, tokens: int) -> list[MicroBatch]:
    """Packs of whole groups of at most ``tokens`` tokens (or one completion), and the rollouts of each in its order; a
    group that is longer is cut, and its prompt runs with every part."""
    parts = [part for group in groups if group for part in cut(group, tokens)]
    made = pack_groups([Group(part[0].prompt_ids, [r.ids for r in part]) for part in parts], tokens)
    return [(pack, [r for i in pack.group_ids for r in parts[i]]) for pack in made]


def cut(group: list[Rollout], tokens: int) -> Groups:
    """A group in parts that fit into ``tokens``, or have one completion."""
    parts: Groups = []
    room = 0
    for r in group:
        if not parts or room < len(r.ids) - 1:
            parts.append([])
            room = tokens - len(r.prompt_ids)
        parts[-1].append(r)
        room -= len(r.ids) - 1
    return parts


def _store(rollouts: list[Rollout], flat: list[float], field: str) -> None:
    for r, part in zip(rollouts, _split(rollouts, flat)):
        setattr(r, field, part)


def _split(rollouts: list[Rollout], flat: list[float]) -> Iterator[list[float]]:
    at = 0
    for r in rollouts:
        yield flat[at : at + len(r.ids)]
        at += len(r.ids)


def _note(rollouts: list[Rollout], flat: list[float], found: Weighed, cfg: RL, counts: Counts,
          number: int | None) -> None:
    """Keep for the log what each sample weighed in this update."""
    lows, highs = found.low.sum(-1).tolist(), found.high.sum(-1).tolist()
    weights = found.coefficient[found.mask].tolist()
    for i, (r, own, logprobs) in enumerate(zip(rollouts, _split(rollouts, weights), _split(rollouts, flat))):
        coefficient = own[0] if len(set(own)) == 1 else own
        if not r.updates:
            r.coefficient = coefficient
        if number is not None:
            r.updates.append({"update": number, "logprobs": logprobs, "denominator": divisor_of(r, cfg, counts),
                              "coefficient": coefficient, "clipped": [lows[i], highs[i]]})


def _refuse_unless(finite: bool) -> None:
    if not finite:
        raise RunFailed("a log-probability is not finite: the update is refused")


def _finite(values: Iterator[float], what: str) -> None:
    if not all(math.isfinite(value) for value in values):
        raise RunFailed(f"a {what} is not finite: the update is refused")
