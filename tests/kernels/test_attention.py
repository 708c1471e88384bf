"""Tests for kernels/attention.py: values, gradients, isolation of segments, machine code."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from minifleming.kernels import attention as module
from minifleming.kernels import attention_schedule, reference
from minifleming.kernels.attention import AttentionFunction, attention
from minifleming.kernels.attention_schedule import key_blocks, query_blocks, tiles
from minifleming.kernels.segments import Segments
from tests.kernels.check import close, gradients, noise
from tests.kernels.hopper import compiled, ops, sound


@pytest.fixture
def small(monkeypatch):
    """Blocks of 16 or 32 and pieces of 3 units, so that few tokens reach all edges of blocks."""
    sizes = [(32, 16, 4, 1), (16, 16, 4, 1), (16, 32, 4, 1)]
    for used_in in (module, attention_schedule):
        monkeypatch.setattr(used_in, "tiles", lambda width, wide: sizes)
    monkeypatch.setattr(attention_schedule, "PIECE", 3)


def inputs(segments: Segments, H: int, K: int, D: int, dtype=torch.float32, scale=1.0) -> tuple[Tensor, ...]:
    """do, q, k, v"""
    N = segments.tokens
    return tuple(noise(N, heads, D, seed=i, dtype=dtype, scale=scale if i in (1, 2) else 1.0)
                 for i, heads in enumerate((H, H, K, K)))


def kernel(segments: Segments, above: Tensor, *qkv: Tensor) -> tuple[Tensor, ...]:
    """(o, dq, dk, dv)"""
    return gradients(lambda q, k, v: AttentionFunction.apply(q, k, v, segments), above, *qkv)


def wanted(segments: Segments, *tensors: Tensor, way=reference.segment_attention) -> tuple[Tensor, ...]:
    return gradients(lambda q, k, v: way(q, k, v, segments), *(x.double() for x in tensors))


def one_by_one(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """PyTorch's attention, segment by segment, over the keys of the prefix and the segment itself."""
    found = []
    for start, length, first, size, _, _ in segments.table().tolist():
        own = slice(start, start + length)
        keys, values = (torch.cat((x[first : first + size], x[own])).transpose(0, 1) for x in (k, v))
        mask = torch.ones(length, size + length, dtype=torch.bool).tril(size)
        found.append(F.scaled_dot_product_attention(q[own].transpose(0, 1), keys, values, mask, enable_gqa=True))
    return torch.cat(found, dim=1).transpose(0, 1)


def check(segments: Segments, *tensors: Tensor, way=reference.segment_attention) -> None:
    """A bf16 kernel also rounds o, the weights and the gradients of the scores, each by 2^-9. The terms of a sum
    are off by up to twice that, and are as large as the largest value even if the sum is small."""
    dtype = tensors[0].dtype
    for mine, theirs in zip(kernel(segments, *tensors), wanted(segments, *tensors, way=way)):
        assert mine.dtype == dtype and mine.is_contiguous()
        close(mine, theirs, dtype, terms=2 * theirs.abs().max().item())


TREES = {"one token": ([1], [-1]),
         "segments of one token": ([1, 1, 1, 1], [-1, 0, 0, -1]),
         "documents that share nothing": ([33, 7, 16, 31], [-1] * 4),
         "a prompt shorter than a block": ([7, 33, 1, 20], [-1, 0, 0, 0]),
         "a prompt of whole blocks": ([32, 5, 32], [-1, 0, 0]),
         "a prompt of one token more than blocks": ([33, 17, 40], [-1, 0, 0]),
         "sixteen readers": ([19] + [1, 3] * 8, [-1] + [0] * 16),
         "a reader, a document, a prompt and its readers": ([9, 30, 12, 40, 8, 21], [-1, 0, -1, -1, 3, 3])}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_values_and_gradients(tree, small):
    segments = Segments(*tree)
    check(segments, *inputs(segments, 1, 1, 16))


@pytest.mark.parametrize("H, K, D", [(2, 2, 32), (7, 1, 16), (4, 2, 64), (1, 1, 128)])
def test_heads(H, K, D, small):
    segments = Segments([17, 20], [-1, 0])
    check(segments, *inputs(segments, H, K, D))


@pytest.mark.parametrize("dtype, H, K, D", [(torch.bfloat16, 2, 1, 64), (torch.bfloat16, 1, 1, 128),
                                            (torch.float16, 1, 1, 32), (torch.float32, 1, 1, 64)])
