"""The deterministic mode: equal bits in the sampler and the trainer, in any batch, on any number of threads."""

from __future__ import annotations

import random

import pytest
import torch

from minifleming.lm import batch_invariant
from minifleming.lm.batch import Example, micro_batches
from minifleming.lm.logprobs import completion_logprobs
from minifleming.lm.sampler import SamplingParams, generate
from tests.lm.conftest import group_logprobs

RNG = random.Random(0)
PROMPTS = [[RNG.randrange(3, 41) for _ in range(n)] for n in (70, 3, 17, 64, 65, 1)]
KEYS = [str(i) for i in range(len(PROMPTS))]


def drawn(model, prompts=PROMPTS, keys=KEYS, **changes) -> dict:
    settings = dict(samples=3, max_new_tokens=20, end_ids=[0, 1], seed=1) | changes
    return {(keys[c.prompt], c.sample): (c.ids, c.logprobs) for c in generate(model, prompts, keys, SamplingParams(**settings))}


@pytest.fixture
def exact(tiny, kind):
    model = tiny(kind, max_position_embeddings=256, intermediate_size=37)
    model.deterministic = True
    return model


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@torch.no_grad()
def scored(model, found, temperature: float, shared: bool, budget: int) -> list[float]:
    """The trainer's log-probabilities of the completions, by either of its two ways."""
    if shared:
        owner = [KEYS.index(k) for k, _ in found]
        values, _ = group_logprobs(model, PROMPTS, owner, [ids for ids, _ in found.values()], temperature)
        return values.tolist()
    examples = [Example(PROMPTS[KEYS.index(k)], ids) for (k, _), (ids, _) in found.items()]
    out = {}
    for batch in micro_batches(examples, budget):
        values, rows = completion_logprobs(model, batch, temperature)
        out |= {i: values[rows == r].tolist() for r, i in enumerate(batch.rows)}
    return [value for i in range(len(examples)) for value in out[i]]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_and_trainer_agree_to_the_bit(exact, threads, temperature):
    """What was recorded is what both ways of scoring compute; without the mode, some last bits differ."""
    found = drawn(exact, temperature=temperature)
    recorded = [p for _, logprobs in found.values() for p in logprobs]
    assert len(recorded) > 100
    for shared, budget in ((True, 0), (False, 1), (False, 300), (False, 10**6)):
        assert scored(exact, found, temperature, shared, budget) == recorded
    exact.deterministic = False
    assert scored(exact, found, temperature, True, 0) != recorded


@pytest.mark.parametrize("slots", [3, 7, 100])
def test_T23_any_batch_gives_the_same_bits(exact, slots):
    """Slots, order, a prompt alone: equal ids and log-probabilities, not only close ones; greedy too."""
    for temperature in (1.0, 0.0):
        reference = drawn(exact, temperature=temperature)
        assert drawn(exact, temperature=temperature, max_num_seqs=slots) == reference
        order = random.Random(slots).sample(range(len(PROMPTS)), len(PROMPTS))
        shuffled = drawn(exact, [PROMPTS[i] for i in order], [KEYS[i] for i in order], temperature=temperature)
        assert {at: shuffled[at] for at in reference} == reference
        alone = drawn(exact, [PROMPTS[2]], [KEYS[2]], temperature=temperature)
        assert alone == {at: c for at, c in reference.items() if at[0] == KEYS[2]}


def test_the_mode_computes_the_same_model(tiny, kind):
    """Logits and gradients are those of the plain mode, to rounding."""
    model, ids = tiny(kind, max_position_embeddings=256), torch.tensor([PROMPTS[0], PROMPTS[3] + [5] * 6])
    results = []
    for mode in (False, True):
        model.deterministic = mode
        logits = model.logits(model(ids))
        results.append((logits.detach(), torch.autograd.grad(logits.square().mean(), list(model.parameters()))))
    torch.testing.assert_close(results[0][0], results[1][0], atol=5e-5, rtol=1e-5)
    for a, b in zip(results[0][1], results[1][1]):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("shape, seen", [((2, 4, 5, 8), [1, 2, 3, 4, 5]), ((1, 6, 3, 10), [100, 65, 64])])
def test_attention_in_blocks(shape, seen):
    """Against a plain softmax over the keys that are seen, in fp64."""
    B, H, T, D = shape
    noise = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, heads, length, D, generator=noise) for heads, length in ((H, T), (2, 100), (2, 100)))
    found = batch_invariant.attention(q, k, v, torch.tensor(seen).expand(B, T))
    for b in range(B):
        for h in range(H):
            for t, n in enumerate(seen):
                keys, values = (x[b, h * 2 // H, :n].double() for x in (k, v))
                wanted = (keys @ q[b, h, t].double() / D**0.5).softmax(0) @ values
                torch.testing.assert_close(found[b, h, t].double(), wanted, atol=1e-5, rtol=1e-5)


def test_close_up():
    """Prompts of 3 and 1 padded to 3, then two tokens: the padding goes, what follows moves up."""
    x = torch.tensor([[0.0, 1, 2, 10, 11], [5, -1, -1, 20, 21]])[:, None, :, None]
    found = batch_invariant.remove_padding_gap(x, torch.tensor([3, 1]), 3)[:, 0, :, 0]
    assert found[0].tolist() == [0, 1, 2, 10, 11] and found[1, :3].tolist() == [5, 20, 21]
