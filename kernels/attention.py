"""Attention over the segments of a packed row: a group's prompt is stored once and read by all its
answers.

With s = q kᵀ / √D over the visible keys of a query (its whole prompt, and its own segment up to
itself):

    forward    L = log Σ exp s        p = exp(s - L)        o = p v
    backward   δ = Σ do · o           ds = p (do vᵀ - δ)    dv = pᵀ do
               dq = ds k / √D         dk = dsᵀ q / √D

The algorithm is that of Dao 2023 (arXiv:2307.08691): p is never stored; L is accumulated block by
block, and p is recomputed from it in powers of 2. One kernel computes o and L, one dq and δ, one dk
and dv. The queries that see a block of keys form one range: those of its own segment, followed by
those of its readers. A prompt's block therefore takes many times the work of another block; it is
divided into pieces, and a fourth kernel adds them up in a fixed order. There are no atomics, so
results are bit-identical between runs.

FLOPs per head and (query, key) pair: 4 D forward, 14 D backward (10 D if dk, dv and dq came from
one pass with atomics). Memory traffic is negligible; plain PyTorch moves about 20 bytes per pair
and head. 7B, a prompt of 256 and 8 answers of 1,024 (6.3 M pairs, 28 heads of width 128): forward
90 GFLOP, 0.11 ms at 788 TFLOP/s; backward 317 GFLOP, 0.40 ms. We expect half of that rate, since
the exponentials take two thirds of the time of the products and overlap with them only in part:
0.23 and 0.8 ms per layer. 0.5B (14 heads of 64): 23 and 79 GFLOP, about 0.07 and 0.25 ms.

PyTorch's flash attention (one call for each segment with itself, one for the readers with their
prompts, merged by L) is better for segments so long that its higher rate outweighs a second pass
over o, L and the gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minifleming.kernels.attention_schedule import tables, tiles
from minifleming.kernels.flash_merge import flash_merge_attention
from minifleming.kernels.jit import fits_shared_memory, jit, on_gpu, tl
from minifleming.kernels.segments import Segments


def attention(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """softmax(q kᵀ / √D) v over the visible keys, differentiable.

    q [N, H, D]; k, v [N, K, D] -> [N, H, D]
    """
    if on_gpu(q, k, v) and fits_shared_memory(q):
        return AttentionFunction.apply(q, k, v, segments)
    return flash_merge_attention(q, k, v, segments)


@jit
def num_key_blocks(first, start, end, size, EDGE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Number of key blocks that a query block sees completely; with EDGE, of all others."""
    if EDGE:
        count = (size % BN + BN - 1) // BN + (tl.minimum(first + BM, end) - first + BN - 1) // BN
    else:
        count = size // BN + (first - start) // BN
    return count


@jit
def key_block_start(block, first, start, end, before, size, EDGE: tl.constexpr, BN: tl.constexpr):
    """(start of a key block, end of the keys).

    Whole blocks of the prompt come first, then those of the queries' own segment; with EDGE, the
    rest of the prompt, if any, then the diagonal.
    """
    shared, rest = size // BN, (size % BN + BN - 1) // BN
    if EDGE:
        prompt = block < rest
        at = tl.where(prompt, before + shared * BN, first + (block - rest) * BN)
        stop = tl.where(prompt, before + size, end)
    else:
        at = tl.where(block < shared, before + block * BN, start + (block - shared) * BN)
        stop = at + BN
    return at, stop