def test_the_blocks_of_the_real_kernels(dtype, H, K, D):
    """One token more than a block, with the block sizes of a GPU."""
    segments = Segments([129, 65], [-1, 0])
    check(segments, *inputs(segments, H, K, D, dtype))


@pytest.mark.parametrize("seed", range(2))
def test_random_trees_a_second_way(seed, small):
    draw = random.Random(seed)
    lengths, reads = [], []
    for _ in range(2):
        root = len(lengths)
        readers = draw.choice([0, 1, 3])
        lengths += [draw.choice([1, 15, 16, 17, draw.randint(1, 50)]) for _ in range(1 + readers)]
        reads += [-1] + [root] * readers
    segments = Segments(lengths, reads)
    check(segments, *inputs(segments, 1, 1, 16), way=one_by_one)


def test_large_scores_neither_overflow_nor_vanish(small):
    """All weight of a row on one key, of the prompt or of its own; scores down to -1e4."""
    segments = Segments([20, 21], [-1, 0])
    tensors = inputs(segments, 1, 1, 16, scale=30)
    for mine, theirs in zip(kernel(segments, *tensors), wanted(segments, *tensors)):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-3, atol=1e-3)  # fp32 keeps 1e4 to 5e-4
    low = tuple(torch.ones(41, 1, 16) * x for x in (1.0, 50.0, -50.0, 1.0))  # every score the same, -1e4
    for mine, theirs in zip(kernel(segments, *low), wanted(segments, *low)):
        close(mine, theirs, torch.float32, terms=10)


def test_what_is_not_read_changes_no_bit(small):
    """NaN in one segment reaches the segments that read it, and in gradients those it reads; all others keep their
    bits."""
    lengths, reads = [20, 17, 9, 18, 7], [-1, 0, 0, -1, 3]
    segments = Segments(lengths, reads)
    tensors = inputs(segments, 1, 1, 16)
    before = kernel(segments, *tensors)
    for changed in (0, 1, 3):
        at = slice(segments.starts[changed], segments.starts[changed] + lengths[changed])
        spoiled = tuple(x.clone() for x in tensors)
        for x in spoiled:
            x[at] = float("nan")
        after = kernel(segments, *spoiled)
        for i, (start, length) in enumerate(zip(segments.starts, lengths)):
            own = slice(start, start + length)
            forward = i == changed or reads[i] == changed  # it reads what changed
            backward = forward or reads[changed] == i  # or is read by it
            for o, (old, new) in enumerate(zip(before, after)):
                touched = forward if o < 2 else backward or (reads[i] == -1 and changed in (i, reads[i]))
                assert torch.equal(old[own], new[own]) != touched, (changed, i, o)


def test_the_same_bits_whatever_the_strides(small):
    """q, k and v may be views of one projection, have heads before tokens, or lie between NaN; so may the
    cotangent."""
    segments = Segments([18, 5], [-1, 0])
    N, H, K, D = 23, 2, 1, 16
    above, *qkv = inputs(segments, H, K, D)
    row = torch.cat([x.flatten(1) for x in qkv], dim=1)
    views = [x.unflatten(1, (-1, D)) for x in row.split([H * D, K * D, K * D], dim=1)]
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (above, *qkv)]
    between = [F.pad(x, (0, 0, 0, 0, 40, 40), value=float("nan"))[40 : 40 + N] for x in (above, *qkv)]
    columns = above.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not views[0].is_contiguous() and not turned[1].is_contiguous() and columns.stride(-1) != 1
    plain = kernel(segments, above, *qkv)
    for do, q, k, v in ((columns, *views), turned, between):
        o, stats = module.launch_forward(q, k, v, segments)
        context = SimpleNamespace(saved_tensors=(q, k, v, o, stats), segments=segments)
        for one, two in zip(plain, (o, *AttentionFunction.backward(context, do)[:3])):
            assert torch.equal(one, two)


def test_no_tokens_and_the_plain_way():
    empty = Segments([], [])
    assert [x.shape[0] for x in kernel(empty, *inputs(empty, 2, 1, 16))] == [0] * 4
    segments = Segments([5, 8], [-1, 0])
    above, *qkv = inputs(segments, 4, 2, 16)
    for mine, theirs in zip(gradients(lambda q, k, v: attention(q, k, v, segments), above, *qkv),
                            wanted(segments, above, *qkv)):
        close(mine, theirs, torch.float32)


