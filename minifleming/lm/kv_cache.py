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

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minifleming.lm.model import LanguageModel, causal_attention

INITIAL_TOKENS = 256  # allocated for each row at first; doubled when it is full


@dataclass(frozen=True)
class Capacity:
    """The largest numbers that a cache must hold at a time."""

    rows: int
    prompts: int
    prompt_tokens: int
    new_tokens: int


class ActiveRows:
    """Which prompt slot each active row reads, and how many sampled tokens it has."""

    def __init__(self, num_slots: int):
        self.slots: list[int] = []
        self.lengths: list[int] = []
        self.free_slots = list(range(num_slots))[::-1]

    def __len__(self) -> int:
        return len(self.slots)

    def add(self, slots: list[int], samples: int) -> None:
        """Append ``samples`` rows for each slot."""
        for slot in slots:
            self.slots += [slot] * samples
            self.lengths += [0] * samples

    def remove(self, finished: list[int]) -> list[int]:
        """Remove these rows. Returns the old index of every row that remains."""
        kept = list(range(len(self)))
        for row in sorted(finished, reverse=True):
            kept[row] = kept[-1]
            kept.pop()
        before = set(self.slots)
        self.slots = [self.slots[i] for i in kept]
        self.lengths = [self.lengths[i] for i in kept]
        self.free_slots += sorted(before - set(self.slots), reverse=True)
        return kept

    def by_slot(self, num_slots: int) -> list[list[int]]:
        """The active rows of each of the first ``num_slots`` slots."""
        groups: list[list[int]] = [[] for _ in range(num_slots)]
        for row, slot in enumerate(self.slots):
            groups[slot].append(row)
        return groups


