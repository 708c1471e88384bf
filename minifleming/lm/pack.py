"""Packing without padding: several documents in one row, and no document sees another.

    tokens    a a a a b b b c        one row of N tokens, at most a budget of them
    positions 0 1 2 3 0 1 2 0        each document starts at 0
    attention causal within a, within b, within c

Everything but attention works token by token, so it runs over the whole row at once; attention runs over one document
(or several of one length) at a time. Nothing of one document enters the arithmetic of another: perturb one, and the
log-probabilities of the others keep their bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from minifleming.lm.batch import Example
from minifleming.lm.model import LanguageModel, causal_attention
from minifleming.lm.score import next_logprobs, products


@dataclass(frozen=True)
class Pack:
    """N tokens of whole documents, one after the other, the longest first."""

    ids: Tensor  # [1, N]
    positions: Tensor  # [1, N]
    targets: Tensor  # [1, N] bool; column t stands for predicting ids[:, t + 1]
    lengths: list[int]
    rows: list[int]  # which examples these are


class Documents:
    """Attention within each document of a pack (see model.KeysAndValues)."""

    def __init__(self, lengths: list[int], deterministic: bool = False):
        self.runs = [(length, len(list(same))) for length, same in groupby(lengths)]
        self.deterministic = deterministic

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [1, H, N, D]; k, v [1, K, N, D] -> [1, H, N, D]"""
        outputs, start = [], 0
        for length, count in self.runs:
            q_, k_, v_ = (documents(x[0, :, start : start + length * count], count) for x in (q, k, v))
            y = causal_attention(q_, k_, v_, self.deterministic)  # [count, H, length, D]
            outputs.append(y.transpose(0, 1).flatten(1, 2))
            start += length * count
        return torch.cat(outputs, dim=1)[None]


def documents(x: Tensor, count: int) -> Tensor:
    """[heads, count * length, D] -> [count, heads, length, D]"""
    return x.unflatten(1, (count, -1)).transpose(0, 1)


def packs(examples: list[Example], tokens: int) -> list[Pack]:
    """Every example once: the longest first, each into the first pack that has room in its ``tokens``.

    An example longer than ``tokens`` has a pack of its own: nothing is cut.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(examples)), key=lambda i: -len(examples[i])):
        at = next((b for b, left in enumerate(room) if left >= len(examples[i])), len(bins))
        if at == len(bins):
            bins.append([])
            room.append(tokens)
        bins[at].append(i)
        room[at] -= len(examples[i])
    return [pack([examples[i] for i in rows], rows) for rows in bins]


def pack(examples: list[Example], rows: list[int]) -> Pack:
    ids, positions, targets = [], [], []
    for example in examples:
        ids += example.prompt + example.completion
        positions += range(len(example))
        targets += [len(example.prompt) - 1 <= t < len(example) - 1 for t in range(len(example))]
    return Pack(torch.tensor([ids]), torch.tensor([positions]), torch.tensor([targets]),
                [len(example) for example in examples], rows)


def packed_logprobs(model: LanguageModel, pack: Pack, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """log π(token | what stands before it in its document) of every target, and the document of each. -> [T], [T]

    As ``score.completion_logprobs`` of the same examples in padded rows, in another order.
    """
    device = model.device
    ids, at = pack.ids.to(device), pack.targets[0].nonzero()[:, 0].to(device)
    owner = torch.arange(len(pack.lengths)).repeat_interleave(torch.tensor(pack.lengths)).to(device)
    with products(model):
        hidden = model(ids, pack.positions.to(device), Documents(pack.lengths, model.deterministic))
        return next_logprobs(model, hidden[0, at], ids[0, at + 1], temperature), owner[at]
