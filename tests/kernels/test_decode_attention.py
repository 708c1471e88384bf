"""Tests for kernels/decode_attention.py: any lengths and groups against fp64, bits, and machine code.

Caches hold NaN beyond every length, and so do workspace and output before each call: a value that
should not be read, or is not written, shows.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from minifleming.kernels import decode_attention as module
from minifleming.kernels import reference
from minifleming.kernels.decode_attention import (
    Workspace,
    attend_and_combine,
    decode_attention,
    workspace,
)
from tests.kernels.check import close, noise
from tests.kernels.hopper import compiled, ops, sound

NAN = float("nan")
NO_PROMPTS = ([], torch.empty(0, 1, dtype=torch.int32))


def case(lengths: list[int], prompt_lengths: list[int], groups, shape=(1, 1, 16), dtype=torch.float32, T=None, L=None,
         scale=1.0, seed=0) -> tuple[Tensor, ...]:
    """The first eight arguments of ``decode_attention``. shape (H, K, D)"""
    (H, K, D), n, G = shape, len(lengths), len(prompt_lengths)
    T, L = T or max(lengths, default=1), L or max(prompt_lengths, default=1)
    q = noise(n, H, D, seed=seed, scale=scale, dtype=dtype)
    keys, values = (noise(n, K, T, D, seed=seed + s, dtype=dtype) for s in (1, 2))
    prompt_keys, prompt_values = (noise(G, K, L, D, seed=seed + s, dtype=dtype) for s in (3, 4))
    for caches, counts in (((keys, values), lengths), ((prompt_keys, prompt_values), prompt_lengths)):
        for cache in caches:
            for i, count in enumerate(counts):
                cache[i, :, count:] = NAN
    counts = (torch.tensor(x, dtype=torch.int32) for x in (lengths, prompt_lengths))
    groups = torch.as_tensor(groups, dtype=torch.int32)
    return q, keys, values, next(counts), prompt_keys, prompt_values, next(counts), groups


def poisoned(q: Tensor, keys: Tensor, prompt_keys: Tensor, groups: Tensor) -> Workspace:
    space = workspace(q, keys, prompt_keys, groups)
    space.weighted.fill_(NAN), space.sums.fill_(NAN)
    return space


def run(arguments: tuple[Tensor, ...], space: Workspace | None = None) -> Tensor:
    q, keys, _, _, prompt_keys, _, _, groups = arguments
    space = space or poisoned(q, keys, prompt_keys, groups)
    return attend_and_combine(*arguments, space, torch.full_like(q, NAN))


def cut_into(prompt: int, own: int, arguments: tuple[Tensor, ...]) -> Workspace:
    """A workspace with this many splits."""
    n, H, D = arguments[0].shape
    return Workspace(torch.full((n, H, prompt + own, D), NAN), torch.full((n, H, prompt + own, 2), NAN), prompt, own)


def exact(arguments: tuple[Tensor, ...]) -> Tensor:
    return reference.decode_attention(*(x.double() if x.is_floating_point() else x for x in arguments))


def check(arguments: tuple[Tensor, ...]) -> Tensor:
    """In bf16 weights are rounded before they multiply the values, some of which are as large as 4."""
    found = run(arguments)
    assert found.dtype == arguments[0].dtype
    close(found, exact(arguments), found.dtype, terms=1.0 if found.dtype == torch.float32 else 4.0)
    return found


@pytest.mark.parametrize("shape, dtype", [((1, 1, 16), torch.float32), ((4, 2, 64), torch.float32),
                                          ((7, 1, 128), torch.float32), ((7, 1, 64), torch.bfloat16),
                                          ((4, 2, 32), torch.bfloat16)])
def test_values(shape, dtype):
    """Lengths at the edges of blocks, an idle row, a full cache; groups that are ragged, unordered, or empty."""
    block, most = module.blocks(dtype)
    groups = [[4, -1, 0, 2, 5], [-1, -1, -1, -1, -1], [-1, 3, -1, -1, -1]]
    check(case([1, block - 1, block, block + 1, 0, 2 * block + 5], [block + 1, 7, 2 * block], groups, shape, dtype))


def test_every_length():
    """Lengths of own tokens, or of the prompt, on both sides of two block edges."""
    lengths = [*range(19), 31, 32, 33]
    check(case(lengths, lengths, [[i] for i in reversed(range(22))]))
    found = check(case(lengths[:3], *NO_PROMPTS))
    assert found[0].count_nonzero() == 0


def test_rows_of_a_group_and_rows_alone():
    """A prompt of several tiles, with rows that have own tokens or none yet, next to rows without a prompt."""
    order = [9, 3, 6, 0, 8, 2, 4]
    check(case([3, 0, 20, 1, 0, 17, 2, 5, 0, 10], [33], [order], (3, 1, 16)))


def test_idle_rows_are_zero_whatever_their_query():
    arguments = case([0, 5, 0], [4], [[1, -1]])
    arguments[0][[0, 2]] = NAN
    found = run(arguments)
    assert found[[0, 2]].count_nonzero() == 0
    close(found[1:2], exact(arguments)[1:2], torch.float32)


def test_nothing_at_all():
    check(case([0, 0], [0], [[1, 0]], T=4, L=4))
    check(case([2, 1], [3], torch.empty(1, 0, dtype=torch.int32)))
    assert run(case([], *NO_PROMPTS)).shape == (0, 1, 16)


@pytest.mark.parametrize("rising", [1, -1])
def test_extreme_scores(rising):
    """Scores from -2500 to 2500, the largest in the first or last block, of the prompt or not; then all equal."""
    arguments = case([40, 40, 40], [40], [[2, 0]])
    q, keys, _, _, prompt_keys = arguments[:5]
    q.zero_()[..., 0] = 100.0 * rising
    keys[..., 0] = torch.linspace(-100, 100, 40)
    prompt_keys[..., 0] = torch.linspace(-101, 99, 40)
    check(arguments)
    close(run(arguments, cut_into(1, 1, arguments)), exact(arguments), torch.float32)
    keys[..., 0] = prompt_keys[..., 0] = 100
    check(arguments)


@pytest.mark.parametrize("prompt, own", [(1, 1), (2, 3), (9, 5)])
def test_the_number_of_splits_changes_rounding_only(prompt, own):
    arguments = case([35, 2, 16, 60], [33, 40], [[0, -1], [1, 2]], (2, 1, 16))
    close(run(arguments, cut_into(prompt, own, arguments)), exact(arguments), torch.float32)


def test_permuted_rows_permute_the_bits():
    arguments = case([3, 20, 17, 33, 9], [18, 34], [[4, 0, 2], [1, -1, -1]], (4, 2, 16))
    q, keys, values, lengths, prompt_keys, prompt_values, prompt_lengths, groups = arguments
    found = run(arguments)
    new = torch.tensor([3, 0, 4, 1, 2])  # row i comes from row new[i]
    where = torch.full((6,), -1, dtype=torch.int32)  # the last for -1
    where[new] = torch.arange(5, dtype=torch.int32)
    members, slots = torch.tensor([2, 0, 1]), torch.tensor([1, 0])
    moved = (q[new], keys[new], values[new], lengths[new], prompt_keys[slots], prompt_values[slots],
             prompt_lengths[slots], where[groups.long()][slots][:, members].contiguous())
    assert torch.equal(run(moved), found[new])


def test_a_row_does_not_depend_on_the_others():
    arguments = case([3, 20, 17], [18], [[2, 0]], (2, 1, 16))
    found = run(arguments)
    q, keys, values, lengths, *rest = (x.clone() for x in arguments)
    q[0], keys[:2], values[:2], lengths[1] = 1e3, NAN, NAN, 0
    assert torch.equal(run((q, keys, values, lengths, *rest))[2], found[2])


def test_parts_of_larger_tensors():
    """Queries in a row of q, k and v; a layer of a cache and some of its slots; rows of an output."""
    arguments = case([5, 20], [17], [[1]], (4, 2, 16))
    q, keys, values, lengths, prompt_keys, prompt_values, prompt_lengths, groups = arguments

    def part(x: Tensor) -> Tensor:
        slots, K, T, D = x.shape
        whole = torch.full((2, slots + 3, K, T + 2, D), NAN)
        whole[1, :slots, :, :T] = x
        return whole[1, :, :, :T]

    line = torch.cat((q.flatten(1), torch.full((2, 64), NAN)), dim=1)
    out = torch.full((2, 128), NAN)
    views = (line[:, :64].unflatten(1, (4, 16)), part(keys), part(values), lengths, part(prompt_keys),
             part(prompt_values), prompt_lengths, groups)
    space = poisoned(views[0], views[1], views[4], groups)
    found = attend_and_combine(*views, space, out[:, 64:].unflatten(1, (4, 16)))
    assert torch.equal(found, run(arguments)) and torch.equal(out[:, 64:], found.flatten(1))
    assert out[:, :64].isnan().all()


def test_without_a_gpu_the_reference_runs():
    arguments = case([5, 0, 2], [17], [[1, 2]], (4, 2, 16))
    out = torch.full_like(arguments[0], NAN)
    space = workspace(arguments[0], arguments[1], arguments[4], arguments[7])
    assert decode_attention(*arguments, space, out) is out
    assert torch.equal(out, reference.decode_attention(*arguments))


def test_splits_fill_the_card_without_waste():
    def shapes(n, H, K, D, T, G, R, L):
        sizes = (n, H, D), (n, K, T, D), (G, K, L, D)
        q, keys, prompts = (torch.empty(size, dtype=torch.bfloat16, device="meta") for size in sizes)
        space = workspace(q, keys, prompts, torch.empty(G, R, dtype=torch.int32, device="meta"))
        assert space.weighted.shape == (n, H, space.prompt_splits + space.own_splits, D)
        return space.prompt_splits, space.own_splits

    assert shapes(64, 14, 2, 64, 1024, 8, 8, 256) == (4, 5)
    assert shapes(256, 28, 4, 128, 1024, 32, 8, 256) == (3, 1)
    assert shapes(1, 14, 2, 64, 8192, 0, 8, 0) == (1, 32)


def attend(D: int, K: int) -> dict:
    """7 query heads per key head, as in both models; groups of 8."""
    floats = ("q", "keys", "values", "prompt_keys", "prompt_values")
    pointers = ("q", "keys", "values", "lengths", "prompt_keys", "prompt_values", "prompt_lengths", "groups")
    types = {name: "*bf16" if name in floats else "*i32" for name in pointers}
    types |= {"weighted": "*fp32", "sums": "*fp32", "members": "i32", "scale": "fp32"}
    numbers = ("q_row", "slot", "slot_head", "prompt", "prompt_head", "prompt_programs", "prompt_splits", "own_splits")
    constants = {"K": K, "SHARING": 7, "D": D, "BLOCK": 64, "TILES": 2, "TILE": 32, "OWN": 16}
    return {"kernel": "decode_attention.attend_kernel", "constants": constants, "stages": 3,
            "types": types | dict.fromkeys(numbers, "i32") | dict.fromkeys(constants, "constexpr"),
            "odd": ["members", "prompt_programs", "prompt_splits", "own_splits"]}


def combine(D: int, H: int, lines: int, entries: int) -> dict:
    types = {"weighted": "*fp32", "sums": "*fp32", "lengths": "*i32", "prompt_lengths": "*i32", "groups": "*i32",
             "out": "*bf16", "entries": "i32", "members": "i32", "out_row": "i32", "prompt_splits": "i32",
             "own_splits": "i32"}
    constants = {"H": H, "D": D, "BLOCK": 64, "ENTRIES": entries, "LINES": lines}
    return {"kernel": "decode_attention.combine_kernel", "types": types | dict.fromkeys(constants, "constexpr"),
            "constants": constants, "odd": ["prompt_splits", "own_splits", "members"],
            "warps": 1 if lines * D <= 1024 else 4}


@pytest.mark.slow
def test_machine_code():
    """All products are warp-group instructions; keys and values go straight to shared memory 16 bytes at a time;
    enough programs fit a multiprocessor (64 K registers, 228 KiB, of which each program takes 1 KiB extra) to
    hide each other's latency."""
    small, large, merged = compiled(attend(64, 2), attend(128, 4), combine(128, 28, 64, 256))
    for answer, D, programs in ((small, 64, 4), (large, 128, 2)):
        sound(answer)
        assert ops(answer, "HGMMA.64x16x16") == ops(answer, "HGMMA.64x32x16") == D // 16 + D // 64 * 4
        assert ops(answer, "HMMA") == ops(answer, "LDSM") == 0
        assert ops(answer, "LDGSTS") == ops(answer, "LDGSTS.E.BYPASS.128") > 0 and ops(answer, "STG.E.128") > 0
        assert answer["registers"] * 128 * programs <= 65536 and (answer["shared"] + 1024) * programs <= 228 * 1024
    sound(merged)
    assert ops(merged, "LDG.E.128") == 64 * 128 // 4 // 128  # floats of a tile, four a thread, of 128 threads
