"""The cache against the uncached decoder: what a decode step computes is what the whole row gives, anew."""

from __future__ import annotations

import copy
import random

import pytest
import torch

from minifleming.lm.engines.fused_cpu import FusedDecoder, fuse_weights
from minifleming.lm.kv_cache import Cache

PROMPTS = [[5, 9, 33, 2, 17, 8, 1, 30], [7], [4, 4, 11], [40, 39, 38, 37, 36, 3], [12, 6]]


def cache_for(model, rows: int, tokens: int, slots: int | None = None, prompt_tokens: int = 8) -> Cache:
    return Cache(model.config, rows, slots or rows, prompt_tokens, tokens, torch.float32, model.device,
                 model.deterministic)


@torch.no_grad()
def prefill(model, cache, prompts, samples: int = 1) -> torch.Tensor:
    """Right-padded with a token that is not 0. -> logits after each prompt [prompts, V]"""
    lengths = [len(p) for p in prompts]
    ids = torch.tensor([p + [21] * (max(lengths) - len(p)) for p in prompts])
    cache.begin_prefill(lengths)
    hidden = model(ids, cache=cache)
    cache.admit(samples)
    return model.logits(hidden[range(len(prompts)), [n - 1 for n in lengths]])


@torch.no_grad()
def decode(model, cache, tokens, plain: bool = False) -> torch.Tensor:
    """One token for each active row, by the fast step or through the plain model. -> logits [active, V]"""
    step = FusedDecoder(model, 64)
    return model.logits((step.reference_step if plain else step.step)(torch.tensor(tokens), cache))


@torch.no_grad()
def uncached(model, rows) -> torch.Tensor:
    """Logits after the last token of each row, every row alone. -> [rows, V]"""
    return torch.stack([model.logits(model(torch.tensor([row])))[0, -1] for row in rows])


def close(a, b, atol=3e-5):
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-5)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("heads, kv_heads", [(4, 2), (4, 4), (6, 1)])
def test_T25_cached_equals_uncached_logits(tiny, kind, heads, kv_heads, plain):
    """Ragged prompts, then ten fed tokens: the cache's logits are those of the whole row, computed anew."""
    model, rng = tiny(kind, num_attention_heads=heads, num_key_value_heads=kv_heads), random.Random(0)
    cache, rows = cache_for(model, 5, 12), [list(p) for p in PROMPTS]
    close(prefill(model, cache, PROMPTS), uncached(model, rows))
    for _ in range(10):
        tokens = [rng.randrange(41) for _ in rows]
        rows = [row + [t] for row, t in zip(rows, tokens)]
        close(decode(model, cache, tokens, plain), uncached(model, rows))
    assert cache.lengths == [10] * 5


def test_shared_prefill_equals_separate_prefills(tiny, kind):
    """One prompt prefilled once for four rows decodes as the same prompt prefilled four times."""
    model, tokens = tiny(kind), [3, 14, 15, 9]
    shared, separate = cache_for(model, 4, 12, slots=1), cache_for(model, 4, 12)
    prefill(model, shared, PROMPTS[:1], 4)
    prefill(model, separate, PROMPTS[:1] * 4)
    assert shared.slots == [0] * 4 and separate.slots == [0, 1, 2, 3]
    for _ in range(3):
        close(decode(model, shared, tokens), decode(model, separate, tokens))
        tokens = tokens[1:] + tokens[:1]


