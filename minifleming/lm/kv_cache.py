"""The key/value cache of a rollout: allocated ahead, the prompt of a group held once for all its rows.

A *row* is one sequence that is being sampled; the active rows are 0..n-1, so that a decode step always works on a
contiguous slice. When one ends, the last active row moves into its place. A *slot* holds one prompt; rows that share
a prompt share its slot, which is free again when the last of them has ended.

    prompts[layer]              [2, slots, K, P, D]  keys and values of the prompts, right-padded
    keys[layer], values[layer]  [rows, K, T, D]  of the tokens sampled after them

A prompt's keys meet the queries of its whole group in one product. For that, queries are gathered by slot: ``table``
names the row (and head) that stands at each place, ``place`` leads back. Nothing is ever read that was not written
or zeroed: a masked value is multiplied by an exact 0, and 0 · NaN is NaN.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from minifleming.lm import batch_invariant
from minifleming.lm.config import ModelConfig
from minifleming.lm.model import causal_attention

COLUMNS = 256  # tokens that every row has room for at first; more comes by doubling


class Cache:
    def __init__(self, config: ModelConfig, rows: int, slots: int, prompt_tokens: int, tokens: int,
                 dtype: torch.dtype, device: torch.device, deterministic: bool = False):
        """Room for ``rows`` sequences of at most ``tokens`` sampled tokens, and ``slots`` prompts."""
        c = config
        self.H, self.K, self.D = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.device, self.deterministic = device, deterministic
        layers = range(c.num_hidden_layers)
        self.prompts = [torch.zeros(2, slots, self.K, prompt_tokens, self.D, dtype=dtype, device=device)
                        for _ in layers]
        self.rows, self.tokens, self.kind = rows, tokens, dict(dtype=dtype, device=device)
        self.keys = [torch.empty(0) for _ in layers]
        self.values = [torch.empty(0) for _ in layers]
        self.prompt_lengths = [0] * slots
        self.free = list(range(slots))[::-1]
        self.slots: list[int] = []  # of each active row: the slot of its prompt
        self.lengths: list[int] = []  # of each active row: the sampled tokens that it holds
        self.written = 0  # columns of ``keys`` and ``values`` that hold numbers, in every active row
        self._filling: list[int] | None = None
        self._reserve(min(tokens, COLUMNS))

    def _reserve(self, tokens: int) -> None:
        """Make room for this many tokens of every row, layer by layer; what is written is kept."""
        rows, K, D, n, held = self.rows, self.K, self.D, len(self), self.written
        self.room = tokens
        for layer, (old_keys, old_values) in enumerate(zip(self.keys, self.values)):
            narrow = D <= 32  # such keys meet their queries faster with the tokens side by side
            keys = torch.empty(rows, K, D, tokens, **self.kind).transpose(2, 3) if narrow else \
                torch.empty(rows, K, tokens, D, **self.kind)
            values = torch.empty(rows, K, tokens, D, **self.kind)
            if held:
                keys[:n, :, :held], values[:n, :, :held] = old_keys[:n, :, :held], old_values[:n, :, :held]
            self.keys[layer], self.values[layer] = keys, values
        # the same as attention multiplies by them: [rows · K, D, T] and [rows · K, T, D]
        self.flat = [(k.flatten(0, 1).transpose(1, 2), v.flatten(0, 1)) for k, v in zip(self.keys, self.values)]

    def __len__(self) -> int:
        """Active rows."""
        return len(self.slots)

    # Prompts

    def begin_prefill(self, lengths: list[int]) -> None:
        """The next pass of the model reads these prompts, right-padded, each into a free slot."""
        self._filling = [self.free.pop() for _ in lengths]
        for slot, length in zip(self._filling, lengths):
            self.prompt_lengths[slot] = length

    def admit(self, samples: int) -> None:
        """Give each prompt of the prefill ``samples`` rows behind the active ones."""
        first = len(self)
        self.slots += [slot for slot in self._filling for _ in range(samples)]
        self.lengths += [0] * (len(self) - first)
        for own in (*self.keys, *self.values):
            own[first : len(self), :, : self.written].zero_()
        self._filling = None
        self._arrange()

    def release(self, finished: list[int]) -> list[int]:
        """Free these rows. Returns, for each row that is still active, its number before."""
        order = list(range(len(self)))
        for row in sorted(finished, reverse=True):
            order[row] = order[-1]
            order.pop()
        moved = [(new, old) for new, old in enumerate(order) if new != old]
        if moved:
            new, old = (torch.tensor(x, device=self.device) for x in zip(*moved))
            for own in (*self.keys, *self.values):
                own[new, :, : self.written] = own[old, :, : self.written]
        gone = set(self.slots)
        self.slots, self.lengths = [self.slots[i] for i in order], [self.lengths[i] for i in order]
        self.free += sorted(gone - set(self.slots), reverse=True)
        if order:
            self._arrange()
        return order

    def _arrange(self) -> None:
        """The tables that follow from which row has which prompt; they hold until rows come or go."""
        slots = np.array(self.slots)
        used, n = slots.max() + 1, len(slots)
        order = np.argsort(slots, kind="stable")
        first = np.searchsorted(slots[order], np.arange(used))  # where each slot's rows begin in this order
        within = np.empty(n, np.int64)
        within[order] = np.arange(n) - first[slots[order]]
        most = within.max() + 1
        heads = np.arange(self.K)
        table = np.zeros((used, self.K, most), np.int64)
        table[slots, :, within] = np.arange(n)[:, None] * self.K + heads
        place = (slots[:, None] * self.K + heads) * most + within[:, None]
        lengths = [self.prompt_lengths[slot] for slot in self.slots]
        self.used, self.reach, self.ragged = int(used), max(lengths), min(lengths) < max(lengths)
        self.table = torch.from_numpy(table.reshape(-1)).to(self.device)  # [used · K · most]
        self.row_at = torch.from_numpy(table[:, 0] // self.K).to(self.device)  # [used, most]
        self.place = torch.from_numpy(place.reshape(-1)).to(self.device)  # [n · K]
        self.prompt_length = torch.tensor(lengths, device=self.device)
        seen = [layer[:, :used].flatten(1, 2)[:, :, : self.reach] for layer in self.prompts]
        self.seen = [(keys.transpose(1, 2), values) for keys, values in seen]

    # A decode step

    def begin_step(self) -> Tensor:
        """Make ready for one more token of each row. -> the positions of these tokens [n]"""
        self.longest = max(self.lengths) + 1
        self.even = min(self.lengths) + 1 == self.longest
        self.length = torch.tensor(self.lengths, device=self.device)
        if self.longest > self.room:
            self._reserve(min(self.tokens, 2 * self.room))
        if self.longest > self.written:
            for own in (*self.keys, *self.values) if not self.even else ():
                own[: len(self), :, self.longest - 1].zero_()
            self.written = self.longest
        self.mask = None
        if self.ragged or not self.even:
            columns = torch.arange(self.reach + self.longest, device=self.device)
            own = columns - self.reach
            seen = torch.where(own < 0, columns < self.prompt_length[:, None], own <= self.length[:, None])
            mask = torch.zeros(seen.shape, device=self.device).masked_fill_(~seen, float("-inf"))
            self.mask = mask[self.row_at][:, None, :, None]  # [used, 1, most, 1, reach + longest]
        return self.prompt_length + self.length

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Keep the new token's key and value of every row. k, v [n, K, D]"""
        for own, new in ((self.keys[layer], k), (self.values[layer], v)):
            if self.even:
                own[: len(self), :, self.longest - 1] = new
            else:
                own[torch.arange(len(self), device=self.device), :, self.length] = new

    def read(self, layer: int, q: Tensor) -> Tensor:
        """What one query of each row finds in its prompt and its own tokens. q [n · K, H/K, D], scaled -> the same."""
        nK, group, D = q.shape
        prompt_keys, prompt_values = self.seen[layer]  # [used · K, D, reach], [used · K, reach, D]
        keys, values = self.flat[layer]
        keys, values = keys[:, :, : self.longest][:nK], values[:nK, : self.longest]
        places = (len(prompt_keys), -1)  # [used · K, most · H/K, ...]: all that meets one prompt, side by side
        scores = torch.cat((torch.bmm(q.index_select(0, self.table).view(*places, D), prompt_keys),
                            torch.bmm(q, keys).index_select(0, self.table).view(*places, self.longest)), dim=-1)
        if self.mask is not None:
            scores.view(self.used, self.K, -1, group, scores.shape[-1]).add_(self.mask)
        weights = scores.softmax(-1)  # in fp32 within, whatever the dtype
        found = torch.bmm(weights[:, :, : self.reach], prompt_values).view(-1, group, D).index_select(0, self.place)
        own = weights.view(-1, group, weights.shape[-1])[:, :, self.reach :].index_select(0, self.place)
        return torch.baddbmm(found, own, values)

    def end_step(self) -> None:
        self.lengths = [length + 1 for length in self.lengths]

    # What the plain model calls

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, H, T, D]; k, v [B, K, T, D] -> [B, H, T, D]: the prompts of a prefill, or one token of each row."""
        if self._filling is not None:
            slots = torch.tensor(self._filling, device=self.device)
            self.prompts[layer][0, slots, :, : k.shape[2]] = k
            self.prompts[layer][1, slots, :, : k.shape[2]] = v
            return causal_attention(q, k, v, self.deterministic)
        self.write(layer, k[:, :, 0], v[:, :, 0])
        if self.deterministic:
            return self._read_in_order(layer, q)
        n = len(self)
        return self.read(layer, q.reshape(n * self.K, -1, self.D) * self.D**-0.5).view(n, self.H, 1, self.D)

    def _read_in_order(self, layer: int, q: Tensor) -> Tensor:
        """The same with every row's keys side by side, as training has them. q [n, H, 1, D] -> the same"""
        prompts = self.prompts[layer][:, self.slots][:, :, :, : self.reach]
        both = [torch.cat((prompt, own[layer][: len(self), :, : self.longest]), dim=2)
                for prompt, own in zip(prompts, (self.keys, self.values))]
        keys, values = (batch_invariant.remove_padding_gap(x, self.prompt_length, self.reach) for x in both)
        return batch_invariant.attention(q, keys, values, (self.prompt_length + self.length + 1)[:, None])
