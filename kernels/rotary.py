"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864).

A pair (a, b) = (x[i], x[i + D/2]) of a head is rotated by an angle:

    forward    a' = a cos - b sin,   b' = b cos + a sin
    backward   the same with the opposite angle: a rotation's inverse is its transpose

``rotary_qk`` rotates the queries and keys of training in one launch. Memory traffic per bf16
element: 4 bytes, read and written once; plain PyTorch moves 20 in 5 launches each way, for q and
for k (two products, a negation, a concatenation, a sum). With six FLOP per pair, memory traffic is
the limit. 7B's 8,192 tokens of 28 + 4 heads of 128 are 134 MB, 0.03 ms at 4.3 TB/s instead of 0.16
ms.

``rotary_and_cache`` does everything between the q, k, v product and attention when each row decodes
one token: the norms of the heads (Qwen3), the rotation, and the copy of k and v to the cache. 64
rows of 7B are 1.2 MB, 0.3 us, so latency is the limit: one launch of about 2 us, two programs per
row, replaces 37 of the reference (53 with the norms).

Arithmetic is fp32 with one rounding at the end, and in the norms where the reference rounds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minifleming.kernels import reference
from minifleming.kernels.jit import cdiv, jit, on_gpu, power_of_2, tl

PAIRS = 1024  # per program: with 128 threads, 16-byte loads of each half, cos and sin in bf16


