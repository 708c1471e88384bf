"""Samples one token per row with keyed random numbers (Gumbel arg-max), and its log-probability.

    E_v = -log(1 - u_v)                 waiting time of token v
                                        u_v in (0, 1) from Philox of (rng_key, position, v)
    id  = argmin_v log E_v - z_v / τ    P(id = v) = softmax(z / τ)_v
                                        the Gumbel arg-max, as -log E is Gumbel noise
    τ = 0: id = argmax_v z_v, of equal logits the first, and its log-probability at τ = 1
    logprob = z_id / τ - log Σ_v exp(z_v / τ)           z [n, V] -> ids [n], logprobs [n]

There is no gradient. Arithmetic is in fp32, with powers and logarithms to base 2: z / τ becomes
z · log2(e) / τ.

Random numbers: four neighbouring tokens use the 4x32 bits of Philox-4x32 with 7 rounds for the
counter (v // 4, position, 0, 0) and the 64-bit key ``rng_key`` (Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3"; with 7 rounds it passes BigCrush). They depend on nothing else:
not on the index of a row, the number of rows, or the block size. Among equal arrivals the lower
token wins, so ids do not depend on the order of reduction either.

u = (x + 1/2) / 2^32 for 32 bits x. Winners have small E, so a small u keeps its resolution: below u
= 1/20 x is a float and E = u + u²/2 + 0.3449 u³ (3e-6 relative), above it the hardware's log2(1 -
u) (3e-6). E is 2^-33 or more in steps of 2^-32; the winner of 151,936 even tokens has some 2^-17,
steps of 3e-5 of it. E is never infinite: 1 - u has steps of 2^-24 and ends there, E at 16.6. So
probabilities are right to about 1e-5; in the tails a token gains or loses 2^-24 of another's
probability, and one of less than 2^-37 of the likeliest is never drawn.

A token with logit -inf is never drawn. If a row contains NaN or +inf, or only -inf, its
log-probability is NaN and its id is some valid id. |z / τ| must stay below 1e9.

Memory traffic: the logits once, 2 n V bytes in bf16; softmax and multinomial of plain PyTorch move
about 40 n V. Arithmetic is the limit. A row is divided into blocks of 4096, one program each: 64
rows of V = 151,936 are 2432 programs for 132 SMs. A thread has 32 logits and executes 950
instructions: 30 per logit, of them 6.5 of Philox and 3 of the unit for exp2 and log2, which takes
16 per clock. 64 · 38 · 128 threads · 950 / (132 SMs · 128 per clock) = 17,500 clocks, 10 us at 1.75
GHz if every clock issues (the special unit 7.9 us, the bytes 5): 12 to 14 us expected. Then one
warp per row combines 38 blocks, 2 to 3 us of latency. Together about 16 us; plain PyTorch takes 90
us.

A block stores only its best quad (four tokens of one counter) and the arrival; the warp recomputes
the winner's four. That saves comparisons of ids, two instructions per logit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from minifleming.kernels import reference
from minifleming.kernels.jit import cdiv, jit, on_gpu, power_of_2, tl

BLOCK = 4096  # logits per program, 32 per thread


def sample_tokens(logits: Tensor, rng_keys: Tensor, positions: Tensor, temperature: float,
                  out_ids: Tensor | None = None,
                  out_logprobs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token per row and its log-probability, written to ``out_ids`` and ``out_logprobs`` if
    given.

    logits [n, V], rng_keys [n] int64 (the 64 bits of ``lm.categorical.rng_key``), positions [n]
    integers below 2^32 -> [n], [n]
    """
    if out_ids is None:
        out_ids = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    if out_logprobs is None:
        out_logprobs = torch.empty_like(out_ids, dtype=torch.float32)
    if on_gpu(logits, rng_keys, positions):
        gumbel_argmax(logits, rng_keys, positions, temperature, out_ids, out_logprobs)
    else:
        ids, logprobs = reference.gumbel_sample(logits, rng_keys, positions, temperature)
        out_ids.copy_(ids)
        out_logprobs.copy_(logprobs)
    return out_ids, out_logprobs


@jit
def philox(quad, position, rng_key):
    """Four times 32 bits a quad, [Q] each. A whole product is one instruction, its high and low
    half two."""
    c0, c1 = quad.to(tl.uint32), position.to(tl.uint32)
    c2, c3 = c1 * 0, c1 * 0
    k0, k1 = rng_key.to(tl.uint32), (rng_key >> 32).to(tl.uint32)
    for _ in tl.static_range(7):
        one, two = c0.to(tl.uint64) * 0xD2511F53, c2.to(tl.uint64) * 0xCD9E8D57
        c0, c1 = (two >> 32).to(tl.uint32) ^ c1 ^ k0, two.to(tl.uint32)
        c2, c3 = (one >> 32).to(tl.uint32) ^ c3 ^ k1, one.to(tl.uint32)
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    return c0, c1, c2, c3


@jit
def log2(x, FAST: tl.constexpr):
    """FAST: the hardware's, one instruction. The interpreter has only the other, some 20."""
    return tl.extra.cuda.libdevice.fast_log2f(x) if FAST else tl.log2(x)