class KVCache:
    """The cache and the two model calls that fill it, for prompts and for one more token of each
    row.

    Decoding here is the model's own forward pass; the fast engines are subclasses that replace it.
    """

    def __init__(self, model: LanguageModel, capacity: Capacity):
        c = model.config
        self.model, self.capacity = model, capacity
        self.num_layers = c.num_hidden_layers
        self.K, self.D = c.num_key_value_heads, c.head_dim
        self.rows = ActiveRows(capacity.prompts)
        shape = (2, capacity.prompts, self.K, capacity.prompt_tokens, self.D)
        self.prompts = [self.zeros(*shape) for _ in range(self.num_layers)]
        self.prompt_lengths = [0] * capacity.prompts
        self.prefill_slots: list[int] | None = None  # set while the model reads prompts
        self.keys = [self.zeros(capacity.rows, self.K, 0, self.D) for _ in range(self.num_layers)]
        self.values = list(self.keys)
        self.allocated = 0
        self.reserve(min(capacity.new_tokens, INITIAL_TOKENS))

    def zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self.model.dtype, device=self.model.device)

    def new_keys(self, tokens: int) -> Tensor:
        return self.zeros(self.capacity.rows, self.K, tokens, self.D)

    def reserve(self, tokens: int) -> None:
        """Make room for at least this many sampled tokens per row."""
        if tokens <= self.allocated:
            return
        self.allocated = min(self.capacity.new_tokens, max(tokens, 2 * self.allocated))
        for layer in range(self.num_layers):
            keys = self.new_keys(self.allocated)
            values = self.zeros(self.capacity.rows, self.K, self.allocated, self.D)
            held = self.keys[layer].shape[2]
            keys[:, :, :held] = self.keys[layer]
            values[:, :, :held] = self.values[layer]
            self.keys[layer], self.values[layer] = keys, values

    def forward_prompts(self, prompts: list[list[int]], samples: int) -> Tensor:
        """Run each prompt once and add ``samples`` rows for it. Returns its last hidden state,
        [prompts, C]."""
        ids, lengths = pad_right(prompts, self.model.device)
        slots = [self.rows.free_slots.pop() for _ in prompts]
        for slot, prompt in zip(slots, prompts):
            self.prompt_lengths[slot] = len(prompt)
        self.prefill_slots = slots
        hidden = self.model(ids, attention=self, output_positions=last_positions(ids, lengths))
        self.prefill_slots = None
        self.rows.add(slots, samples)
        self.arrange()
        return hidden

    def forward_tokens(self, ids: Tensor) -> Tensor:
        """Feed one token per row, ids [n]. Returns hidden states [n, C]."""
        positions = self.begin_step()
        hidden = self.model(ids[:, None], positions[:, None], self)[:, 0]
        self.end_step()
        return hidden

    def release(self, finished: list[int]) -> list[int]:
        """Free these rows. Returns the old index of every row that remains."""
        kept = self.rows.remove(finished)
        moved = [i for i, old in enumerate(kept) if i != old]
        source = [kept[i] for i in moved]
        if moved:
            for tensor in self.row_tensors():
                tensor[moved] = tensor[source]
        if kept:
            self.arrange()
        return kept

    def row_tensors(self) -> list[Tensor]:
        """Tensors [rows, ...] whose entries move with their row."""
        return [*self.keys, *self.values]

    def arrange(self) -> None:
        """Recompute what depends on which row reads which prompt."""
        lengths = [self.prompt_lengths[slot] for slot in self.rows.slots]
        self.max_prompt_len = max(lengths)
        self.prompt_len = torch.tensor(lengths, device=self.model.device)  # [n]

    def begin_step(self) -> Tensor:
        """Make room for one more token per row. Returns the positions of these tokens, [n]."""
        self.max_len = max(self.rows.lengths) + 1
        self.reserve(self.max_len)
        self.own_len = torch.tensor(self.rows.lengths, device=self.model.device)  # [n]
        return self.prompt_len + self.own_len

    def end_step(self) -> None:
        self.rows.lengths = [length + 1 for length in self.rows.lengths]

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Store the new token's key and value of each row. k, v [n, K, D]"""
        row = torch.arange(len(self.rows), device=k.device)
        self.keys[layer][row, :, self.own_len] = k
        self.values[layer][row, :, self.own_len] = v

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What the model calls. q [B, H, T, D]; k, v [B, K, T, D] -> [B, H, T, D]

        During a prefill B are prompts of T tokens; otherwise B are the active rows with one token
        each.
        """
        keys, values, num_keys = self.update(layer, k, v)
        if self.prefill_slots is not None:
            return causal_attention(q, keys, values)
        mask = torch.arange(keys.shape[2], device=q.device) < num_keys
        return F.scaled_dot_product_attention(q, keys, values, mask[:, None, None], enable_gqa=True)

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Stores the new keys and values [B, K, T, D].

        Returns all keys and values of each row, [B, K, L, D], and how many of them each query sees,
        [B, T].
        """
        B, _, T, _ = k.shape
        if self.prefill_slots is not None:
            stored = self.prompts[layer]
            stored[0, self.prefill_slots, :, :T] = k.to(stored.dtype)
            stored[1, self.prefill_slots, :, :T] = v.to(stored.dtype)
            return k, v, torch.arange(1, T + 1, device=k.device).expand(B, T)
        self.write(layer, k[:, :, 0], v[:, :, 0])
        prompt_keys, prompt_values = self.prompts[layer][:, self.rows.slots]
        keys = self.join(prompt_keys, self.keys[layer])
        values = self.join(prompt_values, self.values[layer])
        return keys, values, (self.prompt_len + self.own_len + 1)[:, None]

    def join(self, prompt: Tensor, own: Tensor) -> Tensor:
        """Each row's prompt followed by its sampled tokens, without a gap. -> [n, K, P + T, D]"""
        own = own[: len(self.rows), :, : self.max_len]
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


def pad_right(sequences: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Right-padded ids [B, T] and their lengths [B]."""
    lengths = [len(sequence) for sequence in sequences]
    ids = torch.zeros(len(sequences), max(lengths), dtype=torch.int64)
    for row, sequence in zip(ids, sequences):
        row[: len(sequence)] = torch.tensor(sequence)
    return ids.to(device), torch.tensor(lengths, device=device)


def last_positions(ids: Tensor, lengths: Tensor) -> Tensor:
    """The flattened position of each row's last token. ids [B, T], lengths [B] -> [B]"""
    return torch.arange(len(ids), device=ids.device) * ids.shape[1] + lengths - 1