def rotary_qk(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Each token's heads turned, differentiable. q [N, H, D], k [N, K, D]; cos, sin [N, D], whose
    halves are equal"""
    return RotaryFunction.apply(cos, sin, on_gpu(q, k, cos, sin), q, k)


def rotary_and_cache(qkv: Tensor, positions: Tensor, lengths: Tensor, cos_table: Tensor,
                     sin_table: Tensor, keys: Tensor, values: Tensor, q_out: Tensor,
                     q_norm: Tensor | None = None, k_norm: Tensor | None = None,
                     eps: float = 1e-6) -> None:
    """One decoded token per row, in static buffers: writes q of row i to q_out[i], and its k and v
    to index lengths[i] of slot i.

    qkv [n, (H + 2K) D]; positions, lengths [n] int32; tables [longest, D/2]; keys, values [slots,
    K, T, D]; q_out [n, H, D]; weights of the heads' norms [D]. A row with a negative length is
    idle: its q is 0 and its k and v are not stored, nor are those of a row whose slot is full.
    Positions are clamped to the tables.
    """
    given = [t for t in (q_norm, k_norm) if t is not None]
    fused = on_gpu(qkv, positions, lengths, cos_table, sin_table, keys, values, q_out, *given)
    run = launch_cache if fused else reference.rotary_and_cache
    run(qkv, positions, lengths, cos_table, sin_table, keys, values, q_out, q_norm, k_norm, eps)


@jit
def turn(a, b, cos, sin):
    return a * cos - b * sin, b * cos + a * sin


@jit
def store_halves(place, a, b, inside, HALF: tl.constexpr):
    tl.store(place, a.to(place.dtype.element_ty), mask=inside)
    tl.store(place + HALF, b.to(place.dtype.element_ty), mask=inside)


@jit
def turn_heads(block, x, y, cos, sin, tokens, x_row, x_head, cos_row, sin_row, HEADS: tl.constexpr,
               HALF: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, SIGN: tl.constexpr):
    """ROWS heads, of whichever tokens. x strided; y [tokens, HEADS, 2 HALF] contiguous."""
    head = block * ROWS + tl.arange(0, ROWS)[:, None]
    token, pair = (head // HEADS).to(tl.int64), tl.arange(0, WIDTH)[None, :]
    inside = (token < tokens) & (pair < HALF)
    source = x + token * x_row + (head % HEADS).to(tl.int64) * x_head + pair
    a = tl.load(source, mask=inside).to(tl.float32)
    b = tl.load(source + HALF, mask=inside).to(tl.float32)
    c = tl.load(cos + token * cos_row + pair, mask=inside).to(tl.float32)
    s = tl.load(sin + token * sin_row + pair, mask=inside).to(tl.float32) * SIGN
    a, b = turn(a, b, c, s)
    store_halves(y + head.to(tl.int64) * (2 * HALF) + pair, a, b, inside, HALF)


@jit
def rotary_kernel(q, k, q_out, k_out, cos, sin, tokens, q_blocks, q_row, q_head, k_row, k_head,
                  cos_row, sin_row, H: tl.constexpr, K: tl.constexpr, HALF: tl.constexpr,
                  ROWS: tl.constexpr, WIDTH: tl.constexpr, SIGN: tl.constexpr):
    """The first q_blocks programs take the heads of q, the others those of k."""
    at = tl.program_id(0)
    if at < q_blocks:
        turn_heads(at, q, q_out, cos, sin, tokens, q_row, q_head, cos_row, sin_row, H, HALF, ROWS,
                   WIDTH, SIGN)
    else:
        turn_heads(at - q_blocks, k, k_out, cos, sin, tokens, k_row, k_head, cos_row, sin_row, K,
                   HALF, ROWS, WIDTH, SIGN)


@jit
def load_heads(x, weight, head, pair, inside, eps, HALF: tl.constexpr):
    """Both halves of some heads in fp32; normalised where there is a weight, rounded where the
    reference rounds."""
    a = tl.load(x + head * (2 * HALF) + pair, mask=inside, other=0).to(tl.float32)
    b = tl.load(x + head * (2 * HALF) + pair + HALF, mask=inside, other=0).to(tl.float32)
    if weight is not None:
        wa = tl.load(weight + pair, mask=pair < HALF, other=0).to(tl.float32)
        wb = tl.load(weight + pair + HALF, mask=pair < HALF, other=0).to(tl.float32)
        r = tl.rsqrt(tl.sum(a * a + b * b, 1) / (2 * HALF) + eps)[:, None]
        a = (a * r).to(x.dtype.element_ty).to(tl.float32)
        b = (b * r).to(x.dtype.element_ty).to(tl.float32)
        a = (wa * a).to(x.dtype.element_ty).to(tl.float32)
        b = (wb * b).to(x.dtype.element_ty).to(tl.float32)
    return a, b


@jit
def queries(qkv, q_out, weight, cos, sin, pair, own, eps, H: tl.constexpr, HALF: tl.constexpr,
            ROWS: tl.constexpr):
    """All q of a row; zeros where it is idle, whatever stands in qkv."""
    head = tl.arange(0, ROWS)[:, None]
    inside = (head < H) & (pair < HALF)
    a, b = load_heads(qkv, weight, head, pair, inside, eps, HALF)
    a, b = turn(a, b, cos, sin)
    a, b = tl.where(own >= 0, a, 0.0), tl.where(own >= 0, b, 0.0)
    store_halves(q_out + head * (2 * HALF) + pair, a, b, inside, HALF)


@jit
def keys_and_values(qkv, keys, values, weight, cos, sin, pair, own, places, to_head, eps,
                    H: tl.constexpr, K: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr):
    """All k and v of a row, to their place in each head of the slot, if it has one."""
    head = tl.arange(0, ROWS)[:, None]
    inside = (head < K) & (pair < HALF)
    a, b = load_heads(qkv + H * (2 * HALF), weight, head, pair, inside, eps, HALF)
    va, vb = load_heads(qkv + (H + K) * (2 * HALF), None, head, pair, inside, eps, HALF)
    a, b = turn(a, b, cos, sin)
    at = head.to(tl.int64) * to_head + pair
    if own >= 0 and own < places:
        store_halves(keys + at, a, b, inside, HALF)
        store_halves(values + at, va, vb, inside, HALF)


@jit
def cache_kernel(qkv, positions, lengths, cos_table, sin_table, keys, values, q_out, q_norm, k_norm,
                 longest, places, qkv_row, to_slot, to_head, to_place, eps, H: tl.constexpr,
                 K: tl.constexpr, HALF: tl.constexpr, H_ROWS: tl.constexpr, K_ROWS: tl.constexpr,
                 WIDTH: tl.constexpr):
    """Programs (row, 0) take the row's q, (row, 1) its k and v. q_norm and k_norm may be None."""
    row = tl.program_id(0).to(tl.int64)
    own, position = tl.load(lengths + row), tl.load(positions + row)
    pair = tl.arange(0, WIDTH)[None, :]
    angle = tl.minimum(tl.maximum(position, 0), longest - 1).to(tl.int64) * HALF + pair
    cos = tl.load(cos_table + angle, mask=pair < HALF, other=0).to(tl.float32)
    sin = tl.load(sin_table + angle, mask=pair < HALF, other=0).to(tl.float32)
    if tl.program_id(1) == 0:
        queries(qkv + row * qkv_row, q_out + row * (H * 2 * HALF), q_norm, cos, sin, pair, own, eps,
                H, HALF, H_ROWS)
    else:
        place = row * to_slot + own.to(tl.int64) * to_place
        keys_and_values(qkv + row * qkv_row, keys + place, values + place, k_norm, cos, sin, pair,
                        own, places, to_head, eps, H, K, HALF, K_ROWS)


class RotaryFunction(torch.autograd.Function):
    """q, or q and k, under autograd; cos and sin have no gradient."""

    @staticmethod
    def forward(ctx, cos: Tensor, sin: Tensor, kernel: bool, *heads: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(cos, sin)
        ctx.run = launch_rotary if kernel else plain_rotary
        return ctx.run(heads, cos, sin, 1.0)

    @staticmethod
    def backward(ctx, *above: Tensor):
        return None, None, None, *ctx.run(above, *ctx.saved_tensors, -1.0)


def plain_rotary(heads: tuple[Tensor, ...], cos: Tensor, sin: Tensor,
                 sign: float) -> tuple[Tensor, ...]:
    """``reference.rotary`` in two passes of PyTorch, where that has five; rounded once, to x's
    dtype."""
    half, cos, sin = cos.shape[1] // 2, cos[:, None], sin[:, None, : cos.shape[1] // 2]
    found = []
    for x in heads:
        y = x * cos
        y[..., :half].addcmul_(x[..., half:], sin, value=-sign)
        y[..., half:].addcmul_(x[..., :half], sin, value=sign)
        found.append(y.to(x.dtype))
    return tuple(found)


def launch_rotary(heads: tuple[Tensor, ...], cos: Tensor, sin: Tensor,
                  sign: float) -> tuple[Tensor, ...]:
    """One or two tensors [N, heads, D] of one dtype, the last dimension contiguous or copied to be
    so."""
    heads = [x if x.stride(-1) == 1 else x.contiguous() for x in heads]
    q, k = heads[0], heads[-1]
    N, H, D = q.shape
    K = k.shape[1]
    assert k.shape == (N, K, D) and cos.shape == sin.shape == (N, D) and D % 2 == 0
    assert N * max(H, K) < 2**31
    assert cos.stride(1) == sin.stride(1) == 1 and q.dtype == k.dtype and cos.dtype == sin.dtype
    out = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in heads]
    WIDTH = power_of_2(D // 2)
    ROWS = max(1, PAIRS // WIDTH)
    q_blocks, k_blocks = cdiv(N * H, ROWS), cdiv(N * K, ROWS) if len(heads) == 2 else 0
    if q_blocks + k_blocks:
        rotary_kernel[q_blocks + k_blocks,](q, k, out[0], out[-1], cos, sin, N, q_blocks,
                                            *q.stride()[:2], *k.stride()[:2], cos.stride(0),
                                            sin.stride(0), H=H, K=K, HALF=D // 2, ROWS=ROWS,
                                            WIDTH=WIDTH, SIGN=sign)
    return tuple(out)


def launch_cache(qkv, positions, lengths, cos_table, sin_table, keys, values, q_out, q_norm, k_norm,
                 eps) -> None:
    """The arguments of ``rotary_and_cache``, all on one device: nothing of them is read here."""
    n, H, D = q_out.shape
    slots, K, T, _ = keys.shape
    assert qkv.shape == (n, (H + 2 * K) * D) and positions.shape == lengths.shape == (n,)
    assert n <= slots
    assert keys.shape == values.shape == (slots, K, T, D)
    assert keys.stride() == values.stride() and keys.stride(3) == 1
    assert cos_table.shape == sin_table.shape == (len(cos_table), D // 2) and len(cos_table) > 0
    assert D % 2 == 0
    assert qkv.stride(1) == 1
    for t in (positions, lengths, cos_table, sin_table, q_out):
        assert t.is_contiguous()
    for w in (q_norm, k_norm):
        assert w is None or (w.shape == (D,) and w.is_contiguous() and w.dtype == qkv.dtype)
    if n:
        cache_kernel[n, 2](qkv, positions, lengths, cos_table, sin_table, keys, values, q_out,
                           q_norm, k_norm, len(cos_table), T, qkv.stride(0), *keys.stride()[:3],
                           eps, H=H, K=K, HALF=D // 2, H_ROWS=power_of_2(H), K_ROWS=power_of_2(K),
                           WIDTH=power_of_2(D // 2))