@jit
def log_wait(x, FAST: tl.constexpr):
    """log2 of the waiting time E / ln 2 of 32 bits x, u = (x + 1/2) / 2^32: from -32.5 to 4.6."""
    x = x.to(tl.float32)
    small = tl.fma(x, tl.fma(x, tl.fma(x, 6.2809586e-30, 3.9104327e-20), 3.359036e-10),
                   1.679518e-10)
    # of 1 - u; the factor is just below 2^-32: never of 0
    large = log2(tl.fma(x, -2.3283063e-10, 1.0), FAST)
    return log2(tl.abs(tl.where(x < 214748365.0, small, large)), FAST)


@jit
def exponential_race(z, quad, rng_key, position, scale, GREEDY: tl.constexpr, FAST: tl.constexpr):
    """log2 of when each token arrives, the least wins. z [Q, 4], quad [Q] -> [Q, 4]"""
    if GREEDY:
        when = -z
    else:
        a, b, c, d = philox(quad, position, rng_key)
        when = tl.fma(z, -scale,
                      log_wait(tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), z.shape), FAST))
    return when


@jit
def block_kernel(logits, rng_keys, positions, tops, masses, firsts, quads, vocabulary, z_row, scale,
                 splits, GREEDY: tl.constexpr, FAST: tl.constexpr, BLOCK: tl.constexpr):
    """Of a block of a row: its largest z / τ, the sum of exp2 relative to that, the first arrival
    and its quad."""
    row, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    quad = split * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
    at = quad[:, None] * 4 + tl.arange(0, 4)[None, :]
    z = tl.load(logits + row * z_row + at, mask=at < vocabulary, other=float("-inf")).to(tl.float32)
    when = exponential_race(z, quad, tl.load(rng_keys + row), tl.load(positions + row), scale,
                            GREEDY, FAST)
    when = tl.min(when, 1)  # [Q]
    first = tl.min(when, 0)
    top = tl.max(z) * scale
    # -inf - -inf would be NaN
    mass = tl.sum(tl.exp2(tl.fma(z, scale, -tl.where(top == float("-inf"), 0.0, top))))
    to = row * splits + split
    tl.store(tops + to, top)
    tl.store(masses + to, mass)
    tl.store(firsts + to, first)
    tl.store(quads + to, tl.min(tl.where(when == first, quad, 2147483647), 0))


@jit
def row_kernel(logits, rng_keys, positions, tops, masses, firsts, quads, ids, logprobs, vocabulary,
               z_row, scale, splits, GREEDY: tl.constexpr, FAST: tl.constexpr,
               SPLITS: tl.constexpr):
    """The blocks of one row together. Comparisons with NaN are false, so ids are held inside the
    vocabulary."""
    row, split = tl.program_id(0).to(tl.int64), tl.arange(0, SPLITS)
    at, inside = row * splits + split, split < splits
    tops_ = tl.load(tops + at, mask=inside, other=float("-inf"))
    firsts_ = tl.load(firsts + at, mask=inside, other=float("inf"))
    top, first = tl.max(tops_, 0), tl.min(firsts_, 0)
    # NaN where all are -inf
    mass = tl.sum(tl.load(masses + at, mask=inside, other=0.0) * tl.exp2(tops_ - top), 0)
    quad = tl.min(tl.where(firsts_ == first, tl.load(quads + at, mask=inside, other=2147483647),
                           2147483647), 0)
    quad = tl.minimum(quad, (vocabulary - 1) // 4) + tl.arange(0, 1)  # [1]
    four = quad[:, None] * 4 + tl.arange(0, 4)[None, :]
    z = tl.load(logits + row * z_row + four, mask=four < vocabulary,
                other=float("-inf")).to(tl.float32)
    when = exponential_race(z, quad, tl.load(rng_keys + row), tl.load(positions + row), scale,
                            GREEDY, FAST)
    found = tl.minimum(tl.min(tl.where(when == tl.min(when), four, 2147483647)), vocabulary - 1)
    chosen = tl.sum(tl.where(four == found, z, 0.0))
    tl.store(ids + row, found.to(tl.int64))
    tl.store(logprobs + row, (tl.fma(chosen, scale, -top) - tl.log2(mass)) * 0.6931471805599453)


def gumbel_argmax(logits: Tensor, rng_keys: Tensor, positions: Tensor, temperature: float,
                  ids: Tensor, logprobs: Tensor, block: int = BLOCK) -> None:
    """The two kernels. Rows strided, the columns of a row contiguous; the workspace depends on
    shapes alone."""
    (n, vocabulary), device = logits.shape, logits.device
    assert logits.stride(1) == 1 and 0 < vocabulary < 2**31 - block and temperature >= 0
    assert rng_keys.dtype == ids.dtype == torch.int64
    assert positions.dtype in (torch.int32, torch.int64)
    assert logprobs.dtype == torch.float32
    assert all(x.shape == (n,) and x.is_contiguous() for x in (rng_keys, positions, ids, logprobs))
    splits, scale = cdiv(vocabulary, block), math.log2(math.e) / (temperature or 1)
    tops = torch.empty(n, splits, dtype=torch.float32, device=device)
    masses, firsts = torch.empty_like(tops), torch.empty_like(tops)
    quads = torch.empty(n, splits, dtype=torch.int32, device=device)
    given = logits, rng_keys, positions, tops, masses, firsts, quads
    how = {"GREEDY": temperature == 0, "FAST": logits.is_cuda}
    if n:
        block_kernel[n, splits](*given, vocabulary, logits.stride(0), scale, splits, BLOCK=block,
                                **how)
        row_kernel[n,](*given, ids, logprobs, vocabulary, logits.stride(0), scale, splits,
                       SPLITS=power_of_2(splits), num_warps=1, **how)
