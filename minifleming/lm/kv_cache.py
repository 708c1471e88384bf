"""The sampler's key/value cache: each prompt is stored once and shared by all samples of its group.

A row is one sequence being sampled. Active rows are always 0..n-1, so a decode step works on a
slice; when a row ends, the last row takes its index. A slot holds one prompt; it is free again when
its last row has ended.

    prompts[layer]              [2, slots, K, P, D]  keys and values of the prompts, right-padded
    keys[layer], values[layer]  [rows, K, T, D]      keys and values of the sampled tokens

Memory is zeroed when it is allocated: masked values are multiplied by 0, and 0 · NaN would be NaN.

n active rows, H query heads, K key/value heads, D head width, P prompt tokens, T sampled tokens.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from minifleming.lm.model import AttentionBackend, LanguageModel


@dataclass(frozen=True)
class Capacity:
    """The largest numbers that a cache must hold at a time."""

    rows: int
    prompts: int
    prompt_tokens: int
    new_tokens: int


class KVCache(AttentionBackend):
    """The cache and the two model calls that fill it, for prompts and for one more token of each
    row.

    Decoding here is the forward pass of a batch-invariant model; the fast engines are subclasses
    that replace it.
    """

    def __init__(self, model: LanguageModel, capacity: Capacity):
        c = model.config
        self.model, self.capacity = model, capacity
        self.K, self.D = c.num_key_value_heads, c.head_dim
        layers = range(c.num_hidden_layers)
        stored = (2, capacity.prompts, self.K, capacity.prompt_tokens, self.D)
        self.prompts = [self.zeros(*stored) for _ in layers]
        self.keys = [self.new_keys() for _ in layers]
        self.values = [self.zeros(*keys.shape) for keys in self.keys]
        self.slots: list[int] = []  # of each active row
        self.lengths: list[int] = []  # sampled tokens of each active row
        self.max_len = 0
        self.free_slots = list(range(capacity.prompts))[::-1]
        self.prompt_lengths = [0] * capacity.prompts
        self.prefill_slots: list[int] | None = None  # set while the model reads prompts

    def zeros(self, *shape: int) -> Tensor:
        dtype, device = self.model.dtype, self.model.device
        if device.type != "cpu":
            return torch.zeros(shape, dtype=dtype, device=device)
        # pages of a mapping are zero and take memory only when they are written
        pages = mmap.mmap(-1, max(1, math.prod(shape) * dtype.itemsize))
        return torch.frombuffer(pages, dtype=dtype, count=math.prod(shape)).view(shape)

    def new_keys(self) -> Tensor:
        return self.zeros(self.capacity.rows, self.K, self.capacity.new_tokens, self.D)

    def forward_prompts(self, prompts: list[list[int]], samples: int) -> Tensor:
        """Run each prompt once and add ``samples`` rows for it. Returns its last hidden state,
        [prompts, C]."""
        device = self.model.device
        ids = pad_sequence(list(map(torch.tensor, prompts)), batch_first=True)
        last = [i * ids.shape[1] + len(prompt) - 1 for i, prompt in enumerate(prompts)]
        self.prefill_slots = [self.free_slots.pop() for _ in prompts]
        hidden = self.model(ids.to(device), attention=self,
                            output_positions=torch.tensor(last, device=device))
        for slot, prompt in zip(self.prefill_slots, prompts):
            self.prompt_lengths[slot] = len(prompt)
            self.slots += [slot] * samples
            self.lengths += [0] * samples
        self.prefill_slots = None
        self.arrange()
        return hidden

    def forward_tokens(self, ids: Tensor) -> Tensor:
        """Feed one token per row, ids [n]. Returns hidden states [n, C]."""
        positions = self.begin_step()
        return self.model(ids[:, None], positions[:, None], self)[:, 0]

    def release(self, finished: list[int]) -> list[int]:
        """Free these rows. Returns the old index of every row that remains."""
        kept = list(range(len(self.slots)))
        for row in sorted(finished, reverse=True):
            kept[row] = kept[-1]
            kept.pop()
        before = set(self.slots)
        self.slots = list(map(self.slots.__getitem__, kept))
        self.lengths = list(map(self.lengths.__getitem__, kept))
        self.free_slots += sorted(before - set(self.slots), reverse=True)
        moved = [i for i, old in enumerate(kept) if i != old]
        for tensor in self.row_tensors() if moved else ():
            tensor[moved] = tensor[[kept[i] for i in moved]]
        if kept:
            self.arrange()
        return kept

    def row_tensors(self) -> list[Tensor]:
        """Tensors [rows, ...] whose entries move with their row."""
        return [tensor[:, :, : self.max_len] for tensor in (*self.keys, *self.values)]

    def rows_by_slot(self, num_slots: int) -> list[list[int]]:
        """The active rows of each of the first ``num_slots`` slots."""
        groups: list[list[int]] = [[] for _ in range(num_slots)]
        for row, slot in enumerate(self.slots):
            groups[slot].append(row)
        return groups

    def arrange(self) -> None:
        """Recompute what depends on which row reads which prompt."""
        lengths = [self.prompt_lengths[slot] for slot in self.slots]
        self.max_prompt_len = max(lengths)
        self.prompt_len = torch.tensor(lengths, device=self.model.device)  # [n]

    def begin_step(self) -> Tensor:
        """Count one more token per row. Returns the positions of these tokens, [n]."""
        n, device = len(self.lengths), self.model.device
        self.own_len = torch.tensor(self.lengths, device=device)  # [n], before the token
        if min(self.lengths) == max(self.lengths):  # a slice is faster
            self.place = (slice(n), slice(None), self.lengths[0])
        else:
            self.place = (torch.arange(n, device=device), slice(None), self.own_len)
        self.lengths = [length + 1 for length in self.lengths]
        self.max_len = max(self.lengths)
        return self.prompt_len + self.own_len

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Store the new token's key and value of each row. k, v [n, K, D]"""
        self.keys[layer][self.place] = k
        self.values[layer][self.place] = v

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of B prompts during a prefill. q [B, H, T, D]; k, v [B, K, T, D] -> as q

        Decode steps that call the model are only those of the batch-invariant mode, which attends
        by itself to what ``update`` returns.
        """
        self.update(layer, k, v)
        return super().attend(layer, q, k, v)

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Stores the new keys and values [B, K, T, D]: of B prompts in a prefill, otherwise of one
        token of each active row.

        Returns all keys and values of each row, [B, K, L, D], and how many of them each query sees,
        [B, T].
        """
        if self.prefill_slots is not None:
            self.prompts[layer][:, self.prefill_slots, :, : k.shape[2]] = torch.stack((k, v))
            return super().update(layer, k, v)
        self.write(layer, k[:, :, 0], v[:, :, 0])
        prompt_keys, prompt_values = self.prompts[layer][:, self.slots]
        keys = self.join(prompt_keys, self.keys[layer])
        values = self.join(prompt_values, self.values[layer])
        return keys, values, (self.prompt_len + self.own_len + 1)[:, None]

    def join(self, prompt: Tensor, own: Tensor) -> Tensor:
        """Each row's prompt followed by its sampled tokens, without a gap. -> [n, K, P + T, D]"""
        own = own[: len(self.slots), :, : self.max_len]
        both = torch.cat((prompt[:, :, : self.max_prompt_len], own), dim=2)
        return remove_padding_gap(both, self.prompt_len, self.max_prompt_len)


def remove_padding_gap(x: Tensor, lengths: Tensor, padded: int) -> Tensor:
    """Close the gap between each row's prompt and the tokens after it: column ``padded`` moves to
    ``lengths[b]``.

    x [B, K, padded + T, D] -> the same shape; the last column repeats after a row's end.
    """
    columns = torch.arange(x.shape[2], device=x.device)
    source = torch.where(columns < lengths[:, None], columns, columns + (padded - lengths[:, None]))
    source = source.clamp_(max=x.shape[2] - 1)[:, None, :, None]
    return x.gather(2, source.expand(-1, x.shape[1], -1, x.shape[3]))
