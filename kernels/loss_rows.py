"""One row of logits: log-probability, entropy, token loss, and dL/dlogits written over the logits.

    forward    l, H, loss, c = dL/dl: see head.py for the formulas
    backward   dz = c (1_y - p) / τ, in the same launch

Memory traffic: the row is read twice and written once, 6 bytes per logit in bf16; the second read
goes backwards and finds most of the row in the cache. Plain PyTorch reads or writes a logit about
ten times. On H200 a row of 151,936 takes 0.14 to 0.21 us of all multiprocessors; bandwidth is the
limit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minifleming.kernels.jit import cdiv, jit, tl

LANES, WARPS = 2048, 32  # running sums of a row, 2 per thread, each over 16 bytes at a time
LOW = -1e30  # used for -inf, so that 0 · LOW is 0


@jit
def row_kernel(logits, ids, factor, old, logprob, entropy, coefficient, loss, columns, stride,
               inverse, low, high, KIND: tl.constexpr, WRITE: tl.constexpr, LOW: tl.constexpr,
               BLOCKS: tl.constexpr, LANES: tl.constexpr, WIDTH: tl.constexpr):
    """One row: 2^x is the machine's exponential, so exp(x / τ) is 2^(k x). ``top``, ``total``,
    ``moment`` of each lane: m, Σ 2^(k (z - m)), Σ (z - m) 2^(k (z - m)); a lane that saw nothing
    has m = LOW and counts as 0 in the end."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    k = inverse * 1.4426950408889634
    chosen = tl.load(ids + row).to(tl.int32)
    picked = tl.load(logits + chosen).to(tl.float32)
    here = tl.arange(0, LANES)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    top = tl.full((LANES,), LOW, tl.float32)
    total, moment = tl.zeros((LANES,), tl.float32), tl.zeros((LANES,), tl.float32)
    for block in range(BLOCKS):
        start = block * LANES * WIDTH
        z = tl.load(logits + start + here, mask=here < columns - start, other=LOW).to(tl.float32)
        higher = tl.maximum(top, tl.max(z, 1))
        away = tl.maximum(z - higher[:, None], LOW, propagate_nan=tl.PropagateNan.ALL)
        e = tl.exp2(away * k)
        fall = top - higher
        shrink = tl.exp2(fall * k)
        moment = (moment + total * fall) * shrink + tl.sum(away * e, 1)
        total = total * shrink + tl.sum(e, 1)
        top = higher
    m = tl.max(top, 0)
    fall = top - m
    shrink = tl.exp2(fall * k)
    S = tl.sum(total * shrink, 0)
    moment = tl.sum((moment + total * fall) * shrink, 0)
    log_S = tl.log2(S)
    l = (picked - m) * inverse - log_S * 0.6931471805599453
    tl.store(logprob + row, l)
    tl.store(entropy + row, log_S * 0.6931471805599453 - moment / S * inverse)
    if WRITE:
        amount = tl.load(factor + row)
        c, value = amount, amount * l
        if KIND != "weighted":
            ratio = tl.exp(l - tl.load(old + row))
            bounded = tl.minimum(tl.maximum(ratio, 1 - low), 1 + high)
            if KIND == "token":
                free = ratio * amount <= bounded * amount  # at a tie the gradient is that of ρ A
                c = tl.where(free, -ratio * amount, 0.0)
                value = tl.where(free, -ratio * amount, -bounded * amount)
            else:
                c, value = -bounded * amount, -bounded * amount * l
        c = tl.where(amount == 0, 0.0, c)
        tl.store(coefficient + row, c)
        tl.store(loss + row, tl.where(amount == 0, 0.0, value))
        c = c * inverse
        for block in range(BLOCKS):
            # backwards: what was read last is still in the cache
            start = (BLOCKS - 1 - block) * LANES * WIDTH
            at, inside = logits + start + here, here < columns - start
            if c == 0:  # whatever the row is; nor is it read
                tl.store(at, tl.zeros((LANES, WIDTH), logits.dtype.element_ty), mask=inside)
            else:
                z = tl.load(at, mask=inside, other=LOW).to(tl.float32)
                dz = tl.where(here == chosen - start, c, 0.0) - c * tl.exp2((z - m) * k - log_S)
                tl.store(at, dz.to(logits.dtype.element_ty), mask=inside)


def fused_logprob_loss_rows(logits: Tensor, ids: Tensor, found: list[Tensor], factor: Tensor | None,
                            old: Tensor | None, kind: str, low: float, high: float,
                            temperature: float) -> None:
    """The kernel on logits [R, V], rows strided; ids int64 and the others fp32, [R] contiguous.
    Fills ``found`` (log π and entropy); with a ``factor`` also its c and loss, and replaces the
    logits by dz."""
    write, factor = factor is not None, ids if factor is None else factor
    old = factor if old is None else old
    assert logits.dtype in (torch.float32, torch.bfloat16) and logits.stride(1) == 1
    assert ids.dtype == torch.int64
    assert all(x.dtype == torch.float32 for x in found)
    assert (not write or factor.dtype == old.dtype == torch.float32)
    assert all(x.shape == (len(logits),) and x.is_contiguous() for x in (ids, *found, factor, old))
    columns, width = logits.shape[1], 16 // logits.itemsize
    row_kernel[len(logits),](logits, ids, factor, old, *found, columns, logits.stride(0),
                             1 / temperature, low, high, KIND=kind, WRITE=write, LOW=LOW,
                             BLOCKS=cdiv(columns, LANES * width), LANES=LANES, WIDTH=width,
                             num_warps=WARPS)
