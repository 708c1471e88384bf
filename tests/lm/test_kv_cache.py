"""Tests of the key/value caches: a decode step computes what the model computes for the whole row
without a cache."""

from __future__ import annotations

import copy
import random

import pytest
import torch

from minifleming.lm.batch_invariant import make_batch_invariant
from minifleming.lm.engines.fused_cpu import FusedDecoder, fuse_weights
from minifleming.lm.kv_cache import Capacity, KVCache
from tests.lm.conftest import KINDS

PROMPTS = [[5, 9, 33, 2, 17, 8, 1, 30], [7], [4, 4, 11], [40, 39, 38, 37, 36, 3], [12, 6]]
CACHES = (FusedDecoder, KVCache)


def cache_of(cache_class, model, capacity: Capacity) -> KVCache:
    """The cache; the plain one decodes with a batch-invariant copy of the model."""
    if cache_class is KVCache:
        model = copy.deepcopy(model)
        make_batch_invariant(model)
    return cache_class(model, capacity)


@torch.no_grad()
def prefill(cache, prompts, samples: int = 1) -> torch.Tensor:
    """Logits after each prompt. -> [prompts, V]"""
    return cache.model.logits(cache.forward_prompts(prompts, samples))


@torch.no_grad()
def decode(cache, tokens) -> torch.Tensor:
    """Logits after one more token of each active row. -> [active, V]"""
    return cache.model.logits(cache.forward_tokens(torch.tensor(tokens)))


@torch.no_grad()
def uncached(model, rows) -> torch.Tensor:
    """Logits after the last token of each row, each row by itself. -> [rows, V]"""
    return torch.stack([model.logits(model(torch.tensor([row])))[0, -1] for row in rows])


def close(a, b, atol=3e-5):
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-5)


def feed(rng, rows) -> list[int]:
    """A random next token for each row, appended to it."""
    tokens = [rng.randrange(41) for _ in rows]
    for row, token in zip(rows, tokens):
        row.append(token)
    return tokens


def expand(prompts, samples) -> list[list[int]]:
    return [list(prompt) for prompt in prompts for _ in range(samples)]


@pytest.mark.parametrize("heads, kv_heads", [
    (4, 2), pytest.param(4, 4, marks=pytest.mark.slow), pytest.param(6, 1, marks=pytest.mark.slow)])
def test_T25_cached_equals_uncached_logits(tiny, kind, heads, kv_heads):
    """Prompts of different lengths, then ten tokens, through both caches."""
    model = tiny(kind, num_attention_heads=heads, num_key_value_heads=kv_heads)
    for cache_class in CACHES:
        rng, rows = random.Random(0), expand(PROMPTS, 1)
        cache = cache_of(cache_class, model, Capacity(5, 5, 8, 12))
        close(prefill(cache, PROMPTS), uncached(model, rows))
        for _ in range(10):
            close(decode(cache, feed(rng, rows)), uncached(model, rows))
        assert cache.lengths == [10] * 5


def test_shared_prefill_equals_separate_prefills(tiny, kind):
    """One prompt prefilled once for four rows decodes as the same prompt prefilled four times."""
    model, tokens = tiny(kind), [3, 14, 15, 9]
    shared = FusedDecoder(model, Capacity(4, 1, 8, 12))
    separate = FusedDecoder(model, Capacity(4, 4, 8, 12))
    prefill(shared, PROMPTS[:1], 4)
    prefill(separate, PROMPTS[:1] * 4)
    assert shared.slots == [0] * 4 and separate.slots == [0, 1, 2, 3]
    for _ in range(3):
        close(decode(shared, tokens), decode(separate, tokens))
        tokens = tokens[1:] + tokens[:1]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 9))])
def test_rows_come_and_go(tiny, seed):
    """Any history of admissions, decode steps and releases: every active row equals its uncached
    row.

    All memory holds large numbers at first, so reading an entry that was not written would show.
    """
    model, rng, rows = tiny(KINDS[seed % 3]), random.Random(seed), []
    cache = cache_of(CACHES[seed % 2], model, Capacity(12, 8, 8, 20))
    for tensor in (*cache.keys, *cache.values, *cache.prompts):
        tensor.fill_(1e4)
    for _ in range(12):
        samples = rng.randint(1, 3)
        count = rng.randint(0, min((12 - len(rows)) // samples, len(cache.free_slots)))
        if count:
            prompts = [[rng.randrange(41) for _ in range(rng.randint(1, 8))] for _ in range(count)]
            prefill(cache, prompts, samples)
            rows += expand(prompts, samples)
        assert len(cache.slots) == len(rows)
        if not rows:
            continue
        close(decode(cache, feed(rng, rows)), uncached(model, rows))
        gone = [i for i in range(len(rows)) if cache.lengths[i] == 20 or rng.random() < 0.25]
        kept = cache.release(gone)
        assert sorted(kept) == [i for i in range(len(rows)) if i not in gone]
        rows = [rows[i] for i in kept]
        used = set(cache.slots)
        assert len(used) + len(cache.free_slots) == 8 and not used & set(cache.free_slots)


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)])
def test_T32_sixteen_bits_lose_no_more_with_a_cache_than_without(tiny, kind, dtype):
    """Against the fp32 model, the mean error of the fused step is at most 1.5 times that of a plain
    pass."""
    exact, model, rng = tiny(kind), tiny(kind).to(dtype), random.Random(2)
    cache, rows = FusedDecoder(model, Capacity(5, 5, 8, 12)), expand(PROMPTS, 1)
    errors = {"cached": 0.0, "plain": 0.0}
    prefill(cache, PROMPTS)
    for _ in range(10):
        logits = decode(cache, feed(rng, rows))
        truth = uncached(exact, rows)
        errors["cached"] += (logits.float() - truth).abs().mean().item()
        errors["plain"] += (uncached(model, rows).float() - truth).abs().mean().item()
    assert 0 < errors["cached"] < 1.5 * errors["plain"]


def test_release_of_everything_and_of_nothing(tiny):
    cache = FusedDecoder(tiny(), Capacity(3, 3, 8, 10))
    prefill(cache, [[3, 4]], 3)
    assert cache.release([]) == [0, 1, 2] and len(cache.slots) == 3
    assert cache.release([2, 0, 1]) == [] and len(cache.slots) == 0


def test_the_fused_step_uses_the_models_own_weights(tiny, kind):
    """No copies: fused weights are views of the parameters, which keep identity, values and
    gradients."""
    model = tiny(kind)
    twin, held = copy.deepcopy(model), list(model.parameters())
    FusedDecoder(model, Capacity(1, 1, 4, 4))
    assert all(a is b for a, b in zip(model.parameters(), held))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters()))
    attn = model.model.layers[0].self_attn
    whole = fuse_weights([attn.q_proj.weight, attn.k_proj.weight, attn.v_proj.weight])
    assert whole.data_ptr() == attn.q_proj.weight.data_ptr()
    with torch.no_grad():
        attn.k_proj.weight.fill_(7.0)
    assert (whole[attn.q_proj.weight.shape[0] :][: len(attn.k_proj.weight)] == 7).all()
    model.logits(model(torch.tensor([[1, 2, 3]]))).sum().backward()
    assert all(p.grad is not None for p in held)
    assert all(p.is_contiguous() for p in copy.deepcopy(model).parameters())
