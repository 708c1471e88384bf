from __future__ import annotations

import torch
from torch import Tensor

from minifleming.kernels import reference
from minifleming.kernels.jit import cdiv, jit, on_gpu, tl
from minifleming.kernels.segments import Segments

PROGRAMS = 528  # among which dk and dv are shared out: four for each of 132 multiprocessors
PIECE = 32  # blocks of queries; less is not worth the sum of one more piece


def attention(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """softmax(q kᵀ / √D) v over what a token sees, differentiable. q [N, H, D]; k, v [N, K, D] -> [N, H, D]"""
    if not on_gpu(q, k, v):
        return reference.segment_attention(q, k, v, segments)
    return Attention.apply(q, k, v, segments)


@jit
def rows_of(x, at, token, ROWS: tl.constexpr, D: tl.constexpr):
    """[ROWS, D]: a head's tokens from ``at`` on. The scalar part of the address is 64 bits wide, a thread's part 32."""
    return tl.load(x + at.to(tl.int64) * token + (tl.arange(0, ROWS)[:, None] * token + tl.arange(0, D)[None, :]))


@jit
def rows_until(x, at, end, token, ROWS: tl.constexpr, D: tl.constexpr):
    """The same, 0 from ``end`` on."""
    row = tl.arange(0, ROWS)[:, None]
    return tl.load(x + at.to(tl.int64) * token + (row * token + tl.arange(0, D)[None, :]), mask=at + row < end, other=0)


@jit
def put_rows(x, value, at, end, token, ROWS: tl.constexpr, D: tl.constexpr):
    row = tl.arange(0, ROWS)[:, None]
    to = x + at.to(tl.int64) * token + (row * token + tl.arange(0, D)[None, :])
    tl.store(to, value.to(x.dtype.element_ty), mask=at + row < end)


@jit
def whole(block, start, before, size, BN: tl.constexpr):
    """Where the block of keys begins that all of a query block sees: the prompt's blocks, then its own segment's."""
    shared = size // BN
    return tl.where(block < shared, before + block * BN, start + (block - shared) * BN)


@jit
def edge(block, first, end, before, size, rows, BN: tl.constexpr):
    """(where a block of keys begins that must be masked, where its keys end, the last key that each query may see): the
    rest of the prompt, if there is any, then the diagonal."""
    rest = size % BN > 0
    prompt = rest & (block == 0)
    at = tl.where(prompt, before + size // BN * BN, first + (block - rest.to(tl.int32)) * BN)
    stop = tl.where(prompt, before + size, end)
    return at, stop, tl.where(prompt, stop - 1, rows)


@jit
def edges(first, end, size, BM: tl.constexpr, BN: tl.constexpr):
    return (size % BN > 0).to(tl.int32) + tl.cdiv(tl.minimum(first + BM, end) - first, BN)


@jit
def absorb(query, keys, values, scale, seen, most, total, out):
    """One block of keys: the largest score so far, Σ of the weights and Σ of weight · value, both over 2^most."""
    scores = tl.dot(query, tl.trans(keys), input_precision="ieee")
    if seen is not None:
        scores = tl.where(seen, scores, float("-inf"))
    above = tl.maximum(most, tl.max(scores, 1) * scale)
    weights = tl.exp2(scores * scale - above[:, None])
    shrink = tl.exp2(most - above)
    out = tl.dot(weights.to(values.dtype), values, out * shrink[:, None], input_precision="ieee")
    return above, total * shrink + tl.sum(weights, 1), out


@jit
def forward_kernel(q, k, v, o, stats, work, scale, tokens, q_token, q_head, k_token, k_head, v_token, v_head,
                   H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    head, work = (tl.program_id(0) % H).to(tl.int64), work + tl.program_id(0) // H * 5
    first, start, end = tl.load(work), tl.load(work + 1), tl.load(work + 2)
    before, size = tl.load(work + 3), tl.load(work + 4)
    k, v = k + head // G * k_head, v + head // G * v_head
    rows = first + tl.arange(0, BM)
    query = rows_until(q + head * q_head, first, end, q_token, BM, D)
    most, total = tl.full([BM], float("-inf"), tl.float32), tl.zeros([BM], tl.float32)
    out = tl.zeros([BM, D], tl.float32)
    exponent = scale * 1.4426950408889634
    for block in range(size // BN + (first - start) // BN):
        at = whole(block, start, before, size, BN)
        keys, values = rows_of(k, at, k_token, BN, D), rows_of(v, at, v_token, BN, D)
        most, total, out = absorb(query, keys, values, exponent, None, most, total, out)
    for block in range(edges(first, end, size, BM, BN)):
        at, stop, last = edge(block, first, end, before, size, rows, BN)
        keys, values = rows_until(k, at, stop, k_token, BN, D), rows_until(v, at, stop, v_token, BN, D)
        seen = (at + tl.arange(0, BN))[None, :] <= last[:, None]
        most, total, out = absorb(query, keys, values, exponent, seen, most, total, out)
    put_rows(o + head * D, out / total[:, None], first, end, H * D, BM, D)
    tl.store(stats + (head * tokens + rows) * 2, most + tl.log2(total), mask=rows < end)


@jit
def slope(query, above, keys, values, exponent, seen, log, delta, dq):
    """dq / scale, with one more block of keys."""
    weights = tl.exp2(tl.dot(query, tl.trans(keys), input_precision="ieee") * exponent - log[:, None])
    if seen is not None:
        weights = tl.where(seen, weights, 0.0)
    dscores = weights * (tl.dot(above, tl.trans(values), input_precision="ieee") - delta[:, None])
    return tl.dot(dscores.to(keys.dtype), keys, dq, input_precision="ieee")


@jit
def queries_kernel(q, k, v, o, do, dq, stats, work, scale, tokens, q_token, q_head, k_token, k_head, v_token, v_head,
                   do_token, do_head, H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr,
                   BN: tl.constexpr):
    head, work = (tl.program_id(0) % H).to(tl.int64), work + tl.program_id(0) // H * 5
    first, start, end = tl.load(work), tl.load(work + 1), tl.load(work + 2)
    before, size = tl.load(work + 3), tl.load(work + 4)
    k, v = k + head // G * k_head, v + head // G * v_head
    rows = first + tl.arange(0, BM)
    stats += (head * tokens + rows) * 2
    query = rows_until(q + head * q_head, first, end, q_token, BM, D)
    above = rows_until(do + head * do_head, first, end, do_token, BM, D)
    found = rows_until(o + head * D, first, end, H * D, BM, D)
    delta = tl.sum(found.to(tl.float32) * above.to(tl.float32), 1)
    tl.store(stats + 1, delta, mask=rows < end)
    log = tl.load(stats, mask=rows < end, other=0)
    out = tl.zeros([BM, D], tl.float32)
    exponent = scale * 1.4426950408889634
    for block in range(size // BN + (first - start) // BN):
        at = whole(block, start, before, size, BN)
        keys, values = rows_of(k, at, k_token, BN, D), rows_of(v, at, v_token, BN, D)
        out = slope(query, above, keys, values, exponent, None, log, delta, out)
    for block in range(edges(first, end, size, BM, BN)):
        at, stop, last = edge(block, first, end, before, size, rows, BN)
        keys, values = rows_until(k, at, stop, k_token, BN, D), rows_until(v, at, stop, v_token, BN, D)
        seen = (at + tl.arange(0, BN))[None, :] <= last[:, None]
        out = slope(query, above, keys, values, exponent, seen, log, delta, out)
    put_rows(dq + head * D, out * scale, first, end, H * D, BM, D)


@jit
def slopes(q, do, stats, keys, values, dk, dv, head, at, last, exponent, tokens, q_token, q_head, do_token, do_head,
           low, D: tl.constexpr, BM: tl.constexpr):
    """(dk / scale, dv), with one more block of one head's queries; ``low``: the first query to see each key, or None.

    Past ``last`` all is 0: weights of 1, times do = 0. Both statistics of a query come as one tile of twice the columns
    that they are: a tile smaller than the program has threads would be loaded by each thread anew, one value at a time.
    """
    rows, column = at + tl.arange(0, BM), tl.arange(0, 4)[None, :]
    query = rows_until(q + head * q_head, at, last, q_token, BM, D)
    above = rows_until(do + head * do_head, at, last, do_token, BM, D)
    both = tl.load(stats + (head * tokens + rows)[:, None] * 2 + column % 2, mask=(rows < last)[:, None], other=0)
    log, delta = tl.sum(tl.where(column == 0, both, 0.0), 1), tl.sum(tl.where(column == 1, both, 0.0), 1)
    weights = tl.exp2(tl.dot(keys, tl.trans(query), input_precision="ieee") * exponent - log[None, :])
    if low is not None:
        weights = tl.where(low[:, None] <= rows[None, :], weights, 0.0)
    dv = tl.dot(weights.to(above.dtype), above, dv, input_precision="ieee")
    dscores = weights * (tl.dot(values, tl.trans(above), input_precision="ieee") - delta[None, :])
    return tl.dot(dscores.to(query.dtype), query, dk, input_precision="ieee"), dv


@jit
def keys_kernel(q, k, v, do, dk, dv, parts, stats, work, scale, tokens, q_token, q_head, k_token, k_head, v_token,
                v_head, do_token, do_head, K: tl.constexpr, G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr,
                BN: tl.constexpr):
    head, work = (tl.program_id(0) % K).to(tl.int64), work + tl.program_id(0) // K * 6
    first, end, last = tl.load(work), tl.load(work + 1), tl.load(work + 2)
    begin, stop, slot = tl.load(work + 3), tl.load(work + 4), tl.load(work + 5)
    keys = rows_until(k + head * k_head, first, end, k_token, BN, D)
    values = rows_until(v + head * v_head, first, end, v_token, BN, D)
    key, value = tl.zeros([BN, D], tl.float32), tl.zeros([BN, D], tl.float32)
    exponent, low = scale * 1.4426950408889634, first + tl.arange(0, BN)
    diagonal: tl.constexpr = BN // BM * G
    for unit in range(begin, tl.minimum(stop, diagonal)):
        key, value = slopes(q, do, stats, keys, values, key, value, head * G + unit % G, first + unit // G * BM, last,
                            exponent, tokens, q_token, q_head, do_token, do_head, low, D, BM)
    for unit in range(tl.maximum(begin, diagonal), stop):
        key, value = slopes(q, do, stats, keys, values, key, value, head * G + unit % G, first + unit // G * BM, last,
                            exponent, tokens, q_token, q_head, do_token, do_head, None, D, BM)
    if slot < 0:
        put_rows(dk + head * D, key * scale, first, end, K * D, BN, D)
        put_rows(dv + head * D, value, first, end, K * D, BN, D)
    else:
        parts += (slot * K + head) * (2 * BN * D)
        put_rows(parts, key * scale, first - first, BN, D, BN, D)
        put_rows(parts + BN * D, value, first - first, BN, D, BN, D)


@jit
def sum_kernel(parts, dk, dv, work, K: tl.constexpr, D: tl.constexpr, BN: tl.constexpr):
    """A block's pieces, in their order."""
    head, work = (tl.program_id(0) % K).to(tl.int64), work + tl.program_id(0) // K * 4
    first, end, begin, stop = tl.load(work), tl.load(work + 1), tl.load(work + 2), tl.load(work + 3)
    key, value = tl.zeros([BN, D], tl.float32), tl.zeros([BN, D], tl.float32)
    for slot in range(begin, stop):
        part = parts + (slot * K + head) * (2 * BN * D)
        key += rows_of(part, first - first, D, BN, D)
        value += rows_of(part + BN * D, first - first, D, BN, D)
    put_rows(dk + head * D, key, first, end, K * D, BN, D)
    put_rows(dv + head * D, value, first, end, K * D, BN, D)


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
    """Pieces [first key, end of its segment, end of the queries that see it, unit, last unit, slot or -1], longest first;
    of every block in more than one piece [first key, end, its slots]; the number of slots.

    A segment's readers stand right behind it, so the queries that may see a block's keys are one range. A unit is a block
    of them in one head; the heads of a block follow each other.
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


def plan(segments: Segments, device: torch.device, width: int, wide: bool, heads: int, groups: int) -> tuple:
    """The kernels' tables on the device, made once for all layers: of o, of dq, of dk and dv, of sums; slots."""
    kept, key = vars(segments).setdefault("plans", {}), (device, width, wide, heads, groups)
    if key not in kept:
        forward, queries, keys = tiles(width, wide)
        pieces, sums, slots = key_blocks(segments, *keys[:2], heads, groups)
        tables = query_blocks(segments, forward[0]), query_blocks(segments, queries[0]), pieces, sums
        kept[key] = (*(torch.tensor(t, dtype=torch.int32).to(device) for t in tables), slots)
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
    work, BM, BN, warps, stages = plan(segments, q.device, D, wide, K, H // K)[0], *tiles(D, wide)[0]
    if N:
        forward_kernel[(len(work) * H,)](q, k, v, o, stats, work, D**-0.5, N, *q.stride()[:2], *k.stride()[:2],
                                         *v.stride()[:2], H, H // K, D, BM, BN, num_warps=warps, num_stages=stages)
    return o, stats


def launch_backward(q: Tensor, k: Tensor, v: Tensor, o: Tensor, do: Tensor, stats: Tensor,
                    segments: Segments) -> tuple[Tensor, Tensor, Tensor]:
    """dq [N, H, D], dk and dv [N, K, D], contiguous. do strided like q."""
    (N, H, D), K, wide = q.shape, k.shape[1], q.dtype == torch.float32
    assert do.shape == o.shape == q.shape and do.dtype == q.dtype and o.is_contiguous() and stats.is_contiguous()
    assert do.stride(-1) == 1 and do.stride(0) < 2**23
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    if not N:
        return dq, dk, dv
    _, queries, pieces, sums, slots = plan(segments, q.device, D, wide, K, H // K)
    strides = (*q.stride()[:2], *k.stride()[:2], *v.stride()[:2], *do.stride()[:2])
    _, (BM, BN, warps, stages), (rows, columns, *more) = tiles(D, wide)
    queries_kernel[(len(queries) * H,)](q, k, v, o, do, dq, stats, queries, D**-0.5, N, *strides, H, H // K, D, BM, BN,
                                        num_warps=warps, num_stages=stages)
    parts = torch.empty(slots, K, 2, columns, D, dtype=torch.float32, device=q.device)
    keys_kernel[(len(pieces) * K,)](q, k, v, do, dk, dv, parts, stats, pieces, D**-0.5, N, *strides, K, H // K, D,
                                    rows, columns, num_warps=more[0], num_stages=more[1])
    if slots:
        sum_kernel[(len(sums) * K,)](parts, dk, dv, sums, K, D, columns, num_warps=8)
    return dq, dk, dv


class Attention(torch.autograd.Function):
    """The kernels under autograd. Kept for the way back: q, k, v, o and two numbers a query and head."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
        o, stats = launch_forward(q, k, v, segments)
        ctx.save_for_backward(q, k, v, o, stats)
        ctx.segments = segments
        return o

    @staticmethod
    def backward(ctx, do: Tensor):
        q, k, v, o, stats = ctx.saved_tensors
        do = do if do.stride(-1) == 1 else do.contiguous()
        return *launch_backward(q, k, v, o, do, stats, ctx.segments), None
