"""Tests for lm/batch_invariant.py: sampler and trainer have equal bits, in any batch, with any number of threads."""

from __future__ import annotations

import random

import pytest
import torch

from minifleming.lm import batch_invariant
from minifleming.lm.batch_invariant import make_batch_invariant
from minifleming.lm.kv_cache import remove_padding_gap
from minifleming.lm.pack import Example, pack_groups, packed_logprobs
from minifleming.lm.sampler import SamplingParams, generate
from tests.lm.conftest import KINDS, group_logprobs, sequence_ids, tiny_model
from tests.padded import collate, completion_logprobs

RNG = random.Random(0)
PROMPTS = [[RNG.randrange(3, 41) for _ in range(n)] for n in (70, 3, 17, 64, 65, 1)]
KEYS = [str(i) for i in range(len(PROMPTS))]


def invariant_model(kind: str):
    model = tiny_model(kind, max_position_embeddings=256, intermediate_size=37)
    make_batch_invariant(model)
    return model


def sampled(model, prompts=PROMPTS, keys=KEYS, **changes) -> dict:
    params = SamplingParams(**dict(samples=3, max_new_tokens=20, end_ids=[0, 1], seed=1) | changes)
    completions = generate(model, prompts, keys, params)
    return {(keys[c.prompt], c.sample): (c.ids, c.logprobs) for c in completions}


@torch.no_grad()
def scores(model, completions: dict, temperature: float) -> list[list[float]]:
    """The trainer's log-probabilities: prompts shared, packs of three sizes, and padded rows."""
    owner = [KEYS.index(key) for key, _ in completions]
    ids = [ids for ids, _ in completions.values()]
    examples = [Example(PROMPTS[prompt], completion) for prompt, completion in zip(owner, ids)]
    results = [group_logprobs(model, PROMPTS, owner, ids, temperature)[0].tolist()]
    for max_tokens in (1, 300, 10**6):
        by_example = {}
        for pack in pack_groups(examples, max_tokens):
            values = packed_logprobs(model, pack, temperature)
            numbers = sequence_ids([examples[i] for i in pack.group_ids])
            for number, example in enumerate(pack.group_ids):
                by_example[example] = values[numbers == number].tolist()
        results.append([p for i in range(len(examples)) for p in by_example[i]])
    results.append(completion_logprobs(model, collate(examples), temperature)[0].tolist())
    return results


def check_sampler_and_trainer(kind: str, temperature: float, **params) -> None:
    """The recorded log-probabilities have the trainer's bits; outside of the mode some differ."""
    model = invariant_model(kind)
    completions = sampled(model, temperature=temperature, **params)
    recorded = [p for _, logprobs in completions.values() for p in logprobs]
    assert len(recorded) > 40
    for found in scores(model, completions, temperature):
        assert found == recorded
    plain = tiny_model(kind, max_position_embeddings=256, intermediate_size=37)
    assert scores(plain, completions, temperature)[0] != recorded


def test_sampler_and_trainer_agree_to_the_bit():
    check_sampler_and_trainer("qwen3", 0.7, samples=1, max_new_tokens=14)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kind", KINDS)
def test_every_family_and_thread_count_agrees_to_the_bit(kind, temperature, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check_sampler_and_trainer(kind, temperature)
    finally:
        torch.set_num_threads(before)


def check_batches(model, rows: int, **params) -> None:
    reference = sampled(model, **params)
    assert sampled(model, **params, max_num_seqs=rows) == reference
    order = random.Random(rows).sample(range(len(PROMPTS)), len(PROMPTS))
    prompts, keys = [PROMPTS[i] for i in order], [KEYS[i] for i in order]
    shuffled = sampled(model, prompts, keys, **params)
    assert {at: shuffled[at] for at in reference} == reference
    single = sampled(model, [PROMPTS[2]], [KEYS[2]], **params)
    assert single == {at: c for at, c in reference.items() if at[0] == KEYS[2]}


def test_T23_any_batch_gives_the_same_bits():
    """Batch size, order of the prompts, a prompt by itself: equal ids and log-probabilities."""
    check_batches(invariant_model("qwen2"), 3, samples=2, max_new_tokens=8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_T23_any_batch_gives_the_same_bits_in_every_family(kind):
    model = invariant_model(kind)
    for rows in (3, 7, 100):
        for temperature in (1.0, 0.0):
            check_batches(model, rows, temperature=temperature)


def test_the_mode_computes_the_same_model(kind):
    """Logits and gradients are those of the plain mode, up to rounding."""
    ids = torch.tensor([PROMPTS[0], PROMPTS[3] + [5] * 6])
    results = []
    for invariant in (False, True):
        model = tiny_model(kind, max_position_embeddings=256)
        if invariant:
            make_batch_invariant(model)
        logits = model.logits(model(ids))
        results.append((logits.detach(), torch.autograd.grad(logits.square().mean(), list(model.parameters()))))
    torch.testing.assert_close(results[0][0], results[1][0], atol=5e-5, rtol=1e-5)
    for a, b in zip(results[0][1], results[1][1]):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("shape, num_keys", [((2, 4, 5, 8), [1, 2, 3, 4, 5]), ((1, 6, 3, 10), [100, 65, 64])])
def test_attention_equals_a_plain_softmax(shape, num_keys):
    """Over the keys that each query sees, in fp64."""
    B, H, T, D = shape
    noise = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, heads, length, D, generator=noise) for heads, length in ((H, T), (2, 100), (2, 100)))
    found = batch_invariant.attention(q, k, v, torch.tensor(num_keys).expand(B, T))
    for b in range(B):
        for h in range(H):
            for t, n in enumerate(num_keys):
                keys, values = (x[b, h * 2 // H, :n].double() for x in (k, v))
                wanted = (keys @ q[b, h, t].double() / D**0.5).softmax(0) @ values
                torch.testing.assert_close(found[b, h, t].double(), wanted, atol=1e-5, rtol=1e-5)


def test_remove_padding_gap():
    """Prompts of 3 and 1 padded to 3, then two tokens: the padding is removed."""
    x = torch.tensor([[0.0, 1, 2, 10, 11], [5, -1, -1, 20, 21]])[:, None, :, None]
    found = remove_padding_gap(x, torch.tensor([3, 1]), 3)[:, 0, :, 0]
    assert found[0].tolist() == [0, 1, 2, 10, 11] and found[1, :3].tolist() == [5, 20, 21]