@jit
def forward_kernel(q, k, v, o, stats, work, scale, tokens, q_token, q_head, k_token, k_head,
                   v_token, v_head, H: tl.constexpr, G: tl.constexpr, D: tl.constexpr,
                   BM: tl.constexpr, BN: tl.constexpr):
    head, work = (tl.program_id(0) % H).to(tl.int64), work + tl.program_id(0) // H * 5
    first, start, end = tl.load(work), tl.load(work + 1), tl.load(work + 2)
    before, size = tl.load(work + 3), tl.load(work + 4)
    row, column, dim = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, D)[None, :]
    there = first + row < end
    # 32 bits; a block's start has 64
    k_tile = column[:, None] * k_token + dim
    v_tile = column[:, None] * v_token + dim
    k, v = k + head // G * k_head, v + head // G * v_head
    q_tile = row[:, None] * q_token + dim
    query = tl.load(q + head * q_head + first.to(tl.int64) * q_token + q_tile,
                    mask=there[:, None], other=0)
    most, total = tl.full([BM], float("-inf"), tl.float32), tl.full([BM], 0.0, tl.float32)
    out = tl.full([BM, D], 0.0, tl.float32)
    exponent = scale * 1.4426950408889634
    for EDGE in tl.static_range(2):
        for block in range(num_key_blocks(first, start, end, size, EDGE, BM, BN)):
            at, stop = key_block_start(block, first, start, end, before, size, EDGE, BN)
            inside, other = ((at + column < stop)[:, None], 0) if EDGE else (None, None)
            keys = tl.load(k + at.to(tl.int64) * k_token + k_tile, mask=inside, other=other)
            values = tl.load(v + at.to(tl.int64) * v_token + v_tile, mask=inside, other=other)
            scores = tl.dot(query, tl.trans(keys), input_precision="ieee")
            if EDGE:
                seen = (at + column)[None, :] <= tl.minimum(first + row, stop - 1)[:, None]
                scores = tl.where(seen, scores, float("-inf"))
            above = tl.maximum(most, tl.max(scores, 1) * exponent)
            weights, shrink = tl.exp2(scores * exponent - above[:, None]), tl.exp2(most - above)
            total = total * shrink + tl.sum(weights, 1)
            out = tl.dot(weights.to(values.dtype), values, out * shrink[:, None],
                         input_precision="ieee")
            most = above
    to = (first.to(tl.int64) * H + head) * D + (row[:, None] * (H * D) + dim)
    tl.store(o + to, (out / total[:, None]).to(o.dtype.element_ty), mask=there[:, None])
    tl.store(stats + (head * tokens + first + row) * 2, most + tl.log2(total), mask=there)


@jit
def backward_dq_kernel(q, k, v, o, do, dq, stats, work, scale, tokens, q_token, q_head, k_token,
                       k_head, v_token, v_head, H: tl.constexpr, G: tl.constexpr, D: tl.constexpr,
                       BM: tl.constexpr, BN: tl.constexpr):
    head, work = (tl.program_id(0) % H).to(tl.int64), work + tl.program_id(0) // H * 5
    first, start, end = tl.load(work), tl.load(work + 1), tl.load(work + 2)
    before, size = tl.load(work + 3), tl.load(work + 4)
    row, column, dim = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, D)[None, :]
    there = first + row < end
    k_tile, v_tile = column[:, None] * k_token + dim, column[:, None] * v_token + dim
    k, v = k + head // G * k_head, v + head // G * v_head
    q_tile = row[:, None] * q_token + dim
    query = tl.load(q + head * q_head + first.to(tl.int64) * q_token + q_tile,
                    mask=there[:, None], other=0)
    to = (first.to(tl.int64) * H + head) * D + (row[:, None] * (H * D) + dim)
    above = tl.load(do + to, mask=there[:, None], other=0)
    found = tl.load(o + to, mask=there[:, None], other=0)
    stats += (head * tokens + first + row) * 2
    log = tl.load(stats, mask=there, other=0)
    delta = tl.sum(found.to(tl.float32) * above.to(tl.float32), 1)
    tl.store(stats + 1, delta, mask=there)
    out = tl.full([BM, D], 0.0, tl.float32)
    exponent = scale * 1.4426950408889634
    for EDGE in tl.static_range(2):
        for block in range(num_key_blocks(first, start, end, size, EDGE, BM, BN)):
            at, stop = key_block_start(block, first, start, end, before, size, EDGE, BN)
            inside, other = ((at + column < stop)[:, None], 0) if EDGE else (None, None)
            keys = tl.load(k + at.to(tl.int64) * k_token + k_tile, mask=inside, other=other)
            values = tl.load(v + at.to(tl.int64) * v_token + v_tile, mask=inside, other=other)
            scores = tl.dot(query, tl.trans(keys), input_precision="ieee")
            lift = tl.dot(above, tl.trans(values), input_precision="ieee")
            weights = tl.exp2(scores * exponent - log[:, None])
            if EDGE:
                seen = (at + column)[None, :] <= tl.minimum(first + row, stop - 1)[:, None]
                weights = tl.where(seen, weights, 0.0)
            dscores = weights * (lift - delta[:, None])
            out = tl.dot(dscores.to(keys.dtype), keys, out, input_precision="ieee")
    tl.store(dq + to, (out * scale).to(dq.dtype.element_ty), mask=there[:, None])


