"""Attention over segments, for training: a prompt stands once for its whole group, and all its answers read it.

With s = q kᵀ / √D over what a query sees (all of the segment that its own reads, its own up to itself):

    forward    L = log Σ exp s        p = exp(s - L)        o = p v
    backward   δ = Σ do · o           ds = p (do vᵀ - δ)    dv = pᵀ do    dq = ds k / √D    dk = dsᵀ q / √D

after Dao 2023 (arXiv:2307.08691): p is never stored, L is built up block by block and p made again from it (in powers
of 2, which the GPU has). One kernel gives o and L; one dq and δ; one dk and dv. The queries that see a block of keys
are one range, its segment's and, right behind, its readers'; the work on a prompt's block is thus many times that of
another, and is cut into pieces, which a fourth kernel adds up in order. No atomics: the same bits every run.

Flops, for each head and pair of query and key: 4 D forward, 14 D backward (10 D if dk, dv and dq came of one pass, by
atomics or in turns). Bytes hardly count, though plain PyTorch moves some 20 a pair and head. 7B, a prompt of 256 and 8
answers of 1,024 (6.3 M pairs, 28 heads of width 128): forward 90 GFLOP, 0.11 ms at 788 TFLOP/s, backward 317 GFLOP,
0.40 ms. Half of that rate is expected, since exponentials and what is around them take two thirds of the products' time
and are hidden only in part: 0.23 and 0.8 ms a layer. 0.5B (14 heads of 64): 23 and 79 GFLOP, some 0.07 and 0.25 ms.

PyTorch's flash attention (a call of all segments with themselves, one of readers with prompts, merged by L) is the
better choice where segments are so long that its higher rate outweighs a second pass over o, L and the gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minifleming.kernels.flash_merge import flash_merge_attention
from minifleming.kernels.jit import cdiv, fits_shared_memory, jit, on_gpu, tl
from minifleming.kernels.segments import Segments

PROGRAMS = 528  # among which dk and dv are shared out: four for each of 132 multiprocessors
PIECE = 32  # blocks of queries; less is not worth the sum of one more piece


def attention(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """softmax(q kᵀ / √D) v over what a token sees, differentiable. q [N, H, D]; k, v [N, K, D] -> [N, H, D]"""
    run = Attention.apply if on_gpu(q, k, v) and fits_shared_memory(q) else flash_merge_attention
    return run(q, k, v, segments)


@jit
def blocks(first, start, end, size, EDGE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """How many blocks of keys a block of queries sees in whole; how many others (EDGE)."""
    if EDGE:
        count = (size % BN + BN - 1) // BN + (tl.minimum(first + BM, end) - first + BN - 1) // BN
    else:
        count = size // BN + (first - start) // BN
    return count


@jit
def key_block_start(block, first, start, end, before, size, EDGE: tl.constexpr, BN: tl.constexpr):
    """(where a block of keys begins, where keys end): whole blocks of the prompt, then of the queries' own segment
    before them; with EDGE what is left of the prompt, if any, then the diagonal."""
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
def forward_kernel(q, k, v, o, stats, work, scale, tokens, q_token, q_head, k_token, k_head, v_token, v_head,
                   H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    head, work = (tl.program_id(0) % H).to(tl.int64), work + tl.program_id(0) // H * 5
    first, start, end = tl.load(work), tl.load(work + 1), tl.load(work + 2)
    before, size = tl.load(work + 3), tl.load(work + 4)
    row, column, dim = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, D)[None, :]
    there = first + row < end
    k_tile, v_tile = column[:, None] * k_token + dim, column[:, None] * v_token + dim  # 32 bits; a block's start has 64
    k, v = k + head // G * k_head, v + head // G * v_head
    query = tl.load(q + head * q_head + first.to(tl.int64) * q_token + (row[:, None] * q_token + dim),
                    mask=there[:, None], other=0)
    most, total = tl.full([BM], float("-inf"), tl.float32), tl.full([BM], 0.0, tl.float32)
    out = tl.full([BM, D], 0.0, tl.float32)
    exponent = scale * 1.4426950408889634
    for EDGE in tl.static_range(2):
        for block in range(blocks(first, start, end, size, EDGE, BM, BN)):
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
            out = tl.dot(weights.to(values.dtype), values, out * shrink[:, None], input_precision="ieee")
            most = above
    to = (first.to(tl.int64) * H + head) * D + (row[:, None] * (H * D) + dim)
    tl.store(o + to, (out / total[:, None]).to(o.dtype.element_ty), mask=there[:, None])
    tl.store(stats + (head * tokens + first + row) * 2, most + tl.log2(total), mask=there)


@jit
def backward_dq_kernel(q, k, v, o, do, dq, stats, work, scale, tokens, q_token, q_head, k_token, k_head, v_token, v_head,
                   H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    head, work = (tl.program_id(0) % H).to(tl.int64), work + tl.program_id(0) // H * 5
    first, start, end = tl.load(work), tl.load(work + 1), tl.load(work + 2)
    before, size = tl.load(work + 3), tl.load(work + 4)
    row, column, dim = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, D)[None, :]
    there = first + row < end
    k_tile, v_tile = column[:, None] * k_token + dim, column[:, None] * v_token + dim
    k, v = k + head // G * k_head, v + head // G * v_head
    query = tl.load(q + head * q_head + first.to(tl.int64) * q_token + (row[:, None] * q_token + dim),
                    mask=there[:, None], other=0)
    to = (first.to(tl.int64) * H + head) * D + (row[:, None] * (H * D) + dim)
    above, found = tl.load(do + to, mask=there[:, None], other=0), tl.load(o + to, mask=there[:, None], other=0)
    stats += (head * tokens + first + row) * 2
    log, delta = tl.load(stats, mask=there, other=0), tl.sum(found.to(tl.float32) * above.to(tl.float32), 1)
    tl.store(stats + 1, delta, mask=there)
    out = tl.full([BM, D], 0.0, tl.float32)
    exponent = scale * 1.4426950408889634
    for EDGE in tl.static_range(2):
        for block in range(blocks(first, start, end, size, EDGE, BM, BN)):
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
def backward_dkv_kernel(q, k, v, do, dk, dv, parts, stats, work, scale, tokens, q_token, q_head, k_token, k_head, v_token,
                v_head, K: tl.constexpr, G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Queries from ``until`` on add nothing: their do is 0."""
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
            # Both numbers of a query, twice: a tile of fewer values than threads would be read by each thread anew.
            both = tl.load(stats + (reader * tokens + token) * 2 + which % 2, mask=there, other=0)
            log, delta = tl.sum(tl.where(which == 0, both, 0.0), 1), tl.sum(tl.where(which == 1, both, 0.0), 1)
            weights = tl.exp2(scores * exponent - log[None, :])
            if EDGE:
                weights = tl.where((first + column)[:, None] <= (at + row)[None, :], weights, 0.0)
            dscores = weights * (lift - delta[None, :])
            value = tl.dot(weights.to(above.dtype), above, value, input_precision="ieee")
            key = tl.dot(dscores.to(query.dtype), query, key, input_precision="ieee")
    # Where to write is read again: kept over the loops it would take registers that they need.
    first, end, slot = tl.load(work, volatile=True), tl.load(work + 1, volatile=True), tl.load(work + 5, volatile=True)
    if slot < 0:
        to = (first.to(tl.int64) * K + head) * D + (column[:, None] * (K * D) + dim)
        tl.store(dk + to, (key * scale).to(dk.dtype.element_ty), mask=(first + column < end)[:, None])
        tl.store(dv + to, value.to(dv.dtype.element_ty), mask=(first + column < end)[:, None])
    else:
        to = (slot * K + head) * (2 * BN * D) + (column[:, None] * D + dim)
        tl.store(parts + to, key * scale)
        tl.store(parts + to + BN * D, value)


