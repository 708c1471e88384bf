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
from minifleming.lm.model import LanguageModel


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
    sequence_ids: Tensor  # [M], number of the label's completion within the row
    group_ids: list[int]  # indices of the groups in this row


class PackedAttention:
    """Attention within the documents of a packed row (an ``AttentionBackend``)."""

    def __init__(self, segments: Segments):
        self.segments = segments

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [1, H, N, D]; k, v [1, K, N, D] -> [1, H, N, D]"""
        q, k, v = (x[0].transpose(0, 1) for x in (q, k, v))
        return attention(q, k, v, self.segments).transpose(0, 1)[None]


def drop_too_long(examples: list[Example], max_tokens: int) -> tuple[list[Example], int]:
    """The examples of at most ``max_tokens`` tokens, and how many were dropped.

    Nothing is truncated.
    """
    kept = [example for example in examples if len(example) <= max_tokens]
    return kept, len(examples) - len(kept)


def pack_groups(groups: list[Group] | list[Example], max_tokens: int) -> list[Pack]:
    """Packs each group once: longest first, into the first row with room (first-fit decreasing).

    A group longer than ``max_tokens`` gets a row of its own.
    """
    groups = [as_group(group) for group in groups]
    rows: list[list[int]] = []  # group indices
    room: list[int] = []  # tokens left in each row
    for i in sorted(range(len(groups)), key=lambda i: -len(groups[i])):
        size = len(groups[i])
        fitting = (row for row, left in enumerate(room) if left >= size)
        row = next(fitting, len(rows))
        if row == len(rows):
            rows.append([])
            room.append(max_tokens)
        rows[row].append(i)
        room[row] -= size
    packs = []
    for row in rows:
        packs.append(build_pack([groups[i] for i in row], row))
    return packs


def as_group(example: Group | Example) -> Group:
    return example if isinstance(example, Group) else Group(example.prompt, [example.completion])


def build_pack(groups: list[Group] | list[Example], group_ids: list[int]) -> Pack:
    """One row with these groups, in order."""
    row = PackBuilder()
    for group in groups:
        row.add(as_group(group))
    return Pack(torch.tensor([row.ids]), torch.tensor([row.positions]),
                Segments(row.lengths, row.prefix_of), torch.tensor(row.logit_positions),
                torch.tensor(row.labels), torch.tensor(row.sequence_ids), group_ids)


class PackBuilder:
    """The columns of a ``Pack`` while it is being filled."""

    def __init__(self):
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.lengths: list[int] = []  # of the segments
        self.prefix_of: list[int] = []  # the segment that each segment also attends to, or -1
        self.logit_positions: list[int] = []
        self.labels: list[int] = []
        self.sequence_ids: list[int] = []
        self.num_sequences = 0

    def add(self, group: Group) -> None:
        prompt_segment = len(self.lengths)
        self.add_segment(group.prompt, 0, -1)
        last = len(self.ids) - 1  # of the prompt
        for completion in group.completions:
            inputs = completion[:-1]
            self.logit_positions += [last, *range(len(self.ids), len(self.ids) + len(inputs))]
            self.labels += completion
            self.sequence_ids += [self.num_sequences] * len(completion)
            self.num_sequences += 1
            self.add_segment(inputs, len(group.prompt), prompt_segment)
        if len(group.completions) == 1 and len(self.lengths) > prompt_segment + 1:
            # an only completion forms one segment with its prompt
            self.lengths[prompt_segment] += self.lengths.pop()
            self.prefix_of.pop()

    def add_segment(self, ids: list[int], first_position: int, prefix: int) -> None:
        if not ids:
            return
        self.ids += ids
        self.positions += range(first_position, first_position + len(ids))
        self.lengths.append(len(ids))
        self.prefix_of.append(prefix)


def packed_logprobs(model: LanguageModel, pack: Pack,
                    temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """log π of each learned token in its document. -> [M], sequence ids [M]"""
    with autocast_for(model):
        hidden = hidden_states(model, pack)
        logprobs = model.logprobs(hidden, pack.labels.to(model.device), temperature)
    return logprobs, pack.sequence_ids.to(model.device)


def packed_loss(model: LanguageModel, pack: Pack, token_loss: TokenLoss | None,
                temperature: float = 1.0) -> tuple[Tensor | None, Tensor]:
    """The loss, with a gradient, and log π of each learned token, without one. -> scalar, [M]

    With ``token_loss`` None, the loss is None and the log-probabilities have a gradient.
    """
    if token_loss is None:
        return None, packed_logprobs(model, pack, temperature)[0]
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
    return packed_logprobs(model, build_pack([Group([0], [[0, 0]])], [0]))[0]
