"""Log-probabilities from right-padded rows, one row per completion: the reference for packed rows.

B rows, T tokens, M learned tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minifleming.lm.model import LanguageModel
from minifleming.lm.pack import Example


@dataclass(frozen=True)
class Batch:
    ids: Tensor  # [B, T]
    targets: Tensor  # [B, T] bool, true at t if ids[:, t + 1] is learned


def collate(examples: list[Example]) -> Batch:
    width = max(len(example) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.int64)
    targets = torch.zeros(len(examples), width, dtype=torch.bool)
    for row, mask, example in zip(ids, targets, examples):
        row[: len(example)] = torch.tensor(example.prompt + example.completion)
        mask[len(example.prompt) - 1 : len(example) - 1] = True
    return Batch(ids, targets)


def completion_logprobs(model: LanguageModel, batch: Batch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """log π of each learned token, and its row. -> [M], [M]"""
    rows, columns = batch.targets[:, :-1].nonzero(as_tuple=True)
    positions = rows * (batch.ids.shape[1] - 1) + columns
    hidden = model(batch.ids[:, :-1], output_positions=positions)
    return model.logprobs(hidden, batch.ids[rows, columns + 1], temperature), rows
