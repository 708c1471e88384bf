"""Tests for kernels/gumbel.py: published random numbers, exact distribution, reference, machine code.

The interpreter takes about 0.05 s per program, so the kernel is compared with the reference token by
token on few rows, and the reference with the distribution on many.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from minifleming.kernels import gumbel, reference
from minifleming.kernels.jit import jit, tl
from minifleming.lm.categorical import rng_key
from tests.kernels.check import noise
from tests.kernels.hopper import compiled, ops, sound

GONE = float("-inf")


def keys(n: int, name: str = "a") -> tuple[Tensor, Tensor]:
    """n rng_keys of one prompt, as signed 64-bit integers, and their positions."""
    values = [rng_key(3, 1, name, sample) for sample in range(n)]
    rng_keys = torch.tensor([v - 2**64 * (v >= 2**63) for v in values], dtype=torch.int64)
    return rng_keys, torch.arange(n, dtype=torch.int32) * 7


def gumbel_argmax(logits: Tensor, rng_keys: Tensor, positions: Tensor, temperature: float,
         block: int = 64) -> tuple[Tensor, Tensor]:
    found = torch.full((len(logits),), -7), torch.full((len(logits),), -7.0)
    gumbel.gumbel_argmax(logits, rng_keys, positions, temperature, *found, block)
    return found


def logprobs(logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
    return (logits.double() / (temperature or 1)).log_softmax(-1).gather(1, ids[:, None])[:, 0]


# Random numbers

PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)


@pytest.mark.parametrize("rounds, counter, key, wanted", [
    (7, (0,) * 4, (0,) * 2, "5f6fb709 0d893f64 4f121f81 4f730a48"),
    (7, (2**32 - 1,) * 4, (2**32 - 1,) * 2, "5207ddc2 45165e59 4d8ee751 8c52f662"),
    (7, *PI, "4dfccaba 190a87f0 c47362ba b6b5242a"),
    (10, (0,) * 4, (0,) * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (10, (2**32 - 1,) * 4, (2**32 - 1,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (10, *PI, "d16cfe09 94fdcceb 5001e420 24126ea1")])
def test_philox_gives_the_published_numbers(rounds, counter, key, wanted):
    """The known answers of Random123 (Salmon et al.)."""
    words = reference.philox(*(tuple(torch.tensor([w]) for w in part) for part in (counter, key)), rounds)
    assert " ".join(f"{w.item():08x}" for w in words) == wanted


@jit
def waits_kernel(bits, out, FAST: tl.constexpr):
    at = tl.arange(0, 16)
    tl.store(out + at, gumbel.log_wait(tl.load(bits + at).to(tl.uint32), FAST))


def test_waiting_times_at_the_edges():
    """Smallest and largest bits, both sides of the change of formula: correct to 1e-5, never 0 or infinite."""
    edges = [0, 1, 2, 3, 1000, 2**16, 2**20 + 1, 2**26, 2**32 // 20 - 20, 2**32 // 20, 2**32 // 20 + 20, 2**28, 2**31,
             2**31 + 2**30, 2**32 - 2**12, 2**32 - 1]
    found = torch.empty(16)
    waits_kernel[1,](torch.tensor(edges), found, FAST=False)
    wanted = (-torch.log1p(-(torch.tensor(edges, dtype=torch.float64) + 0.5) * 2.0**-32) / math.log(2)).log2()
    torch.testing.assert_close(found[:14].double(), wanted[:14], atol=1e-5, rtol=0)
    assert abs(found[14] - wanted[14]) < 1e-2  # 1 - u is 2^-20 in steps of 2^-24
    assert found[15].item() == pytest.approx(math.log2(24))


# The distribution of the reference


def drawn(logits: list[float], temperature: float, rng_keys: Tensor, positions: Tensor) -> Tensor:
    return reference.gumbel_sample(torch.tensor([logits]).expand(len(rng_keys), -1), rng_keys, positions, temperature)[0]


def chi_square(counts: Tensor, wanted: Tensor) -> float:
    return ((counts - wanted).square() / wanted).sum().item()


def chi_square_of_pairs(a: Tensor, b: Tensor, n: int) -> float:
    """Statistic of independence, with (n - 1)² degrees of freedom."""
    table = torch.bincount(a * n + b, minlength=n * n).view(n, n).double()
    return chi_square(table, table.sum(1, keepdim=True) * table.sum(0) / table.sum())


@pytest.mark.parametrize("many", ["positions", "rng_keys"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_frequencies_are_those_of_the_softmax(temperature, many):
    """20,000 tokens of one key, and of as many keys at one position (6 degrees of freedom, tail 1e-4)."""
    logits, n = [2.0, -1.0, 0.5, -2.0, 3.0, 0.5, -2.0], 20000
    zero, count = torch.zeros(n, dtype=torch.int64), torch.arange(n)
    rng_keys, positions = (zero + keys(1)[0], count) if many == "positions" else (keys(n)[0], zero + 5)
    counts = torch.bincount(drawn(logits, temperature, rng_keys, positions), minlength=7)
    assert chi_square(counts, (torch.tensor(logits).double() / temperature).softmax(-1) * n) < 27.86


def test_even_tokens_over_many_quads():
    """64 equally likely tokens, 32,000 draws (63 degrees of freedom, tails 1e-6)."""
    counts = torch.bincount(drawn([0.0] * 64, 1.0, keys(1)[0].expand(32000), torch.arange(32000)), minlength=64)
    assert 20 < chi_square(counts, torch.full((64,), 500.0)) < 126


def test_rare_tokens_are_as_rare_as_they_should_be():
    """Sixteen rare tokens have 1 in 1,000 of 40,000 draws: 40, within five deviations."""
    ids = drawn([0.0] + [math.log(1e-3 / 16 / (1 - 1e-3))] * 16, 1.0, keys(1)[0].expand(40000), torch.arange(40000))
    assert abs((ids > 0).sum().item() - 40) < 5 * math.sqrt(40)


def test_neighbours_are_independent():
    """Between positions, keys, keys of two prompts, and words of one quad and the next (tails at most 1e-4)."""
    n, four = 20000, [0.3, 0.0, -0.4, 0.2]
    base = drawn(four, 1.0, keys(1)[0].expand(n), torch.arange(n))
    assert chi_square_of_pairs(base[:-1], base[1:], 4) < 33.72  # 9 degrees of freedom
    samples = drawn(four, 1.0, keys(n)[0], torch.zeros(n, dtype=torch.int64))
    assert chi_square_of_pairs(samples[:-1], samples[1:], 4) < 33.72
    other = drawn(four, 1.0, keys(1, "b")[0].expand(n), torch.arange(n))
    assert chi_square_of_pairs(base, other, 4) < 33.72
    zero, quads, place = torch.zeros(n, dtype=torch.int64), torch.tensor([[0], [1]]), torch.arange(n)
    words = reference.philox((quads, place, zero, zero), (zero + 11, zero + 12))
    eighths = torch.stack(words, 1).flatten(0, 1) >> 29  # of eight neighbouring tokens: [8, n]
    for a, b in itertools.combinations(eighths, 2):
        assert chi_square_of_pairs(a, b, 8) < 107  # 49 degrees of freedom, tail 4e-6


def test_golden_tokens():
    """The token that a key draws is part of the replay contract: these must not change between versions."""
    rng_keys, positions = keys(8)
    ids = reference.gumbel_sample(noise(8, 1000), rng_keys, positions, 1.0)[0]
    assert ids.tolist() == [793, 967, 257, 410, 245, 103, 225, 266]


# The kernel against the reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n, vocabulary, block, temperature", [
    (1, 1, 64, 1.0), (2, 3, 64, 0.7), (2, 7, 64, 1.0), (2, 33, 64, 0.0), (2, 64, 64, 2.5), (3, 65, 64, 1.0),
    (2, 129, 64, 0.0), (2, 1000, 256, 0.7), (2, 4097, 4096, 1.0), (2, 9001, 4096, 1.0)])
def test_ids_and_log_probabilities(n, vocabulary, block, temperature, dtype):
    logits = noise(n, vocabulary, seed=vocabulary, scale=3, dtype=dtype)
    given = logits, *keys(n, f"{vocabulary}"), temperature
    ids, found = gumbel_argmax(*given, block)
    assert ids.tolist() == reference.gumbel_sample(*given)[0].tolist()
    torch.testing.assert_close(found.double(), logprobs(logits, ids, temperature), atol=1e-5, rtol=1e-5)


def test_flat_logits_are_drawn_by_the_random_numbers_alone():
    """Twelve rows of 512 equal logits have the ids of the reference, so every bit of Philox counts."""
    given = torch.zeros(12, 512), *keys(12, "flat"), 1.0
    ids, found = gumbel_argmax(*given, 512)
    assert ids.tolist() == reference.gumbel_sample(*given)[0].tolist() and len(set(ids.tolist())) > 8
    torch.testing.assert_close(found, torch.full((12,), -math.log(512)))


def test_neither_block_nor_batch_nor_place_enters():
    """The tokens do not depend on block size, order of rows, stride of rows or dtype of positions."""
    logits, (rng_keys, positions) = noise(3, 300, scale=0.3), keys(3)
    ids, found = gumbel_argmax(logits, rng_keys, positions, 1.0, 256)
    for block in (128, 512):
        again = gumbel_argmax(logits, rng_keys, positions, 1.0, block)
        assert torch.equal(again[0], ids)
        torch.testing.assert_close(again[1], found, atol=2e-6, rtol=0)
    order = torch.tensor([2, 0, 2, 1])
    again = gumbel_argmax(logits[order], rng_keys[order], positions[order].long(), 1.0, 256)
    assert torch.equal(again[0], ids[order]) and torch.equal(again[1], found[order])
    wide = torch.full((3, 603), float("nan"))
    wide[:, 2:302] = logits
    again = gumbel_argmax(wide[:, 2:302], rng_keys, positions, 1.0, 256)
    assert torch.equal(again[0], ids) and torch.equal(again[1], found)


def test_position_and_stream_enter():
    """Ten rows that differ in position, or in one half of the key, draw different tokens, as in the reference."""
    rng_keys, positions = torch.zeros(10, dtype=torch.int64), torch.zeros(10, dtype=torch.int64)
    positions[1:4] = torch.tensor([1, 2, 2**31 - 1])
    rng_keys[4:] = torch.tensor([1, -1, 2**32, -(2**63), 2**63 - 1, 2**31])
    ids = gumbel_argmax(torch.zeros(10, 2048), rng_keys, positions, 1.0, 2048)[0]
    assert len(set(ids.tolist())) == 10
    assert ids.tolist() == reference.gumbel_sample(torch.zeros(10, 2048), rng_keys, positions, 1.0)[0].tolist()


def test_of_equal_logits_the_first():
    """Equal logits within a quad, across quads and across blocks."""
    logits = torch.zeros(4, 300, dtype=torch.bfloat16)
    for row, places in enumerate([(0, 1, 2, 3), (6, 9), (63, 64, 299), (299,)]):
        logits[row, list(places)] = 2
    assert gumbel_argmax(logits, *keys(4), 0.0)[0].tolist() == [0, 6, 63, 299]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of the interpreter
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite(temperature):
    """-inf is never drawn, also if it fills a block. NaN, +inf or only -inf give NaN and a valid id."""
    logits = torch.zeros(5, 130)
    logits[0, :-1] = GONE
    logits[1, 7], logits[2, 129], logits[3], logits[4] = float("nan"), float("inf"), GONE, float("nan")
    ids, found = gumbel_argmax(logits, *keys(5), temperature)
    assert ids[0] == 129 and found[0] == 0
    assert found[1:].isnan().all() and (0 <= ids).all() and (ids < 130).all()
    assert reference.gumbel_sample(logits, *keys(5), temperature)[1].isnan().tolist() == [False] + [True] * 4
    logits = torch.zeros(2, 128)  # whole blocks of NaN name no quad at all
    logits[1] = float("nan")
    ids, found = gumbel_argmax(logits, *keys(2), temperature)
    assert (0 <= ids).all() and (ids < 128).all() and found.isnan().tolist() == [False, True]


def test_extreme_logits_and_temperatures():
    logits = torch.tensor([[1e4, -1e4, 1e4 - 1, 0.0], [-1e8, -1e8, 1e8, 1.0], [88.0, 87.0, -200.0, 88.0]])
    for temperature in (0.0, 1.0, 20.0):
        ids, found = gumbel_argmax(logits, *keys(3), temperature)
        assert torch.equal(ids, reference.gumbel_sample(logits, *keys(3), temperature)[0])
        wanted = logprobs(logits, ids, temperature)
        torch.testing.assert_close(found.double(), wanted, atol=1e-3, rtol=0)  # of 1e4 fp32 has 10 bits below 1


def test_static_outputs_and_no_rows():
    """The given tensors are filled and returned; a call on the CPU is the reference; no rows are allowed."""
    given = noise(3, 40), *keys(3)
    outs = torch.empty(3, dtype=torch.int64), torch.empty(3)
    for temperature in (0.0, 0.7):
        found = gumbel.sample_tokens(*given, temperature, *outs)
        assert found[0] is outs[0] and found[1] is outs[1]
        wanted = reference.gumbel_sample(*given, temperature)
        assert all(torch.equal(a, b) for a, b in zip(outs, wanted))
        assert all(torch.equal(a, b) for a, b in zip(gumbel.sample_tokens(*given, temperature), wanted))
    none = noise(0, 40), *keys(0), 1.0
    assert [x.shape for x in (*gumbel_argmax(*none), *gumbel.sample_tokens(*none))] == [(0,)] * 4


# Machine code

SPACE = {"logits": "*bf16", "rng_keys": "*i64", "positions": "*i32", "tops": "*fp32", "masses": "*fp32",
         "firsts": "*fp32", "quads": "*i32"}
NUMBERS = {"vocabulary": "i32", "z_row": "i32", "scale": "fp32", "splits": "i32", "GREEDY": "constexpr",
           "FAST": "constexpr"}


@pytest.mark.slow
def test_machine_code():
    """V = 151,936: loads of 8 bytes in bf16 and 16 in fp32 (the four values of one Philox stay in one thread); one
    instruction for a product of Philox; 3 uses of the special unit and at most 31 instructions per logit (16 at
    temperature 0).
    """
    block, row = SPACE | NUMBERS | {"BLOCK": "constexpr"}, SPACE | {"ids": "*i64", "logprobs": "*fp32"} | NUMBERS
    requests = [{"kernel": "gumbel.block_kernel", "types": block | {"logits": dtype}, "odd": ["splits"],
                 "constants": {"GREEDY": greedy, "FAST": True, "BLOCK": gumbel.BLOCK}}
                for dtype, greedy in (("*bf16", False), ("*fp32", True))]
    requests += [{"kernel": "gumbel.row_kernel", "types": row | {"SPLITS": "constexpr"}, "odd": ["splits"], "warps": 1,
                  "constants": {"GREEDY": False, "FAST": True, "SPLITS": 64}}]
    answers = compiled(*requests)
    random, greedy, rows = answers
    for answer in answers:
        sound(answer)
        assert answer["shared"] <= 32 and ops(answer, "ATOM") == ops(answer, "RED.") == 0
    each = gumbel.BLOCK // 128  # logits a thread
    assert ops(random, "LDG.E.64") >= each // 4 and ops(greedy, "LDG.E.128") == each // 4
    assert ops(random, "MUFU.LG2") == 2 * each and ops(random, "MUFU.EX2") == each and random["registers"] <= 80
    assert ops(random, "IMAD.WIDE.U32") <= 3.5 * each and ops(random, "IMAD.HI") == 0
    assert sum(random["instructions"].values()) <= 31 * each
    assert ops(greedy, "MUFU.LG2") == 0 and sum(greedy["instructions"].values()) <= 16 * each
    assert rows["registers"] <= 64
