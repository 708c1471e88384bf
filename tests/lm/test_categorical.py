"""One token: keyed numbers by a second implementation, and the exact distribution."""

from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
import pytest
import torch

from minifleming.lm.categorical import rng_key, sample_inverse_cdf, uniform_at
from minifleming.run.errors import RunFailed

# Keyed random numbers


def table(seed, step, key, samples, positions) -> np.ndarray:
    """The numbers of a prompt's completions. -> [samples, positions]"""
    streams = np.array([rng_key(seed, step, key, s) for s in range(samples)], np.uint64)
    return np.stack([uniform_at(streams, np.full(samples, p)) for p in range(positions)], axis=1)


def mix(seed, step, key, sample, position) -> float:
    """A scalar second writing of the documented hash: SplitMix64's finaliser over blake2b + count ·
    gamma."""
    start = int.from_bytes(hashlib.blake2b(f"{seed}\x1f{step}\x1f{key}".encode(), digest_size=8).digest(), "little")
    z = (start + ((sample << 32) + position + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return ((z ^ (z >> 31)) >> 11) / 2**53


def test_T23_uniforms_are_a_function_of_their_key():
    """Each number is the scalar hash of (seed, step, key, sample, position), however many are asked
    for."""
    found = table(7, 12, "lupus-3", 5, 40)
    assert found.shape == (5, 40) and found.dtype == np.float64
    for s, p in itertools.product(range(5), range(40)):
        assert found[s, p] == mix(7, 12, "lupus-3", s, p)
    assert np.array_equal(table(7, 12, "lupus-3", 2, 11), found[:2, :11])


def test_T23_uniforms_golden_values():
    """The stream is part of the replay contract: these numbers must not change between versions."""
    wanted = [[0.5356791700333954, 0.013836859849991057], [0.6603211235690876, 0.3114942561506071]]
    assert table(0, 0, "a", 2, 2).tolist() == wanted


def test_T23_uniforms_of_other_keys_are_unrelated():
    """Changing any part of the key gives an uncorrelated table; neighbours within a table are
    too."""
    base = table(0, 1, "x", 8, 500)
    others = [table(1, 1, "x", 8, 500), table(0, 2, "x", 8, 500), table(0, 1, "y", 8, 500),
              table(1, 0, "x", 8, 500), table(0, 11, "", 8, 500), table(0, 1, "é", 8, 500)]
    assert len(np.unique([base, *others])) == 7 * base.size
    pairs = [(base, other) for other in others] + [(base[:-1], base[1:]), (base[:, :-1], base[:, 1:])]
    for a, b in pairs:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / math.sqrt(a.size)


def test_uniforms_are_uniform():
    """64,000 numbers in 64 bins: chi-square within its 1e-6 tails; all in [0, 1)."""
    values = table(5, 6, "flat", 64, 1000).ravel()
    assert values.min() >= 0 and values.max() < 1
    counts = np.histogram(values, 64, (0, 1))[0]
    assert 20 < ((counts - 1000) ** 2 / 1000).sum() < 126  # 63 degrees of freedom


# One token


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.5])
def test_T15_draw_is_the_exact_inverse_of_the_distribution(temperature):
    """Evenly spread numbers give each token N · p times, to within one: the whole vocabulary,
    nothing cut off."""
    logits = torch.tensor([2.0, -1.0, 0.5, -4.0, 3.0, 0.5, -2.0])
    n = 4000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    ids, logprobs = sample_inverse_cdf(logits.expand(n, 7), u, temperature)
    wanted = (logits.double() / temperature).softmax(-1)
    assert (torch.bincount(ids, minlength=7) - wanted * n).abs().max() <= 1.001
    torch.testing.assert_close(logprobs.double(), wanted.log()[ids], atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [pytest.param(1.0, marks=pytest.mark.slow), 0.7])
def test_draw_frequencies_pass_chi_square(temperature):
    """Keyed numbers give frequencies of the exact distribution (6 degrees of freedom, tail
    1e-4)."""
    logits, n = torch.tensor([2.0, -1.0, 0.5, -2.0, 3.0, 0.5, -2.0]), 20000
    ids, _ = sample_inverse_cdf(logits.expand(n, 7), torch.from_numpy(table(0, 0, "chi", 1, n)[0]), temperature)
    wanted = (logits.double() / temperature).softmax(-1) * n
    chi = ((torch.bincount(ids, minlength=7) - wanted) ** 2 / wanted).sum()
    assert chi < 27.86


def at(*u: float) -> torch.Tensor:
    return torch.tensor(u, dtype=torch.float64)


def test_draw_at_the_edges():
    """u = 0 takes the first token that has mass, u just below 1 the last; -inf logits are never
    drawn."""
    gone = float("-inf")
    logits = torch.tensor([[gone, 1.0, gone, 1.0, gone]])
    for u, token in ((0.0, 1), (0.4999999, 1), (0.5, 3), (1 - 2**-53, 3)):
        assert sample_inverse_cdf(logits, at(u), 1.0)[0].item() == token


@pytest.mark.parametrize("vocab", [1, 5, 63, 64, 65, 128, 1000])
def test_draw_over_blocks_of_the_vocabulary(vocab):
    """Odd sizes, mass in a few far places: the token is that of a plain fp64 search, the value its
    log-softmax."""
    rng = torch.Generator().manual_seed(vocab)
    logits = torch.randn(300, vocab, generator=rng) * 4
    logits[torch.rand(300, vocab, generator=rng) < 0.5] = float("-inf")
    logits[:, vocab // 2] = 0.0
    u = torch.rand(300, dtype=torch.float64, generator=rng)
    ids, logprobs = sample_inverse_cdf(logits, u, 1.0)
    p = logits.double().softmax(-1)
    sums = p.cumsum(-1)
    near = 1e-6  # the sums here are fp64, those of a block fp32
    assert (sums.gather(1, ids[:, None])[:, 0] > u - near).all() and (p.gather(1, ids[:, None]) > 0).all()
    assert ((sums - p).gather(1, ids[:, None])[:, 0] < u + near).all()
    torch.testing.assert_close(logprobs.double(), p.log().gather(1, ids[:, None])[:, 0], atol=1e-5, rtol=0)
    for edge in (0.0, 1 - 2**-53):
        ids, _ = sample_inverse_cdf(logits, torch.full((300,), edge, dtype=torch.float64), 1.0)
        assert (p.gather(1, ids[:, None]) > 0).all()


def test_greedy_takes_the_arg_max_with_its_untempered_log_probability():
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    ids, logprobs = sample_inverse_cdf(logits, None, 0.0)
    assert torch.equal(ids, logits.argmax(-1))
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).amax(-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_stop_the_run(temperature, value):
    """No token is drawn from them, and no NaN is recorded as a log-probability."""
    logits = torch.zeros(2, 70)
    logits[1, 5] = value
    with pytest.raises(RunFailed, match="not finite"):
        sample_inverse_cdf(logits, None if temperature == 0 else at(0.5, 0.5), temperature)
