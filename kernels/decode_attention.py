"""Decode attention: one new token per row reads the row's cached tokens and its group's prompt.

    s_j = q · k_j / √D over the row's prompt keys and own keys together
    o = Σ exp(s_j) v_j / Σ exp(s_j)

The keys are divided into splits, so that a few rows fill the whole GPU too. Each split writes three
partial results, which are then merged over all splits i of a row (everything in base 2; the scale
includes log2 e):

    m = max s_j        l = Σ 2^(s_j - m)        a = Σ 2^(s_j - m) v_j
    M = max m_i        o = Σ 2^(m_i - M) a_i / Σ 2^(m_i - M) l_i

There are two launches. ``attend_kernel`` processes prompts and own tokens together, so that the few
short programs of the prompts run alongside the many of the rows; ``combine_kernel`` merges the
splits. There is no backward pass.

Memory traffic, with e bytes per element: 2 e K D for each own token of each row and each prompt
token of each *group*. Without sharing, a group of R rows reads its prompt R times, and plain
PyTorch first copies it to every row. Queries with the same keys (H/K heads of a row, times R rows
of a prompt) form one tile of 16 or 32 and meet the keys in one product on the tensor cores. The
keys are its rows, of which the hardware wants 64; the queries are its columns, of which it takes
few: 16 or 32 FLOP per byte, where the GPU offers 183, so memory is the limit. Computed one element
at a time, 7 heads would take 7 multiply-adds and their sums for each number read, most of what the
cores can issue. The second tile of a prompt finds its keys in the L2 cache; tiles of 64 would
spill. The partial results, 4 D H bytes per split and row, stay in L2.

At 4.3 TB/s: 0.5B (14 heads on 2, D = 64), 64 rows of 512 own tokens: 16.8 MB, 3.9 µs per layer. 7B
(28 on 4, D = 128), 256 rows of 768 with 32 prompts of 256: 403 + 17 MB, 98 µs per layer. The small
case is also limited by latency: two launches, each of which waits for a length and then for keys or
sums. We expect about 9 and 115 µs.

Everything that changes between steps (lengths, groups) is read on the device, so one CUDA graph
serves all steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minifleming.kernels import reference
from minifleming.kernels.jit import cdiv, jit, on_gpu, power_of_2, tl

PROGRAMS = 4 * 132  # that an H200 runs at once for D = 64
MOST = 32  # splits of the prompt, and of the own tokens
LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class Workspace:
    """The partial results of every row, head and split; the splits of the prompt come first.

    It needs no initialization. All layers of a model may use the same workspace in turn.
    """

    weighted: Tensor  # [n, H, S, D] fp32: a
    sums: Tensor  # [n, H, S, 2] fp32: m, l
    prompt_splits: int
    own_splits: int


def workspace(q: Tensor, keys: Tensor, prompt_keys: Tensor, groups: Tensor) -> Workspace:
    """A workspace for arguments of ``decode_attention`` with these shapes."""
    (n, H, D), (_, K, T, _), (G, R), L = q.shape, keys.shape, groups.shape, prompt_keys.shape[2]
    block, most = blocks(q.dtype)
    prompt = splits(G * K * cdiv(R * H // K, tile(R * H // K, most)), cdiv(L, block))
    own = splits(n * K, cdiv(T, block))
    return Workspace(torch.empty(n, H, prompt + own, D, dtype=torch.float32, device=q.device),
                     torch.empty(n, H, prompt + own, 2, dtype=torch.float32, device=q.device),
                     prompt, own)


def splits(pieces: int, blocks: int) -> int:
    """Largest number of splits for each of ``pieces`` that have up to ``blocks`` key blocks."""
    return max(min(cdiv(PROGRAMS, max(pieces, 1)), blocks, MOST), 1)


def blocks(dtype: torch.dtype) -> tuple[int, int]:
    """(keys per step, largest number of queries in a tile); fp32 products use no tensor cores."""
    return (16, 16) if dtype == torch.float32 else (64, 32)


def tile(queries: int, most: int) -> int:
    """Columns of a product: a power of two, at least Triton's minimum of 16."""
    return min(max(power_of_2(queries), 16), most)


def decode_attention(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, prompt_keys: Tensor,
                     prompt_values: Tensor, prompt_lengths: Tensor, groups: Tensor,
                     workspace: Workspace, out: Tensor) -> Tensor:
    """softmax(q kᵀ / √D) v over each row's prompt and own tokens, into ``out``.

    q, out [n, H, D]; keys, values [n or more, K, T, D], of which row i has lengths[i], 0 if it is
    idle; prompt_keys, prompt_values [G or more, K, L, D], of which prompt g has prompt_lengths[g];
    groups [G, R]: the rows below n that read prompt g, in any order, -1 for none, each row once at
    most. lengths, prompt_lengths and groups are int32. A row without keys gets zeros.
    """
    arguments = q, keys, values, lengths, prompt_keys, prompt_values, prompt_lengths, groups
    if on_gpu(q, keys):
        return attend_and_combine(*arguments, workspace, out)
    return out.copy_(reference.decode_attention(*arguments))


