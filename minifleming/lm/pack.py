"""Packing: several prompts with their completions in one row of tokens, and their
log-probabilities.

    tokens     p p p p a a a b b q q q c c c c     one row of N tokens, up to a given number
    positions  0 1 2 3 4 5 6 4 5 0 1 2 3 4 5 6     completions continue from the end of their prompt
    segments   p       a     b   q c               a and b attend to p; q and c are one segment

A prompt is computed once for all its completions: k completions cost (prompt + k · completion)
tokens instead of k · (prompt + completion), and there is no padding. Attention is computed within
documents, everything else for the whole row at once, so loss and gradient are those of separate
rows. A completion's first token is predicted by the prompt's last token; its last token predicts
nothing and is left out of the row.

N tokens of a row, M learned tokens, H query heads, K key/value heads, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minifleming.kernels.attention import attention
from minifleming.kernels.head import TokenLoss
from minifleming.kernels.segments import Segments
from minifleming.lm.model import AttentionBackend, LanguageModel


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of a prompt and of its completion, including the end token."""

    prompt: list[int]
    completion: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt and its completions, each at least one token long."""

    prompt: list[int]
    completions: list[list[int]]

    def __len__(self) -> int:
        """Tokens that it takes in a packed row."""
        return len(self.prompt) + sum(map(len, self.completions)) - len(self.completions)


@dataclass(frozen=True)
class Pack:
    """A packed row of N tokens. Its M learned tokens are listed completion by completion."""

    ids: Tensor  # [1, N]
    positions: Tensor  # [1, N]
    segments: Segments
    logit_positions: Tensor  # [M], indices of the tokens whose logits predict the labels
    labels: Tensor  # [M], ids of the learned tokens
    group_ids: list[int]  # indices of the groups in this row


class PackedAttention(AttentionBackend):
    """Attention within the documents of a packed row."""

    def __init__(self, segments: Segments):
        self.segments = segments

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [1, H, N, D]; k, v [1, K, N, D] -> [1, H, N, D]"""
        q, k, v = (x[0].transpose(0, 1) for x in (q, k, v))
        return attention(q, k, v, self.segments).transpose(0, 1)[None]


def pack_groups(groups: list[Group] | list[Example], max_tokens: int) -> list[Pack]:
    """Packs each group once: longest first, into the first row with room (first-fit decreasing).

    A group longer than ``max_tokens`` gets a row of its own.
    """
    sizes = [len(as_group(group)) for group in groups]
    rows: list[list[int]] = []  # group indices
    room: list[int] = []  # tokens left in each row
    for i in sorted(range(len(groups)), key=lambda i: -sizes[i]):
        fitting = (row for row, left in enumerate(room) if left >= sizes[i])
        row = next(fitting, len(rows))
        if row == len(rows):
            rows.append([])
            room.append(max_tokens)
        rows[row].append(i)
        room[row] -= sizes[i]
    packs = []
    for row in rows:
        packs.append(build_pack([groups[i] for i in row], row))
    return packs


def as_group(example: Group | Example) -> Group:
    return example if isinstance(example, Group) else Group(example.prompt, [example.completion])


def build_pack(groups: list[Group] | list[Example], group_ids: list[int]) -> Pack:
    """One row with these groups, in order."""
    ids: list[int] = []
    positions: list[int] = []
    lengths: list[int] = []  # of the segments
    prefix_of: list[int] = []  # the segment that each segment also attends to, or -1
    logit_positions: list[int] = []
    labels: list[int] = []
    for group in map(as_group, groups):
        P = len(group.prompt)
        prompt_segment = len(lengths)
        ids += group.prompt
        positions += range(P)
        lengths.append(P)
        prefix_of.append(-1)
        last = len(ids) - 1  # of the prompt
        for completion in group.completions:
            inputs = completion[:-1]
            logit_positions += [last, *range(len(ids), len(ids) + len(inputs))]
            labels += completion
            ids += inputs
            positions += range(P, P + len(inputs))
            if len(group.completions) == 1:  # forms one segment with its prompt
                lengths[prompt_segment] += len(inputs)
            elif inputs:
                lengths.append(len(inputs))
                prefix_of.append(prompt_segment)
    return Pack(torch.tensor([ids]), torch.tensor([positions]), Segments(lengths, prefix_of),
                torch.tensor(logit_positions), torch.tensor(labels), group_ids)


def packed_logprobs(model: LanguageModel, pack: Pack, temperature: float = 1.0) -> Tensor:
    """log π of each learned token in its document. -> [M]"""
    with autocast_for(model):
        hidden = hidden_states(model, pack)
        return model.logprobs(hidden, pack.labels.to(model.device), temperature)


def packed_loss(model: LanguageModel, pack: Pack, token_loss: TokenLoss | None,
                temperature: float = 1.0) -> tuple[Tensor | None, Tensor]:
    """The loss, with a gradient, and log π of each learned token, without one. -> scalar, [M]

    With ``token_loss`` None, the loss is None and the log-probabilities have a gradient.
    """
    if token_loss is None:
        return None, packed_logprobs(model, pack, temperature)
    with autocast_for(model):
        hidden = hidden_states(model, pack)
        return model.fused_loss(hidden, pack.labels.to(model.device), token_loss, temperature)


def hidden_states(model: LanguageModel, pack: Pack) -> Tensor:
    """-> [M, C], those that predict the labels."""
    device = model.device
    return model(pack.ids.to(device), pack.positions.to(device), PackedAttention(pack.segments),
                 pack.logit_positions.to(device))


def autocast_for(model: LanguageModel) -> torch.autocast:
    """Matrix products in ``model.compute_dtype`` with fp32 weights; sums and log-probabilities stay
    in fp32.

    A sharded model gathers its weights in that dtype instead.
    """
    dtype = model.compute_dtype
    enabled = dtype not in (None, torch.float32) and not model.sharded
    return torch.autocast(model.device.type, dtype if enabled else torch.bfloat16, enabled=enabled)


def dummy_forward(model: LanguageModel) -> Tensor:
    """A forward pass so that a rank without a batch joins the FSDP collectives. -> [2]"""
    return packed_logprobs(model, build_pack([Group([0], [[0, 0]])], [0]))
