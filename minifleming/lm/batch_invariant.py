"""The deterministic mode: what is computed for a token does not depend on its batch, to the last bit (fp32, CPU).

A matrix product of 64 rows and one of 3 rows add the same numbers in different orders, so the same token gets
log-probabilities that differ in the last bits, and sooner or later another sample. Here every operation on rows runs
on blocks of exactly ROWS rows, and every query attends to blocks of exactly KEYS keys: operations of one shape, whose
order of additions is one. The blocks behind a query's end add exact zeros. It costs time and memory (every query has
a copy of its keys): for replay, for tests, for runs that must not depend on the number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS, KEYS = 32, 64


def in_fixed_blocks(f: Callable, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
    """``f`` over blocks of exactly ROWS rows; the last one is filled with zeros.

    tensors [..., C] of equal leading dimensions -> what f gives for its rows, with the same leading dimensions.
    """
    lead = tensors[0].shape[:-1]
    rows = [t.reshape(-1, t.shape[-1]) for t in tensors]
    count = len(rows[0])
    filled = [F.pad(r, (0, 0, 0, -count % ROWS)) for r in rows]
    parts = [f(*block) for block in zip(*(r.split(ROWS) for r in filled))]
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)[:count].unflatten(0, lead)
    return tuple(torch.cat(part)[:count].unflatten(0, lead) for part in zip(*parts))


def attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Each query over the first ``seen`` keys of its row, in one shape.

    q [B, H, T, D]; k, v [B, K, L, D]; seen [B, T] -> [B, H, T, D].
    """
    B, H, T, D = q.shape
    K, L = k.shape[1:3]
    queries = q.view(B, K, H // K, T, D).transpose(2, 3).reshape(B * K * T, H // K, D)

    def blocks(x: Tensor) -> list[Tensor]:
        """[B, K, L, D] -> for each block of keys, a copy for every query [B K T, KEYS, D]"""
        x = F.pad(x, (0, 0, 0, -L % KEYS))
        return [part[:, :, None].expand(B, K, T, KEYS, D).reshape(B * K * T, KEYS, D) for part in x.split(KEYS, 2)]

    scores = torch.cat([torch.bmm(queries, part.transpose(1, 2)) for part in blocks(k)], dim=-1).float() * D**-0.5
    beyond = torch.arange(scores.shape[-1], device=q.device) >= seen[:, None, :, None]  # [B, 1, T, L']
    beyond = beyond.expand(B, K, T, -1).reshape(B * K * T, 1, -1)
    weights = scores.masked_fill(beyond, float("-inf")).softmax(-1).to(q.dtype)
    out = sum(torch.bmm(w, part) for w, part in zip(weights.split(KEYS, -1), blocks(v)))
    return out.view(B, K, T, H // K, D).transpose(2, 3).reshape(B, H, T, D)


def remove_padding_gap(x: Tensor, lengths: Tensor, padded: int) -> Tensor:
    """Take the padding out between a prompt and what follows it: row b's column lengths[b] becomes column padded.

    x [B, K, padded + T, D] -> the same shape; what stands behind the end of a row repeats its last column.
    """
    columns = torch.arange(x.shape[2], device=x.device)
    source = torch.where(columns < lengths[:, None], columns, columns + (padded - lengths[:, None]))
    source = source.clamp_(max=x.shape[2] - 1)[:, None, :, None]
    return x.gather(2, source.expand(-1, x.shape[1], -1, x.shape[3]))
