"""Log-probabilities of completions under a model: the one definition that training shares with the sampler.

B rows, T tokens, N learned tokens of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minifleming.kernels.reference import token_logprobs
from minifleming.lm.batch import Batch, padded
from minifleming.lm.model import LanguageModel
from minifleming.lm.prefix import Completions, Prompts


def products(model: LanguageModel) -> torch.autocast:
    """Matrix products in ``model.compute`` over fp32 weights; sums and log-probabilities stay fp32. A sharded model
    gathers its weights in that dtype instead."""
    enabled = model.compute not in (None, torch.float32) and not model.sharded
    return torch.autocast(model.device.type, model.compute if enabled else torch.bfloat16, enabled=enabled)


def completion_logprobs(model: LanguageModel, batch: Batch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """log π(token | what stands before it) of every target, and the batch row that each belongs to.

    The head runs on the targets only: neither prompts nor padding reach the vocabulary. -> [N], [N]
    """
    ids, targets = batch.ids.to(model.device), batch.targets.to(model.device)
    rows, columns = targets[:, :-1].nonzero(as_tuple=True)
    with products(model):
        hidden = model(ids[:, :-1])  # the last token predicts nothing
        return next_logprobs(model, hidden[rows, columns], ids[rows, columns + 1], temperature), rows


def group_logprobs(model: LanguageModel, prompts: list[list[int]], owner: list[int], completions: list[list[int]],
                   temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The same for completions that share prompts: completion b follows ``prompts[owner[b]]``. -> [N], [N]

    Each prompt runs once (prefix.py). N counts the completions' tokens, completion after completion.
    """
    device = model.device
    prompt_ids, lengths = padded(prompts, device)
    ids, sizes = padded(completions, device)
    owners = torch.tensor(owner, device=device)
    read = Prompts(model.deterministic)
    positions = lengths[owners, None] + torch.arange(ids.shape[1], device=device)
    rows, columns = (torch.arange(ids.shape[1], device=device) < sizes[:, None]).nonzero(as_tuple=True)
    with products(model):
        first = model(prompt_ids, cache=read)[torch.arange(len(prompts), device=device), lengths - 1]  # [P, C]
        later = model(ids, positions, Completions(read, lengths, owners, ids.shape[1]))[:, :-1]  # [B, T - 1, C]
        first = first.index_select(0, owners)[:, None]  # [B, 1, C]
        hidden = torch.cat((first, later), dim=1)  # column t predicts token t of the completion
        return next_logprobs(model, hidden[rows, columns], ids[rows, columns], temperature), rows


def idle_logprobs(model: LanguageModel) -> Tensor:
    """Of a completion that nobody asked for: what a rank runs to keep step with the others (shard.py). -> [2]"""
    return group_logprobs(model, [[0]], [0], [[0, 0]])[0]


def next_logprobs(model: LanguageModel, hidden: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """log π(ids | hidden). hidden [N, C], ids [N] -> [N]"""
    logits = model.logits(hidden)  # [N, V]
    return model.by_rows(lambda z, i: token_logprobs(z, i[:, 0], temperature), logits, ids[:, None])