@jit
def sum_kernel(parts, dk, dv, work, K: tl.constexpr, D: tl.constexpr, BN: tl.constexpr):
    """A block's pieces, in their order."""
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


def tiles(width: int, wide: bool) -> list[tuple[int, int, int, int]]:
    """(queries, keys, warps, stages) of the three kernels for a head's width; ``wide``: fp32, which no tensor core
    multiplies exactly. One block is a multiple of the other, so that only blocks on the diagonal need its mask."""
    if wide:
        return [(32, 32, 4, 1)] * 3
    if width == 128:
        return [(128, 64, 8, 3), (128, 64, 8, 2), (64, 128, 8, 2)]
    return [(128, 64, 8, 3), (64, 64, 4, 3), (64, 64, 4, 3)]


def query_blocks(segments: Segments, block: int) -> list[list[int]]:
    """[first query, start and end of its segment, start and length of what it reads], longest work first."""
    rows = [[at, start, start + length, before, size] for start, length, before, size, _, _ in segments.table().tolist()
            for at in range(start, start + length, block)]
    return sorted(rows, key=lambda row: row[1] - row[0] - row[4])


def key_blocks(segments: Segments, queries: int, keys: int, heads: int, groups: int) -> tuple[list, list, int]:
    """Pieces [first key, end of its segment, end of the queries that see it, unit, last unit, slot or -1], longest
    first; of every block in more than one piece [first key, end, its slots]; the number of slots.

    A segment's readers stand right behind it, so the queries that may see a block's keys are one range. A unit is a
    block of them in one head; the heads of a block follow each other.
    """
    rows = [[at, start + length, reading + readers, groups * cdiv(reading + readers - at, queries)]
            for start, length, _, _, reading, readers in segments.table().tolist()
            for at in range(start, start + length, keys)]
    most = max(PIECE, cdiv(heads * sum(row[3] for row in rows), PROGRAMS))
    pieces, sums, slots = [], [], 0
    for first, end, last, units in rows:
        count = cdiv(units, most)
        bounds = [units * i // count for i in range(count + 1)]
        slot = slots if count > 1 else -1
        pieces += [[first, end, last, *bounds[i : i + 2], slot + i] for i in range(count)]
        if count > 1:
            sums.append([first, end, slots, slots + count])
            slots += count
    return sorted(pieces, key=lambda row: row[3] - row[4]), sums, slots


def tables(segments: Segments, device: torch.device, width: int, wide: bool, heads: int, groups: int) -> tuple:
    """The kernels' tables on the device, made once for all layers: of o, of dq, of dk and dv, of sums; slots."""
    kept, key = vars(segments).setdefault("tables", {}), (device, width, wide, heads, groups)
    if key not in kept:
        forward, queries, keys = tiles(width, wide)
        pieces, sums, slots = key_blocks(segments, *keys[:2], heads, groups)
        made = query_blocks(segments, forward[0]), query_blocks(segments, queries[0]), pieces, sums
        kept[key] = (*(torch.tensor(t, dtype=torch.int32).to(device) for t in made), slots)
    return kept[key]


def launch_forward(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
    """(o [N, H, D], stats [H, N, 2]): of each query log2 Σ 2^score now, Σ o · do in the backward pass."""
    (N, H, D), K = q.shape, k.shape[1]
    assert k.shape == v.shape == (N, K, D) and H % K == 0 and N == segments.tokens < 2**31 - 2**10, (q.shape, k.shape)
    assert q.dtype == k.dtype == v.dtype and q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
    assert D in (16, 32, 64, 128) and max(x.stride(0) for x in (q, k, v)) < 2**23  # a tile's offsets: 32 bits
    o = torch.empty(N, H, D, dtype=q.dtype, device=q.device)
    stats = torch.empty(H, N, 2, dtype=torch.float32, device=q.device)
    wide = q.dtype == torch.float32
    work, BM, BN, warps, stages = tables(segments, q.device, D, wide, K, H // K)[0], *tiles(D, wide)[0]
    if N:
        forward_kernel[(len(work) * H,)](q, k, v, o, stats, work, D**-0.5, N, *q.stride()[:2], *k.stride()[:2],
                                         *v.stride()[:2], H, H // K, D, BM, BN, num_warps=warps, num_stages=stages)
    return o, stats


def launch_backward(q: Tensor, k: Tensor, v: Tensor, o: Tensor, do: Tensor, stats: Tensor,
                    segments: Segments) -> tuple[Tensor, Tensor, Tensor]:
    """dq [N, H, D], dk and dv [N, K, D], contiguous, as o and do are."""
    (N, H, D), K, wide = q.shape, k.shape[1], q.dtype == torch.float32
    assert do.shape == o.shape == q.shape and do.dtype == q.dtype and do.is_contiguous() and o.is_contiguous()
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    if not N:
        return dq, dk, dv
    _, queries, pieces, sums, slots = tables(segments, q.device, D, wide, K, H // K)
    strides = (*q.stride()[:2], *k.stride()[:2], *v.stride()[:2])
    _, (BM, BN, warps, stages), (rows, columns, *more) = tiles(D, wide)
    backward_dq_kernel[(len(queries) * H,)](q, k, v, o, do, dq, stats, queries, D**-0.5, N, *strides, H, H // K, D, BM, BN,
                                        num_warps=warps, num_stages=stages)
    parts = torch.empty(slots, K, 2, columns, D, dtype=torch.float32, device=q.device)
    backward_dkv_kernel[(len(pieces) * K,)](q, k, v, do, dk, dv, parts, stats, pieces, D**-0.5, N, *strides, K, H // K, D,
                                    rows, columns, num_warps=more[0], num_stages=more[1])
    if slots:
        sum_kernel[(len(sums) * K,)](parts, dk, dv, sums, K, D, columns, num_warps=8)
    return dq, dk, dv


class Attention(torch.autograd.Function):
    """Kept for the way back: q, k, v, o and two numbers a query and head."""

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
