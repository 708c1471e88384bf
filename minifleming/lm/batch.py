"""Batches: examples (prompt ids, completion ids) into batches of right-padded rows, within a token budget.

Rows of like length share a micro-batch, so that little is computed on padding. Attention is causal and padding
stands at the right, so a row's loss does not depend on its neighbours. Nothing is truncated: an example that
is longer than ``longest`` is dropped and counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of a prompt and of what is to follow it, its end token included."""

    prompt: list[int]
    completion: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class Batch:
    """B right-padded rows of T tokens. ``targets`` marks the positions whose *next* token is learned."""

    ids: Tensor  # [B, T]
    targets: Tensor  # [B, T] bool; column t stands for predicting ids[:, t + 1]
    rows: list[int]  # which examples these are


def drop_too_long(examples: list[Example], longest: int) -> tuple[list[Example], int]:
    """The examples of at most ``longest`` tokens, and the number dropped."""
    kept = [example for example in examples if len(example) <= longest]
    return kept, len(examples) - len(kept)


def micro_batches(examples: list[Example], tokens: int) -> list[Batch]:
    """Cover every example once, rows sorted by length, at most ``tokens`` padded tokens a batch (or one row)."""
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i]))
    batches: list[list[int]] = []
    for i in order:
        width = len(examples[batches[-1][0]]) if batches else 0
        if batches and (len(batches[-1]) + 1) * width <= tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return [collate([examples[i] for i in rows], rows) for rows in batches]


def collate(examples: list[Example], rows: list[int]) -> Batch:
    width = max(len(example) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.int64)
    targets = torch.zeros(len(examples), width, dtype=torch.bool)
    for row, mask, example in zip(ids, targets, examples):
        row[: len(example)] = torch.tensor(example.prompt + example.completion)
        mask[len(example.prompt) - 1 : len(example) - 1] = True
    return Batch(ids, targets, rows)


def padded(sequences: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Right-padded ids and lengths. -> [B, T], [B]"""
    lengths = [len(sequence) for sequence in sequences]
    ids = torch.zeros(len(sequences), max(lengths), dtype=torch.int64)
    for row, sequence in zip(ids, sequences):
        row[: len(sequence)] = torch.tensor(sequence)
    return ids.to(device), torch.tensor(lengths, device=device)


def last_places(ids: Tensor, lengths: Tensor) -> Tensor:
    """Where the last token of each row stands among all B·T. ids [B, T], lengths [B] -> [B]"""
    return torch.arange(len(ids), device=ids.device) * ids.shape[1] + lengths - 1
