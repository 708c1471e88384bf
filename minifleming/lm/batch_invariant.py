"""Batch-invariant mode (``run.deterministic``): a token's values do not depend on its batch, to the
last bit.

A matrix product of 64 rows adds in another order than one of 3 rows, so the same token gets
log-probabilities that differ in the last bits, and sooner or later another sample. In this mode

- every operation on rows runs on blocks of exactly ROWS rows, the last one filled with zeros;
- every query attends to blocks of exactly KEYS keys; keys after the last one that it sees add exact
  zeros.

All operations then have one shape and one order of additions (in fp32 on a CPU). The sampler's
log-probabilities have the bits of the trainer's. It costs time and memory, since every query has a
copy of its keys: for replay, for tests, and for runs whose tokens must not depend on the number of
ranks.

The mode is applied to a model from outside, like FSDP: ``make_batch_invariant`` replaces methods of
this one object.

B batch, T tokens, L keys, H query heads, K key/value heads, D head width, N rows of a packed row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from minifleming.kernels.reference import token_logprobs
from minifleming.kernels.segments import Segments
from minifleming.lm.model import AttentionBackend, LanguageModel
from minifleming.lm.pack import PackedAttention

ROWS, KEYS = 32, 64


def make_batch_invariant(model: LanguageModel) -> None:
    for block in model.model.layers:
        block.pre_attention = partial(in_fixed_blocks, block.pre_attention)
        block.post_attention = partial(in_fixed_blocks, block.post_attention)
    norm = model.model.norm
    norm.forward = partial(in_fixed_blocks, norm.forward)
    model.rope = partial(in_fixed_blocks, model.rope)
    model.forward = partial(forward, model.forward)
    model.logits = partial(in_fixed_blocks, model.logits)
    model.logprobs = partial(logprobs, model)
    model.batch_invariant = True


def in_fixed_blocks(f: Callable, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
    """f(*tensors), computed in blocks of exactly ROWS rows; the last block is filled with zeros.

    tensors [..., C] with equal leading dimensions -> the results of f, with these leading
    dimensions.
    """
    lead = tensors[0].shape[:-1]
    count = lead.numel()
    blocks = []
    for tensor in tensors:
        rows = tensor.reshape(-1, tensor.shape[-1])
        blocks.append(F.pad(rows, (0, 0, 0, -count % ROWS)).split(ROWS))
    results = [f(*block) for block in zip(*blocks)]
    if isinstance(results[0], Tensor):
        return torch.cat(results)[:count].unflatten(0, lead)
    return tuple(torch.cat(parts)[:count].unflatten(0, lead) for parts in zip(*results))


def forward(plain: Callable, ids: Tensor, positions: Tensor | None = None,
            attention: AttentionBackend | None = None,
            output_positions: Tensor | None = None) -> Tensor:
    """``LanguageModel.forward``."""
    fixed = FixedOrderAttention(attention or AttentionBackend())
    return plain(ids, positions, fixed, output_positions)


def logprobs(model: LanguageModel, hidden: Tensor, ids: Tensor, temperature: float = 1.0) -> Tensor:
    """``LanguageModel.logprobs``, from all logits."""

    def block_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
        return token_logprobs(logits, ids[:, 0], temperature)

    return in_fixed_blocks(block_logprobs, model.logits(hidden), ids[:, None])


class FixedOrderAttention(AttentionBackend):
    """Replaces an attention backend: the same computation in operations of one shape."""

    def __init__(self, backend: AttentionBackend):
        self.backend = backend

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, H, T, D]; k, v [B, K, T, D] -> [B, H, T, D]"""
        if isinstance(self.backend, PackedAttention):
            return packed_attention(q, k, v, self.backend.segments)
        keys, values, num_keys = self.backend.update(layer, k, v)
        return attention(q, keys, values, num_keys)


def packed_attention(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """Each segment's keys follow those of its prefix, as in the sampler.

    q [1, H, N, D]; k, v [1, K, N, D] -> [1, H, N, D]
    """
    starts, outputs = segments.starts, []
    for start, length, prefix in zip(starts, segments.lengths, segments.prefix_of):
        own = slice(start, start + length)
        shared = slice(0, 0)
        if prefix >= 0:
            shared = slice(starts[prefix], starts[prefix] + segments.lengths[prefix])
        keys = torch.cat((k[:, :, shared], k[:, :, own]), dim=2)
        values = torch.cat((v[:, :, shared], v[:, :, own]), dim=2)
        num_keys = shared.stop - shared.start + torch.arange(1, length + 1, device=q.device)
        outputs.append(attention(q[:, :, own], keys, values, num_keys[None]))
    return torch.cat(outputs, dim=2)


def attention(q: Tensor, k: Tensor, v: Tensor, num_keys: Tensor) -> Tensor:
    """Each query attends to the first ``num_keys`` keys of its row.

    q [B, H, T, D]; k, v [B, K, L, D]; num_keys [B, T] -> [B, H, T, D]
    """
    B, H, T, D = q.shape
    K = k.shape[1]
    queries = q.view(B, K, H // K, T, D).transpose(2, 3).reshape(B * K * T, H // K, D)
    scores = [torch.bmm(queries, keys.transpose(1, 2)) for keys in key_blocks(k, T)]
    scores = torch.cat(scores, dim=-1).float() * D**-0.5
    masked = torch.arange(scores.shape[-1], device=q.device) >= num_keys[:, None, :, None]
    masked = masked.expand(B, K, T, -1).reshape(B * K * T, 1, -1)
    weights = scores.masked_fill(masked, float("-inf")).softmax(-1).to(q.dtype)
    out = torch.zeros_like(queries)
    for weight, values in zip(weights.split(KEYS, -1), key_blocks(v, T)):
        out = out + torch.bmm(weight, values)
    return out.view(B, K, T, H // K, D).transpose(2, 3).reshape(B, H, T, D)


def key_blocks(x: Tensor, T: int) -> list[Tensor]:
    """Blocks of exactly KEYS keys, each with a copy for each of T queries.

    x [B, K, L, D] -> [B·K·T, KEYS, D] each
    """
    B, K, L, D = x.shape
    x = F.pad(x, (0, 0, 0, -L % KEYS))
    return [block[:, :, None].expand(B, K, T, KEYS, D).reshape(B * K * T, KEYS, D)
            for block in x.split(KEYS, 2)]
