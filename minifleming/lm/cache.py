"""The key/value cache of a rollout: preallocated slots, the active ones always in front.

Slot s holds one sequence. Active sequences fill slots 0..n-1; when one ends, the last active one moves into
its slot, so that a decode step always works on a contiguous slice and never on finished rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from minifleming.kernels.reference import decode_attention


class Cache:
    def __init__(self, layers: int, slots: int, kv_heads: int, tokens: int, head_dim: int,
                 dtype: torch.dtype, device: torch.device):
        shape = (layers, slots, kv_heads, tokens, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = torch.zeros(slots, dtype=torch.int64, device=device)  # tokens held by each slot
        self.active = 0
        self.longest = 0  # an upper bound on lengths[:active]
        self.decoding = False
        self._prompts: list[tuple[Tensor, Tensor]] = []

    def begin_prefill(self) -> None:
        self.decoding, self._prompts = False, []

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, H, T, D]; k, v [B, K, T, D] -> [B, H, T, D]: the prompts of a prefill, or one token per slot."""
        if not self.decoding:
            self.prefill(layer, k, v)
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
        return decode_attention(q.squeeze(2), *self.append(layer, k, v)).unsqueeze(2)

    def prefill(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Remember the prompts' keys and values of one layer. k, v [prompts, K, T, D]"""
        self._prompts.append((k, v))

    def admit(self, lengths: list[int], copies: list[int]) -> None:
        """Give prompt i, prefilled once, ``copies[i]`` slots behind the active ones."""
        device = self.lengths.device
        source = torch.tensor([i for i, n in enumerate(copies) for _ in range(n)], device=device)
        first, last = self.active, self.active + len(source)
        for layer, (k, v) in enumerate(self._prompts):
            self.keys[layer, first:last, :, : k.shape[2]] = k[source]
            self.values[layer, first:last, :, : k.shape[2]] = v[source]
        self.lengths[first:last] = torch.tensor(lengths, device=device)[source]
        self.active = last
        self.longest = max(self.longest, max(lengths))
        self._prompts, self.decoding = [], True

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Write one token per active slot; return what the new queries attend to.

        k, v [active, K, 1, D] -> keys, values [active, K, longest + 1, D], lengths [active].
        """
        n = self.active
        rows = torch.arange(n, device=k.device)
        self.keys[layer, rows, :, self.lengths[:n]] = k[:, :, 0]
        self.values[layer, rows, :, self.lengths[:n]] = v[:, :, 0]
        reach = self.longest + 1
        return self.keys[layer, :n, :, :reach], self.values[layer, :n, :, :reach], self.lengths[:n] + 1

    def advance(self) -> None:
        """All layers have appended: every active slot is one token longer."""
        self.lengths[: self.active] += 1
        self.longest += 1

    def release(self, finished: list[int]) -> list[int]:
        """Free these slots. Returns, for each slot that is still active, the old slot of its sequence."""
        order = list(range(self.active))
        for slot in sorted(finished, reverse=True):
            order[slot] = order[-1]
            order.pop()
        moved = [(new, old) for new, old in enumerate(order) if new != old]
        if moved:
            new, old = (torch.tensor(x, device=self.lengths.device) for x in zip(*moved))
            self.keys[:, new] = self.keys[:, old]
            self.values[:, new] = self.values[:, old]
            self.lengths[new] = self.lengths[old]
        self.active = len(order)
        if self.active == 0:
            self.longest = 0
        return order
