"""Log-probabilities of completions under a model: the one definition that training shares with the sampler.

B rows, T tokens, N learned tokens of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minifleming.kernels.head import TokenLoss, linear_logprobs, linear_policy_loss
from minifleming.kernels.reference import token_logprobs
from minifleming.lm.batch import Batch
from minifleming.lm.model import LanguageModel


def autocast_for(model: LanguageModel) -> torch.autocast:
    """Matrix products in ``model.compute_dtype`` over fp32 weights; sums and log-probabilities stay fp32. A sharded model
    gathers its weights in that dtype instead."""
    enabled = model.compute_dtype not in (None, torch.float32) and not model.sharded
    return torch.autocast(model.device.type, model.compute_dtype if enabled else torch.bfloat16, enabled=enabled)


def completion_logprobs(model: LanguageModel, batch: Batch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """log π(token | what stands before it) of every target, and the batch row that each belongs to.

    The head runs on the targets only: neither prompts nor padding reach the vocabulary. -> [N], [N]
    """
    ids, targets = batch.ids.to(model.device), batch.targets.to(model.device)
    rows, columns = targets[:, :-1].nonzero(as_tuple=True)
    with autocast_for(model):
        hidden = model(ids[:, :-1], output_positions=rows * (ids.shape[1] - 1) + columns)  # the last token predicts nothing
        return token_logprobs_from_hidden(model, hidden, ids[rows, columns + 1], temperature), rows


def token_logprobs_from_hidden(model: LanguageModel, hidden: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """log π(ids | hidden), a chunk of logits at a time. hidden [N, C], ids [N] -> [N]"""
    if model.deterministic:
        logits = model.logits(hidden)  # [N, V]
        return model.by_rows(lambda z, i: token_logprobs(z, i[:, 0], temperature), logits, ids[:, None])
    return linear_logprobs(hidden.to(model.compute_dtype or hidden.dtype), model.lm_head.weight, ids, temperature)


def policy_loss_from_hidden(model: LanguageModel, hidden: Tensor, ids: Tensor, policy: TokenLoss,
              temperature: float) -> tuple[Tensor, Tensor]:
    """(the policy's loss, whose gradient is made at once; log π(ids | hidden), without one). -> scalar, [N]"""
    hidden = hidden.to(model.compute_dtype or hidden.dtype)
    return linear_policy_loss(hidden, model.lm_head.weight, ids, policy, temperature)[:2]