@jit
def split_size(length, splits, BLOCK: tl.constexpr):
    """Keys a split: whole blocks, as even as they can be. A short row leaves its last splits
    empty."""
    return (length + splits * BLOCK - 1) // (splits * BLOCK) * BLOCK


@jit
def attend_split(q, row, head, there, keys, values, length, split, splits, line, weighted, sums,
                 scale, q_row, D: tl.constexpr, BLOCK: tl.constexpr, QUERIES: tl.constexpr):
    """The queries of (row, head) [QUERIES], where ``there``, over one split of ``length`` keys;
    partials to ``line``.

    Queries are columns: [D, QUERIES] of queries and weighted sums, [BLOCK, QUERIES] of scores.
    """
    width = tl.arange(0, D)
    mine = there[None, :]
    # while length comes
    query = tl.load(q + (row * q_row + head * D)[None, :] + width[:, None], mask=mine, other=0.0)
    size = split_size(length, splits, BLOCK)
    first, last = split * size, tl.minimum(length, (split + 1) * size)
    if first < last:
        high = tl.full([QUERIES], float("-inf"), tl.float32)
        # summed over keys only once, behind the loop
        total = tl.full([BLOCK, QUERIES], 0.0, tl.float32)
        result = tl.full([D, QUERIES], 0.0, tl.float32)
        for start in range(first, last, BLOCK):
            at = start + tl.arange(0, BLOCK)[:, None]
            key = tl.load(keys + at * D + width[None, :], mask=at < last, other=0.0)  # [BLOCK, D]
            # behind the end may be NaN
            value = tl.load(values + at * D + width[None, :], mask=at < last, other=0.0)
            score = tl.where(at < last, tl.dot(key, query, input_precision="ieee") * scale,
                             float("-inf"))
            higher = tl.maximum(high, tl.max(score, 0))
            weight, shrink = tl.exp2(score - higher[None, :]), tl.exp2(high - higher)[None, :]
            total = total * shrink + weight
            result = tl.dot(tl.trans(value), weight.to(value.dtype), result * shrink,
                            input_precision="ieee")
            high = higher
        tl.store(sums + line * 2, high, mask=there)
        tl.store(sums + line * 2 + 1, tl.sum(total, 0), mask=there)
        tl.store(weighted + (line * D)[None, :] + width[:, None], result, mask=mine)


