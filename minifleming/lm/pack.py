"""Packing: whole groups in one row of tokens, each prompt once, no padding, and no document sees another.

    tokens     p p p p a a a b b q q q c c c c     one row of N tokens, at most a budget of them
    positions  0 1 2 3 4 5 6 4 5 0 1 2 3 4 5 6     a completion counts on from the end of its prompt
    segments   p       a     b   q c               a and b read p, and not each other; the lone c is one with its q

A group of k completions costs (prompt + k · completion) tokens instead of k · (prompt + completion). Everything but
attention works token by token, over the whole row at once. Gradients flow from every completion into the one pass over
its prompt: loss and gradient are those of the plain computation. A completion's last token predicts nothing and stays
out; its first is predicted by the last token of the prompt.

Nothing of one document enters the arithmetic of another: perturb one, and the others keep their bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minifleming.kernels.attention import attention
from minifleming.kernels.head import TokenLoss
from minifleming.kernels.segments import Segments
from minifleming.lm import batch_invariant
from minifleming.lm.batch import Example
from minifleming.lm.logprobs import autocast_for, policy_loss_from_hidden, token_logprobs_from_hidden
from minifleming.lm.model import LanguageModel


@dataclass(frozen=True, slots=True)
class Group:
    """Completions of one prompt, each at least one token long."""

    prompt: list[int]
    completions: list[list[int]]

    def __len__(self) -> int:
        """The tokens of a row that it takes."""
        return len(self.prompt) + sum(map(len, self.completions)) - len(self.completions)


@dataclass(frozen=True)
class Pack:
    """N tokens of whole groups. M tokens are learned: all of the completions, one completion after the other."""

    ids: Tensor  # [1, N]
    positions: Tensor  # [1, N]
    segments: Segments
    logit_positions: Tensor  # [M], the places whose hidden states predict them
    labels: Tensor  # [M], their ids
    sequence_ids: Tensor  # [M], which completion of the pack each belongs to
    group_ids: list[int]  # which groups these are


class PackedAttention:
    """Attention within a pack (see model.KeysAndValues)."""

    def __init__(self, segments: Segments, deterministic: bool = False):
        self.segments, self.attend_rows = segments, in_fixed_order if deterministic else attention

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [1, H, N, D]; k, v [1, K, N, D] -> [1, H, N, D]"""
        rows = [x[0].transpose(0, 1) for x in (q, k, v)]
        return self.attend_rows(*rows, self.segments).transpose(0, 1)[None]


def in_fixed_order(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """``attention`` in operations of one shape: each segment's keys behind those that it reads, as the sampler has
    them. [N, heads, D] -> [N, H, D]"""
    found, starts = [], segments.starts
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    for start, length, read in zip(starts, segments.lengths, segments.prefix_of):
        own, before = slice(start, start + length), slice(0, 0)
        if read >= 0:
            before = slice(starts[read], starts[read] + segments.lengths[read])
        keys, values = (torch.cat((x[:, :, before], x[:, :, own]), dim=2) for x in (k, v))
        seen = before.stop - before.start + torch.arange(1, length + 1, device=q.device)
        found.append(batch_invariant.attention(q[:, :, own], keys, values, seen[None])[0].transpose(0, 1))
    return torch.cat(found)


def pack_groups(groups: list[Group] | list[Example], tokens: int) -> list[Pack]:
    """Every group once: the longest first, each into the first pack that has room in its ``tokens``.

    A group longer than ``tokens`` has a pack of its own: nothing is cut.
    """
    trees = [as_group(group) for group in groups]
    bins: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(trees)), key=lambda i: -len(trees[i])):
        at = next((b for b, left in enumerate(room) if left >= len(trees[i])), len(bins))
        if at == len(bins):
            bins.append([])
            room.append(tokens)
        bins[at].append(i)
        room[at] -= len(trees[i])
    return [build_pack([trees[i] for i in rows], rows) for rows in bins]


def as_group(example: Group | Example) -> Group:
    return example if isinstance(example, Group) else Group(example.prompt, [example.completion])


def build_pack(groups: list[Group] | list[Example], rows: list[int]) -> Pack:
    ids, positions, lengths, reads, sources, targets, owner = [], [], [], [], [], [], []
    completions = 0
    for group in map(as_group, groups):
        p, last = len(group.prompt), len(ids) + len(group.prompt) - 1  # its length, and the place of its last token
        ids += group.prompt
        positions += range(p)
        lengths.append(p)
        reads.append(-1)
        parent = len(lengths) - 1
        for completion in group.completions:
            first, own = len(ids), len(completion) - 1
            sources += [last, *range(first, first + own)]
            targets += completion
            owner += [completions] * len(completion)
            completions += 1
            ids += completion[:-1]
            positions += range(p, p + own)
            if len(group.completions) == 1:
                lengths[parent] += own
            elif own:
                lengths.append(own)
                reads.append(parent)
    return Pack(torch.tensor([ids]), torch.tensor([positions]), Segments(lengths, reads), torch.tensor(sources),
                torch.tensor(targets), torch.tensor(owner), rows)


def packed_logprobs(model: LanguageModel, pack: Pack, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """log π(token | what stands before it in its document) of every learned token, and its completion. -> [M], [M]"""
    _, logprobs = packed_loss(model, pack, None, temperature)
    return logprobs, pack.sequence_ids.to(model.device)


def packed_loss(model: LanguageModel, pack: Pack, policy: TokenLoss | None,
                temperature: float = 1.0) -> tuple[Tensor | None, Tensor]:
    """The policy's loss and log π of every learned token: with a policy the first has a gradient, without the second.

    -> scalar, [M]
    """
    device = model.device
    with autocast_for(model):
        hidden = model(pack.ids.to(device), pack.positions.to(device), PackedAttention(pack.segments, model.deterministic),
                       pack.logit_positions.to(device))
        targets = pack.labels.to(device)
        if policy is None:
            return None, token_logprobs_from_hidden(model, hidden, targets, temperature)
        return policy_loss_from_hidden(model, hidden, targets, policy, temperature)


def dummy_forward(model: LanguageModel) -> Tensor:
    """Of a completion that nobody asked for: what a rank runs to keep step with the others (shard.py). -> [2]"""
    return packed_logprobs(model, build_pack([Group([0], [[0, 0]])], [0]))[0]
