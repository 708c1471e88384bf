"""Attention over segments with PyTorch's flash attention: two calls per segment, merged exactly.

A segment with a prompt attends to two sets of keys. Let s be the scores, L = log Σ exp s and o the
weighted values of each set by itself (0: the prompt's, without a mask; 1: its own, causal):

    forward    L = log(exp L₀ + exp L₁)         o = o₀ exp(L₀ - L) + o₁ exp(L₁ - L)
    backward   flash attention's own, once per set, given the *merged* o and L: it rebuilds the
               weights as exp(s - L) and needs Σ do · o of the whole row, so each set's gradient
               is exact, and dq is their sum

All readers of a prompt are adjacent, so one call handles them all without a mask, padding or a copy
of the prompt; grouped heads share keys and values by a stride of 0. q, k, v, o and L are saved for
the backward pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from minifleming.kernels.segments import Segments

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def flash_merge_attention(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """``reference.segment_attention`` by PyTorch's own attention. q [N, H, D]; k, v [N, K, D] ->
    [N, H, D]"""
    if q.is_cuda:
        return by_segment(q, k, v, segments)
    return FlashMergeAttention.apply(q, k, v, segments)


def by_segment(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """For GPUs that our kernel does not support: one call per segment, with copies of its keys.

    Queries and keys end together (``causal_lower_right``), which PyTorch's kernels support without
    a mask in memory.
    """
    found = []
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # [1, heads, N, D]
    for start, length, first, size, _, _ in segments.rows:
        own = slice(start, start + length)
        before = slice(first, first + size)
        keys = torch.cat((k[:, :, before], k[:, :, own]), dim=2)
        values = torch.cat((v[:, :, before], v[:, :, own]), dim=2)
        seen = causal_lower_right(length, size + length)
        found.append(F.scaled_dot_product_attention(q[:, :, own], keys, values, seen,
                                                    enable_gqa=q.shape[1] != k.shape[1]))
    return torch.cat(found, dim=2)[0].transpose(0, 1)


def calls(segments: Segments) -> list[tuple[slice, slice, bool]]:
    """(queries, keys, causal) of every call: each segment with itself, then readers with
    prompts."""
    found = []
    for start, length, _, _, reading, readers in segments.rows:
        found.append((slice(start, start + length), slice(start, start + length), True))
        if readers:
            found.append((slice(reading, reading + readers), slice(start, start + length), False))
    return sorted(found, key=lambda call: not call[2])


def by_head(x: Tensor, heads: int) -> Tensor:
    """[N, K · G, D] or [N, K, D] -> [K, G, N, D], where one head stands for all G by a stride of
    0"""
    K, G = heads, x.shape[1] // heads
    return x.unflatten(1, (K, G)).permute(1, 2, 0, 3)


class FlashMergeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
        N, H, D = q.shape
        K = k.shape[1]
        out = q.new_empty(N, H, D)
        queries, o = by_head(q, K), by_head(out, K)
        keys, values = (by_head(x, K).expand(-1, H // K, -1, -1) for x in (k, v))
        total: Tensor | None = None  # [K, G, N], log Σ exp of the scores
        for at, of, causal in calls(segments):
            found, logs = flash(queries[:, :, at], keys[:, :, of], values[:, :, of], 0.0, causal)
            if total is None:
                total = logs.new_empty(K, H // K, N)
            if causal:
                o[:, :, at], total[:, :, at] = found, logs
                continue
            both = torch.logaddexp(total[:, :, at], logs)
            mine = (total[:, :, at] - both).exp_().unsqueeze(-1).to(out.dtype)
            theirs = (logs - both).exp_().unsqueeze(-1).to(out.dtype)
            o[:, :, at].mul_(mine).addcmul_(found, theirs)
            total[:, :, at] = both
        ctx.save_for_backward(q, k, v, out, total)
        ctx.segments = segments
        return out

    @staticmethod
    def backward(ctx, above: Tensor):
        q, k, v, out, total = ctx.saved_tensors
        K, G = k.shape[1], q.shape[1] // k.shape[1]
        queries, o, do = (by_head(x, K) for x in (q, out, above))
        keys, values = (by_head(x, K).expand(-1, G, -1, -1) for x in (k, v))
        dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
        grads = [by_head(x, K) for x in (dq, dk, dv)]
        for at, of, causal in calls(ctx.segments):
            found = flash_backward(do[:, :, at], queries[:, :, at], keys[:, :, of],
                                   values[:, :, of], o[:, :, at], total[:, :, at], 0.0, causal)
            found = (found[0], *(x.sum(1, keepdim=True) if G > 1 else x for x in found[1:]))
            for whole, part, where in zip(grads, found, (at, of, of)):
                if causal:  # the first to write there, once for every token
                    whole[:, :, where] = part
                else:
                    whole[:, :, where] += part
        return dq, dk, dv, None
