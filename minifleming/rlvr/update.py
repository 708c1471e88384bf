"""One optimizer step of Eq. 1 on the rollouts of a step, and the figures that describe it.

Sequences with zero advantage have zero gradient: they skip the forward and backward pass, and stay in the
denominator. The log-probabilities of the others are compared with those that the sampler recorded.
"""

from __future__ import annotations

import math

import torch

from minifleming.lm.model import LanguageModel
from minifleming.lm.score import group_logprobs, row_sums
from minifleming.rlvr.objective import policy_loss
from minifleming.rlvr.rollout import Rollout
from minifleming.run import parallel
from minifleming.run.errors import RunFailed
from minifleming.run.fields import RL


def update(model: LanguageModel, optimizer: torch.optim.Optimizer, groups: list[list[Rollout]], cfg: RL, *,
           samples: int, prompts: int) -> dict[str, float]:
    """Backward over the micro-batches, sum over the ranks, clip, step. Returns loss, norm and mismatch.

    ``prompts`` counts the groups of all ranks. A non-finite loss or gradient stops the run before the step.
    """
    live = [[r for r in group if r.advantage != 0.0] for group in groups]
    optimizer.zero_grad(set_to_none=True)
    loss, mismatch = 0.0, 0.0
    for batch in whole_groups([group for group in live if group], cfg.micro_batch_tokens):
        chosen = [rollout for group in batch for rollout in group]
        owner = [i for i, group in enumerate(batch) for _ in group]
        logprobs, rows = group_logprobs(model, [group[0].prompt_ids for group in batch], owner,
                                        [r.ids for r in chosen], cfg.temperature)
        recorded = torch.tensor([p for r in chosen for p in r.logprobs], device=logprobs.device)
        mismatch = max(mismatch, (logprobs.detach() - recorded).abs().max().item())
        advantage = torch.tensor([r.advantage for r in chosen], dtype=torch.float32, device=logprobs.device)
        part = policy_loss(row_sums(logprobs, rows, len(chosen)), advantage, samples, prompts)
        part.backward()
        loss += part.item()
    loss, count = parallel.all_sum([loss, sum(map(len, live))], model.device)
    mismatch = max(parallel.all_gather([mismatch], model.device))
    if mismatch > cfg.mismatch_limit:
        raise RunFailed(f"sampler and trainer disagree by {mismatch:.3g} in log-probability, more than "
                        f"rl.mismatch_limit {cfg.mismatch_limit:.3g}")
    parameters = list(model.parameters())
    norm = 0.0
    if count:
        parallel.sum_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, cfg.max_grad_norm).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise RunFailed(f"loss {loss}, gradient norm {norm}: the step is refused")
        optimizer.step()
    return {"loss": loss, "grad_norm": norm, "mismatch": mismatch, "trained": int(count)}


def whole_groups(groups: list[list[Rollout]], tokens: int) -> list[list[list[Rollout]]]:
    """Micro-batches of whole groups, of like length, of at most ``tokens`` padded tokens (or one group)."""
    def cost(batch: list[list[Rollout]]) -> int:
        rows = sum(len(group) for group in batch)
        return len(batch) * max(len(group[0].prompt_ids) for group in batch) + rows * max(
            len(r.ids) for group in batch for r in group)

    batches: list[list[list[Rollout]]] = []
    for group in sorted(groups, key=lambda group: -max(len(r.ids) for r in group)):
        if batches and cost([*batches[-1], group]) <= tokens:
            batches[-1].append(group)
        else:
            batches.append([group])
    return batches


def describe(groups: list[list[Rollout]], device: torch.device) -> dict[str, float]:
    """Reward, accuracy, sparsity, lengths and entropy of a step: sums and counts over all ranks, then divided."""
    all_rollouts = [rollout for group in groups for rollout in group]
    sums = parallel.all_sum([
        len(groups),
        sum(max(r.reward for r in g) == min(r.reward for r in g) for g in groups),
        sum(all(r.right for r in g) for g in groups),
        sum(not any(r.right for r in g) for g in groups),
        len(all_rollouts),
        sum(r.reward for r in all_rollouts),
        sum(r.right for r in all_rollouts),
        sum(r.verdict.formatted for r in all_rollouts),
        sum(r.finished for r in all_rollouts),
        sum(len(r.ids) for r in all_rollouts),
        -sum(sum(r.logprobs) for r in all_rollouts),
    ], device)
    prompts, constant, all_right, all_wrong, count, reward, right, formatted, finished, tokens, surprise = sums
    return {"prompts": int(prompts), "sparsity": constant / prompts, "all_right": all_right / prompts,
            "all_wrong": all_wrong / prompts, "reward": reward / count, "accuracy": right / count,
            "format": formatted / count, "finished": finished / count, "length": tokens / count,
            "entropy": surprise / tokens}
