"""PyTorch's flash attention over packed rows on a GPU: the peers of kernels/attention.py, which might win.

``varlen``: segments that share nothing. ``merged``: a prompt's readers in two parts, exactly as
kernels/flash_merge.py has them on a CPU: one call for every segment with itself, one for each prompt's readers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minifleming.kernels.segments import Segments

flash = torch.ops.aten._flash_attention_forward
flash_backward = torch.ops.aten._flash_attention_backward


def bounds(lengths: list[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *lengths], device=device).cumsum(0).int()


def kept(segments: Segments, device: torch.device) -> tuple[Tensor, int, list[tuple]]:
    """Of every segment with itself its bounds and the longest; of every prompt (readers, keys, the bounds of both)."""
    found = vars(segments).setdefault("flash", {})
    if device not in found:
        readers = [(slice(at, at + many), slice(start, start + n), bounds([many], device), bounds([n], device))
                   for start, n, _, _, at, many in segments.table().tolist() if many]
        found[device] = bounds(segments.lengths, device), max(segments.lengths), readers
    return found[device]


def call(q: Tensor, k: Tensor, v: Tensor, of_q: Tensor, of_k: Tensor, long_q: int, long_k: int, causal: bool):
    return flash(q, k, v, of_q, of_k, long_q, long_k, 0.0, causal, False)


def varlen(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """q [N, H, D]; k, v [N, K, D] -> [N, H, D]"""
    own, longest, _ = kept(segments, q.device)
    return call(q, k, v, own, own, longest, longest, True)[0]


def merged(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    return Merged.apply(q, k, v, segments)


class Merged(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
        own, longest, readers = kept(segments, q.device)
        out, logs, *ctx.random = call(q, k, v, own, own, longest, longest, True)[:4]  # logs [H, N]
        for at, of, of_q, of_k in readers:
            found, theirs = call(q[at], k[of], v[of], of_q, of_k, at.stop - at.start, of.stop - of.start, False)[:2]
            both = torch.logaddexp(logs[:, at], theirs)
            mine, other = ((x - both).exp_().t()[..., None].to(out.dtype) for x in (logs[:, at], theirs))
            out[at] = out[at] * mine + found * other
            logs[:, at] = both
        ctx.save_for_backward(q, k, v, out, logs)
        ctx.segments = segments
        return out

    @staticmethod
    def backward(ctx, above: Tensor):
        q, k, v, out, logs = ctx.saved_tensors
        own, longest, readers = kept(ctx.segments, q.device)
        above = above.contiguous()
        dq, dk, dv = flash_backward(above, q, k, v, out, logs, own, own, longest, longest, 0.0, True, *ctx.random)
        for at, of, of_q, of_k in readers:
            found = flash_backward(above[at], q[at], k[of], v[of], out[at], logs[:, at].contiguous(), of_q, of_k,
                                   at.stop - at.start, of.stop - of.start, 0.0, False, *ctx.random)
            for whole, part, where in zip((dq, dk, dv), found, (at, of, of)):
                whole[where] += part
        return dq, dk, dv, None