@jit
def attend_prompt(program, q, keys, values, lengths, groups, weighted, sums, members, scale, q_row,
                  slot, slot_head, splits, lines, K: tl.constexpr, SHARING: tl.constexpr,
                  D: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr, TILE: tl.constexpr):
    """Program (group, key/value head, split, tile): tiles that read the same keys run side by
    side."""
    split = program // TILES % splits
    shared = program // TILES // splits % K
    group = (program // TILES // splits // K).to(tl.int64)
    query = program % TILES * TILE + tl.arange(0, TILE)
    member = query // SHARING
    row = tl.load(groups + group * members + member, mask=member < members, other=-1).to(tl.int64)
    head = shared * SHARING + query % SHARING
    # 0 where nobody reads it
    length = tl.load(lengths + group) * (tl.max(row, 0) >= 0).to(tl.int32)
    first = group * slot + shared * slot_head
    attend_split(q, row, head, row >= 0, keys + first, values + first, length, split, splits,
                 (row * (K * SHARING) + head) * lines + split, weighted, sums, scale, q_row, D,
                 BLOCK, TILE)


@jit
def attend_own(program, q, keys, values, lengths, weighted, sums, scale, q_row, slot, slot_head,
               splits, lines, K: tl.constexpr, SHARING: tl.constexpr, D: tl.constexpr,
               BLOCK: tl.constexpr, TILE: tl.constexpr):
    """Program (row, key/value head, split)."""
    split = program % splits
    shared = program // splits % K
    row = (program // splits // K).to(tl.int64)
    head = shared * SHARING + tl.arange(0, TILE)
    first = row * slot + shared * slot_head
    attend_split(q, row, head, tl.arange(0, TILE) < SHARING, keys + first, values + first,
                 tl.load(lengths + row), split, splits,
                 (row * (K * SHARING) + head) * lines + lines - splits + split, weighted, sums,
                 scale, q_row, D, BLOCK, TILE)


@jit
def attend_kernel(q, keys, values, lengths, prompt_keys, prompt_values, prompt_lengths, groups,
                  weighted, sums, members, scale, q_row, slot, slot_head, prompt, prompt_head,
                  prompt_programs, prompt_splits, own_splits, K: tl.constexpr,
                  SHARING: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr,
                  TILE: tl.constexpr, OWN: tl.constexpr):
    """SHARING query heads read one of the K; those of a group are TILES tiles of TILE, those of a
    row one of OWN."""
    program = tl.program_id(0)
    lines = prompt_splits + own_splits  # of partials, for each row and head
    if program < prompt_programs:
        attend_prompt(program, q, prompt_keys, prompt_values, prompt_lengths, groups, weighted,
                      sums, members, scale, q_row, prompt, prompt_head, prompt_splits, lines, K,
                      SHARING, D, BLOCK, TILES, TILE)
    else:
        attend_own(program - prompt_programs, q, keys, values, lengths, weighted, sums, scale,
                   q_row, slot, slot_head, own_splits, lines, K, SHARING, D, BLOCK, OWN)


@jit
def combine_kernel(weighted, sums, lengths, prompt_lengths, groups, out, entries, members, out_row,
                   prompt_splits, own_splits, H: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
                   ENTRIES: tl.constexpr, LINES: tl.constexpr):
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    entry = tl.arange(0, ENTRIES)
    mine = tl.load(groups + entry, mask=entry < entries, other=-1) == row
    group = tl.max(tl.where(mine, entry // members, -1), 0)
    prompt_length = tl.load(prompt_lengths + group, mask=group >= 0, other=0)
    length = tl.load(lengths + row)
    # the prompt's, then the own; what was not written holds anything and is not read
    split = tl.arange(0, LINES)
    prompt_size = split_size(prompt_length, prompt_splits, BLOCK)
    of_prompt = (split < prompt_splits) & (split * prompt_size < prompt_length)
    own = split - prompt_splits
    own_size = split_size(length, own_splits, BLOCK)
    of_own = (own >= 0) & (own < own_splits) & (own * own_size < length)
    written = of_prompt | of_own
    line = (row * H + head) * (prompt_splits + own_splits) + split
    high = tl.load(sums + line * 2, mask=written, other=float("-inf"))
    total = tl.load(sums + line * 2 + 1, mask=written, other=0.0)
    width = tl.arange(0, D)
    # [LINES, D]
    part = tl.load(weighted + line[:, None] * D + width[None, :], mask=written[:, None], other=0.0)
    share = tl.exp2(high - tl.maximum(tl.max(high, 0), -1e30))  # that of nothing is 0
    total = tl.sum(share * total, 0)
    result = tl.sum(share[:, None] * part, 0) / tl.where(total > 0, total, 1.0)
    tl.store(out + row * out_row + head * D + width, result.to(out.dtype.element_ty))


def attend_and_combine(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor,
                       prompt_keys: Tensor, prompt_values: Tensor, prompt_lengths: Tensor,
                       groups: Tensor, space: Workspace, out: Tensor) -> Tensor:
    """The two kernels. D is a power of two from 16; rows of q and out are contiguous, and the heads
    of a cache."""
    (n, H, D), K, (G, R) = q.shape, keys.shape[1], groups.shape
    assert H % K == 0 and H // K <= blocks(q.dtype)[1] and D >= 16 and D == power_of_2(D)
    assert out.shape == q.shape
    assert len(keys) >= n and len(prompt_keys) >= G
    assert prompt_keys.shape[1:] == (K, prompt_keys.shape[2], D)
    assert keys.shape == values.shape and prompt_keys.shape == prompt_values.shape
    assert keys.shape[3] == D
    assert keys.stride() == values.stride() and prompt_keys.stride() == prompt_values.stride()
    assert all(x.dtype == q.dtype for x in (keys, values, prompt_keys, prompt_values, out))
    assert all(x[0].is_contiguous() for x in (q, out) if n)
    assert all(x[0, 0].is_contiguous() for x in (keys, prompt_keys) if len(x))
    for x in (lengths, prompt_lengths, groups):
        assert x.dtype == torch.int32 and x.is_contiguous()
    assert len(lengths) >= n and len(prompt_lengths) >= G
    lines = space.prompt_splits + space.own_splits
    assert space.weighted.shape == (n, H, lines, D) and space.sums.shape == (n, H, lines, 2)
    if not q.numel():
        return out
    block, most = blocks(q.dtype)
    queries = tile(R * H // K, most)  # of one tile of a prompt
    tiles = max(cdiv(R * H // K, queries), 1)
    prompt_programs = G * K * space.prompt_splits * tiles if R else 0
    attend_kernel[prompt_programs + n * K * space.own_splits,](
        q, keys, values, lengths, prompt_keys, prompt_values, prompt_lengths, groups,
        space.weighted, space.sums, R, D**-0.5 * LOG2_E, q.stride(0), *keys.stride()[:2],
        *prompt_keys.stride()[:2], prompt_programs, space.prompt_splits, space.own_splits,
        K=K, SHARING=H // K, D=D, BLOCK=block, TILES=tiles, TILE=queries,
        OWN=tile(H // K, most), num_stages=3 if q.element_size() == 2 else 2)
    combine_kernel[n, H](space.weighted, space.sums, lengths, prompt_lengths, groups, out, G * R,
                         max(R, 1), out.stride(0), space.prompt_splits, space.own_splits, H=H, D=D,
                         BLOCK=block, ENTRIES=power_of_2(G * R), LINES=power_of_2(lines),
                         num_warps=1 if lines * D <= 1024 else 4)
    return out