@jit
def backward_dkv_kernel(q, k, v, do, dk, dv, parts, stats, work, scale, tokens, q_token, q_head,
                        k_token, k_head, v_token, v_head, K: tl.constexpr, G: tl.constexpr,
                        D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Queries from ``until`` on contribute nothing: their do is loaded as 0."""
    head, work = (tl.program_id(0) % K).to(tl.int64), work + tl.program_id(0) // K * 6
    first, end, until = tl.load(work), tl.load(work + 1), tl.load(work + 2)
    begin, stop, which = tl.load(work + 3), tl.load(work + 4), tl.arange(0, 4)[None, :]
    row, column, dim = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, D)[None, :]
    inside, key_at = (first + column < end)[:, None], (first + column).to(tl.int64)[:, None]
    keys = tl.load(k + head * k_head + key_at * k_token + dim, mask=inside, other=0)
    values = tl.load(v + head * v_head + key_at * v_token + dim, mask=inside, other=0)
    key, value = tl.full([BN, D], 0.0, tl.float32), tl.full([BN, D], 0.0, tl.float32)
    exponent = scale * 1.4426950408889634
    diagonal = BN // BM * G
    for EDGE in tl.static_range(2):
        low = begin if EDGE else tl.maximum(begin, diagonal)
        high = tl.minimum(stop, diagonal) if EDGE else stop
        for unit in range(low, high):
            at, reader = first + unit // G * BM, head * G + unit % G
            there, token = (at + row < until)[:, None], (at + row).to(tl.int64)[:, None]
            query = tl.load(q + reader * q_head + token * q_token + dim, mask=there, other=0)
            above = tl.load(do + (token * (K * G) + reader) * D + dim, mask=there, other=0)
            scores = tl.dot(keys, tl.trans(query), input_precision="ieee")
            lift = tl.dot(values, tl.trans(above), input_precision="ieee")
            # Both numbers of a query, loaded twice: a tile of fewer values than threads would be
            # read by each thread anew.
            both = tl.load(stats + (reader * tokens + token) * 2 + which % 2, mask=there, other=0)
            log = tl.sum(tl.where(which == 0, both, 0.0), 1)
            delta = tl.sum(tl.where(which == 1, both, 0.0), 1)
            weights = tl.exp2(scores * exponent - log[None, :])
            if EDGE:
                weights = tl.where((first + column)[:, None] <= (at + row)[None, :], weights, 0.0)
            dscores = weights * (lift - delta[None, :])
            value = tl.dot(weights.to(above.dtype), above, value, input_precision="ieee")
            key = tl.dot(dscores.to(query.dtype), query, key, input_precision="ieee")
    # The addresses are loaded again: kept over the loops they would occupy registers.
    first = tl.load(work, volatile=True)
    end = tl.load(work + 1, volatile=True)
    slot = tl.load(work + 5, volatile=True)
    if slot < 0:
        to = (first.to(tl.int64) * K + head) * D + (column[:, None] * (K * D) + dim)
        tl.store(dk + to, (key * scale).to(dk.dtype.element_ty),
                 mask=(first + column < end)[:, None])
        tl.store(dv + to, value.to(dv.dtype.element_ty), mask=(first + column < end)[:, None])
    else:
        to = (slot * K + head) * (2 * BN * D) + (column[:, None] * D + dim)
        tl.store(parts + to, key * scale)
        tl.store(parts + to + BN * D, value)


@jit
def sum_kernel(parts, dk, dv, work, K: tl.constexpr, D: tl.constexpr, BN: tl.constexpr):
    """Adds the pieces of a block in order."""
    head, work = (tl.program_id(0) % K).to(tl.int64), work + tl.program_id(0) // K * 4
    first, end, begin, stop = tl.load(work), tl.load(work + 1), tl.load(work + 2), tl.load(work + 3)
    column, dim = tl.arange(0, BN)[:, None], tl.arange(0, D)[None, :]
    key, value = tl.full([BN, D], 0.0, tl.float32), tl.full([BN, D], 0.0, tl.float32)
    for slot in range(begin, stop):
        part = parts + (slot * K + head) * (2 * BN * D) + (column * D + dim)
        key += tl.load(part)
        value += tl.load(part + BN * D)
    to = (first.to(tl.int64) * K + head) * D + (column * (K * D) + dim)
    tl.store(dk + to, key.to(dk.dtype.element_ty), mask=first + column < end)
    tl.store(dv + to, value.to(dv.dtype.element_ty), mask=first + column < end)


def launch_forward(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
    """(o [N, H, D], stats [H, N, 2]): log2 Σ 2^score of each query, and Σ o · do in the backward
    pass."""
    (N, H, D), K = q.shape, k.shape[1]
    assert k.shape == v.shape == (N, K, D) and H % K == 0, (q.shape, k.shape)
    assert N == segments.tokens < 2**31 - 2**10
    assert q.dtype == k.dtype == v.dtype and q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
    # a tile's offsets: 32 bits
    assert D in (16, 32, 64, 128) and max(x.stride(0) for x in (q, k, v)) < 2**23
    o = torch.empty(N, H, D, dtype=q.dtype, device=q.device)
    stats = torch.empty(H, N, 2, dtype=torch.float32, device=q.device)
    wide = q.dtype == torch.float32
    work = tables(segments, q.device, D, wide, K, H // K)[0]
    BM, BN, warps, stages = tiles(D, wide)[0]
    if N:
        forward_kernel[(len(work) * H,)](q, k, v, o, stats, work, D**-0.5, N, *q.stride()[:2],
                                         *k.stride()[:2], *v.stride()[:2], H, H // K, D, BM, BN,
                                         num_warps=warps, num_stages=stages)
    return o, stats


def launch_backward(q: Tensor, k: Tensor, v: Tensor, o: Tensor, do: Tensor, stats: Tensor,
                    segments: Segments) -> tuple[Tensor, Tensor, Tensor]:
    """dq [N, H, D], dk and dv [N, K, D], contiguous, as o and do are."""
    (N, H, D), K, wide = q.shape, k.shape[1], q.dtype == torch.float32
    assert do.shape == o.shape == q.shape and do.dtype == q.dtype and do.is_contiguous()
    assert o.is_contiguous()
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    if not N:
        return dq, dk, dv
    _, queries, pieces, sums, slots = tables(segments, q.device, D, wide, K, H // K)
    strides = (*q.stride()[:2], *k.stride()[:2], *v.stride()[:2])
    _, (BM, BN, warps, stages), (rows, columns, *more) = tiles(D, wide)
    backward_dq_kernel[(len(queries) * H,)](q, k, v, o, do, dq, stats, queries, D**-0.5, N,
                                            *strides, H, H // K, D, BM, BN, num_warps=warps,
                                            num_stages=stages)
    parts = torch.empty(slots, K, 2, columns, D, dtype=torch.float32, device=q.device)
    backward_dkv_kernel[(len(pieces) * K,)](q, k, v, do, dk, dv, parts, stats, pieces, D**-0.5, N,
                                            *strides, K, H // K, D, rows, columns,
                                            num_warps=more[0], num_stages=more[1])
    if slots:
        sum_kernel[(len(sums) * K,)](parts, dk, dv, sums, K, D, columns, num_warps=8)
    return dq, dk, dv


class AttentionFunction(torch.autograd.Function):
    """Saves q, k, v, o and two numbers per query and head for the backward pass."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
        o, stats = launch_forward(q, k, v, segments)
        ctx.save_for_backward(q, k, v, o, stats)
        ctx.segments = segments
        return o

    @staticmethod
    def backward(ctx, do: Tensor):
        q, k, v, o, stats = ctx.saved_tensors
        return *launch_backward(q, k, v, o, do.contiguous(), stats, ctx.segments), None