@pytest.mark.parametrize("seed", range(9))
def test_rows_come_and_go(tiny, seed):
    """Any history of admissions, decode steps and releases: every active row still is its own whole row.

    Stale contents of freed rows and slots, rows that moved, and rows that join late reach nobody: what was never
    written is NaN here.
    """
    model, rng = tiny(("qwen2", "qwen3", "llama")[seed % 3]), random.Random(seed)
    cache, rows = cache_for(model, 12, 20, slots=8), []
    for own in (*cache.keys, *cache.values):
        own.fill_(float("nan"))
    for _ in range(25):
        samples, free = rng.randint(1, 3), 12 - len(rows)
        count = rng.randint(0, min(free // samples, len(cache.free)))
        if count:
            prompts = [[rng.randrange(41) for _ in range(rng.randint(1, 8))] for _ in range(count)]
            prefill(model, cache, prompts, samples)
            rows += [list(p) for p in prompts for _ in range(samples)]
        assert len(cache) == len(rows)
        if not rows:
            continue
        tokens = [rng.randrange(41) for _ in rows]
        rows = [row + [t] for row, t in zip(rows, tokens)]
        close(decode(model, cache, tokens, plain=seed == 8), uncached(model, rows))
        gone = [i for i in range(len(rows)) if cache.lengths[i] == 20 or rng.random() < 0.25]
        kept = cache.release(gone)
        assert sorted(kept) == [i for i in range(len(rows)) if i not in gone]
        rows = [rows[i] for i in kept]
        assert len(set(cache.slots)) + len(cache.free) == 8 and not set(cache.slots) & set(cache.free)


def test_room_grows_and_keeps_what_is_written(tiny, monkeypatch):
    """Room for one token at first: after every doubling each row still is its own whole row."""
    monkeypatch.setattr("minifleming.lm.kv_cache.COLUMNS", 1)
    for head_dim in (8, 40):  # keys with the tokens side by side, and keys that stand row by row
        model = tiny(head_dim=head_dim)
        cache, rows, rng = cache_for(model, 4, 11, slots=2), [[7, 8], [7, 8], [9], [9]], random.Random(1)
        prefill(model, cache, [[7, 8], [9]], 2)
        rooms = set()
        for _ in range(11):
            tokens = [rng.randrange(41) for _ in rows]
            rows = [row + [t] for row, t in zip(rows, tokens)]
            close(decode(model, cache, tokens), uncached(model, rows))
            rooms.add(cache.room)
        assert rooms == {1, 2, 4, 8, 11}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_T32_sixteen_bits_lose_no_more_with_a_cache_than_without(tiny, kind, dtype):
    """Against the fp32 model: the mean error of the fast step is at most 1.5 times that of a plain pass."""
    exact, model, rng = tiny(kind), tiny(kind).to(dtype), random.Random(2)
    cache = Cache(model.config, 5, 5, 8, 12, dtype, model.device)
    rows, errors = [list(p) for p in PROMPTS], {"cached": 0.0, "plain": 0.0}
    prefill(model, cache, PROMPTS)
    for _ in range(10):
        tokens = [rng.randrange(41) for _ in rows]
        rows = [row + [t] for row, t in zip(rows, tokens)]
        truth = uncached(exact, rows)
        errors["cached"] += (decode(model, cache, tokens).float() - truth).abs().mean().item()
        errors["plain"] += (uncached(model, rows).float() - truth).abs().mean().item()
    assert 0 < errors["cached"] < 1.5 * errors["plain"]


def test_release_of_everything_and_of_nothing(tiny):
    model = tiny()
    cache = cache_for(model, 3, 10)
    prefill(model, cache, [[3, 4]], 3)
    assert cache.release([]) == [0, 1, 2] and len(cache) == 3
    assert cache.release([2, 0, 1]) == [] and len(cache) == 0


def test_the_fast_step_uses_the_model_s_own_weights(tiny, kind):
    """No copies: weights stand side by side in place, keep identity, values and gradients, and stay current."""
    model = tiny(kind)
    twin, held = copy.deepcopy(model), list(model.parameters())
    FusedDecoder(model, 8)
    assert all(a is b for a, b in zip(model.parameters(), held))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters()))
    attn, before = model.model.layers[0].self_attn, model.model.layers[0].self_attn.q_proj.weight.data_ptr()
    whole = fuse_weights([attn.q_proj.weight, attn.k_proj.weight, attn.v_proj.weight])
    assert whole.data_ptr() == before  # a second time moves nothing
    with torch.no_grad():
        attn.k_proj.weight.fill_(7.0)
    assert (whole[attn.q_proj.weight.shape[0] :][: len(attn.k_proj.weight)] == 7).all()
    model.logits(model(torch.tensor([[1, 2, 3]]))).sum().backward()
    assert all(p.grad is not None for p in held)
    assert all(p.is_contiguous() for p in copy.deepcopy(model).parameters())