def test_what_the_kernels_cannot_do_is_refused():
    segments = Segments([5, 8], [-1, 0])
    _, q, k, v = inputs(segments, 4, 2, 16)
    for bad in ((q[:12], k, v), (q[:, :3], k, v), (q.double(), k, v), (q[..., ::2], k[..., ::2], v[..., ::2]),
                (q[..., :8], k[..., :8], v[..., :8])):
        with pytest.raises(AssertionError):
            module.launch_forward(*bad, segments)


@pytest.mark.parametrize("width, heads, groups", [(64, 2, 7), (128, 4, 7)])
def test_work_is_shared_out(width, heads, groups):
    """Eight completions of 1,024 tokens of a prompt of 256, where a block of the prompt has 8 times the work of
    another: every query and unit is covered once, and the longest program is short compared with the whole."""
    segments = Segments([256] + [1024] * 8, [-1] + [0] * 8)
    forward, _, (queries, keys, _, _) = tiles(width, False)
    work = query_blocks(segments, forward[0])
    assert sorted(row[0] for row in work) == list(range(0, segments.tokens, forward[0]))
    lengths = [row[4] + row[0] - row[1] for row in work]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] == 256 + 1024 - forward[0]
    pieces, sums, slots = key_blocks(segments, queries, keys, heads, groups)
    units = [row[4] - row[3] for row in pieces]
    assert units == sorted(units, reverse=True) and units[0] * 132 < 2 * heads * sum(units)
    for first in range(0, segments.tokens, keys):
        until = segments.tokens if first < 256 else 256 + ((first - 256) // 1024 + 1) * 1024
        mine = sorted(row for row in pieces if row[0] == first)
        assert all(row[2] == until for row in mine) and mine[0][3] == 0
        assert mine[-1][4] == groups * -(-(until - first) // queries)
        assert all(one[4] == two[3] for one, two in zip(mine, mine[1:]))
    taken = sorted(row[5] for row in pieces if row[5] >= 0)
    assert taken == list(range(slots)) == [slot for row in sums for slot in range(row[2], row[3])]


POINTERS = {"stats": "*fp32", "parts": "*fp32", "work": "*i32", "scale": "fp32"}
COMMON = ["stats", "work", "scale", "tokens", "q_token", "q_head", "k_token", "k_head", "v_token", "v_head"]
SIZES = ["G", "D", "BM", "BN"]
PARAMETERS = {"forward_kernel": ["q", "k", "v", "o", *COMMON, "H", *SIZES],
              "backward_dq_kernel": ["q", "k", "v", "o", "do", "dq", *COMMON, "H", *SIZES],
              "backward_dkv_kernel": ["q", "k", "v", "do", "dk", "dv", "parts", *COMMON, "K", *SIZES]}


def request(name: str, width: int, heads: int, groups: int, tile: tuple[int, int, int, int]) -> dict:
    BM, BN, warps, stages = tile
    constants = {"H": heads * groups, "K": heads, "G": groups, "D": width, "BM": BM, "BN": BN}
    types = {p: "constexpr" if p in constants else POINTERS.get(p, "i32" if "_" in p or p == "tokens" else "*bf16")
             for p in PARAMETERS[name]}
    return {"kernel": f"attention.{name}", "types": types, "warps": warps, "stages": stages,
            "constants": {c: value for c, value in constants.items() if c in types}}


@pytest.mark.slow
def test_machine_code():
    """No spills; tiles are copied 16 bytes at a time past the registers; every product is a Hopper instruction, in
    two loops (whole blocks, edges). With heads of 64, at least two programs fit a multiprocessor."""
    cases = [(name, width, *heads, tile, products)
             for width, *heads in ((64, 2, 7), (128, 4, 7))
             for name, tile, products in zip(PARAMETERS, tiles(width, False), (2, 3, 4))]
    for (_, width, *_, tile, products), answer in zip(cases, compiled(*(request(*case[:-1]) for case in cases))):
        sound(answer)
        assert ops(answer, "LDGSTS.E.BYPASS.128") >= 8 and ops(answer, "LDG.E.128") >= 2
        assert ops(answer, "STG.E.128") >= 2 and ops(answer, "LDGSTS.E.") - ops(answer, "LDGSTS.E.BYPASS") <= 8
        assert ops(answer, "HGMMA") >= 2 * 4 * products and ops(answer, "HMMA") == 0
        resident = min(65536 // (answer["registers"] * 32 * tile[2]), 227 * 1024 // answer["shared"])
        assert resident >= (2 if width == 64 else 1), answer
