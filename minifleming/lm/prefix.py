"""Prompts shared by their group in training: each prompt runs once, its completions attend to its keys and values.

A group of k completions of one prompt costs (prompt + k · completion) tokens instead of k · (prompt + completion).
Gradients flow from every completion into the one pass over the prompt, so loss and gradient are those of the plain
computation. Two calls of the model: with ``Prompts``, which remembers keys and values, then with ``Completions``. Each
layer of either may be computed again on the way back (checkpointing.py).

Prompts are copied to their completions by index_select: its gradient adds up in a fixed order, where that of
``x[owner]`` adds in the order in which the threads arrive, and equal runs would differ in their last bits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from minifleming.lm import fixed
from minifleming.lm.model import causal_attention


class Prompts:
    def __init__(self, deterministic: bool = False):
        self.deterministic = deterministic
        self.layers: list[tuple[Tensor, Tensor]] = []

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [P, H, T, D]; k, v [P, K, T, D] -> [P, H, T, D]. Remembers k and v of the first time."""
        if layer == len(self.layers):
            self.layers.append((k, v))
        return causal_attention(q, k, v, self.deterministic)


class Completions:
    def __init__(self, prompts: Prompts, lengths: Tensor, owner: Tensor, width: int):
        """lengths [P] of the right-padded prompts; owner [B]: the prompt of each completion; width T of these."""
        self.layers, self.deterministic = prompts.layers, prompts.deterministic
        self.lengths, self.owner = lengths[owner], owner
        longest = int(lengths.max())
        in_prompt = torch.arange(longest, device=owner.device) < lengths[owner, None]  # [B, longest]
        causal = torch.ones(width, width, dtype=torch.bool, device=owner.device).tril()
        seen = torch.cat((in_prompt[:, None].expand(-1, width, -1), causal.expand(len(owner), -1, -1)), dim=-1)
        self.mask = seen[:, None]  # [B, 1, width, longest + width]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, H, T, D]; k, v [B, K, T, D] -> [B, H, T, D]"""
        prompt_k, prompt_v = self.layers[layer]
        k = torch.cat((prompt_k.index_select(0, self.owner), k), dim=2)
        v = torch.cat((prompt_v.index_select(0, self.owner), v), dim=2)
        if self.deterministic:
            k, v = (fixed.close_up(x, self.lengths, prompt_k.shape[2]) for x in (k, v))
            return fixed.attention(q, k, v, self.lengths[:, None] + 1 + torch.arange(q.shape[2], device=q.device))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, enable_gqa=q.shape[1] != k.shape[1])
