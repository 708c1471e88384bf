"""The cache against the uncached decoder, and the sampler against exact distributions."""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
import random

import numpy as np
import pytest
import torch

from minifleming.lm.batch import Example, collate
from minifleming.lm.cache import Cache
from minifleming.lm.sampler import draw, sample, uniforms
from minifleming.lm.score import completion_logprobs
from minifleming.run.errors import BadInput

END, OTHER_END = 1, 2
PROMPTS = [[5, 9, 33, 2, 17, 8, 1, 30], [7], [4, 4, 11], [40, 39, 38, 37, 36, 3], [12, 6]]
KEYS = [f"item-{i}" for i in range(len(PROMPTS))]


def cache_for(model, slots: int, tokens: int) -> Cache:
    c = model.config
    return Cache(c.num_hidden_layers, slots, c.num_key_value_heads, tokens, c.head_dim, torch.float32, model.device)


@torch.no_grad()
def prefill(model, cache, prompts, copies) -> torch.Tensor:
    """Right-padded with a token that is not 0. -> logits after each prompt [prompts, V]"""
    lengths = [len(p) for p in prompts]
    ids = torch.tensor([p + [21] * (max(lengths) - len(p)) for p in prompts])
    cache.begin_prefill()
    hidden = model(ids, cache=cache)
    cache.admit(lengths, copies)
    return model.logits(hidden[range(len(prompts)), [n - 1 for n in lengths]])


@torch.no_grad()
def decode(model, cache, tokens) -> torch.Tensor:
    """One token for each active slot. -> logits [active, V]"""
    hidden = model(torch.tensor(tokens)[:, None], cache.lengths[: cache.active, None], cache)[:, 0]
    cache.advance()
    return model.logits(hidden)


@torch.no_grad()
def uncached(model, rows) -> torch.Tensor:
    """Logits after the last token of each row, every row alone. -> [rows, V]"""
    return torch.stack([model.logits(model(torch.tensor([row])))[0, -1] for row in rows])


def close(a, b, atol=3e-5):
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-5)


def drawn(model, prompts=PROMPTS, keys=KEYS, **changes) -> dict:
    """(key, sample) -> completion."""
    settings = dict(samples=3, temperature=1.0, max_new_tokens=9, end_ids=[END, OTHER_END], seed=3, step=4) | changes
    return {(keys[c.prompt], c.sample): c for c in sample(model, prompts, keys, **settings)}


def same_completions(a, b):
    assert a.keys() == b.keys()
    for at in a:
        assert (a[at].ids, a[at].finished) == (b[at].ids, b[at].finished), at
        np.testing.assert_allclose(a[at].logprobs, b[at].logprobs, atol=2e-5)


# The cache


def test_T25_cached_equals_uncached_logits(tiny, kind):
    """Ragged prompts, then ten fed tokens: the cache's logits are those of the whole row, computed anew."""
    model, rng = tiny(kind), random.Random(0)
    cache, rows = cache_for(model, 5, 20), [list(p) for p in PROMPTS]
    close(prefill(model, cache, PROMPTS, [1] * 5), uncached(model, rows))
    for _ in range(10):
        tokens = [rng.randrange(41) for _ in rows]
        rows = [row + [t] for row, t in zip(rows, tokens)]
        close(decode(model, cache, tokens), uncached(model, rows))
    assert cache.lengths.tolist() == [len(row) for row in rows]


def test_shared_prefill_equals_separate_prefills(tiny, kind):
    """One prompt prefilled once for four slots decodes as the same prompt prefilled four times."""
    model, tokens = tiny(kind), [3, 14, 15, 9]
    shared, separate = cache_for(model, 4, 12), cache_for(model, 4, 12)
    prefill(model, shared, PROMPTS[:1], [4])
    prefill(model, separate, PROMPTS[:1] * 4, [1] * 4)
    assert shared.lengths.tolist() == separate.lengths.tolist() == [8] * 4
    for _ in range(3):
        close(decode(model, shared, tokens), decode(model, separate, tokens), 1e-6)
        tokens = tokens[1:] + tokens[:1]


@pytest.mark.parametrize("seed", range(6))
def test_slots_come_and_go(tiny, seed):
    """Any history of admissions, decode steps and releases: every active slot still is its own whole row.

    Stale contents of freed slots, slots that moved, and rows that join late reach nobody.
    """
    model, rng = tiny(("qwen2", "qwen3", "llama")[seed % 3]), random.Random(seed)
    cache, rows = cache_for(model, 6, 22), []
    for _ in range(25):
        free = 6 - len(rows)
        copies = [rng.randint(1, 2) for _ in range(rng.randint(0, free // 2))]
        if copies:
            prompts = [[rng.randrange(41) for _ in range(rng.randint(1, 8))] for _ in copies]
            prefill(model, cache, prompts, copies)
            rows += [list(p) for p, n in zip(prompts, copies) for _ in range(n)]
        assert cache.active == len(rows)
        if not rows:
            continue
        tokens = [rng.randrange(41) for _ in rows]
        rows = [row + [t] for row, t in zip(rows, tokens)]
        close(decode(model, cache, tokens), uncached(model, rows))
        gone = [i for i, row in enumerate(rows) if len(row) == 22 or rng.random() < 0.25]
        kept = cache.release(gone)
        assert sorted(kept) == [i for i in range(len(rows)) if i not in gone]
        rows = [rows[i] for i in kept]
        assert cache.lengths[: cache.active].tolist() == [len(row) for row in rows]


def test_release_of_everything_and_of_nothing(tiny):
    model = tiny()
    cache = cache_for(model, 3, 10)
    prefill(model, cache, [[3, 4]], [3])
    assert cache.release([]) == [0, 1, 2] and cache.active == 3
    assert cache.release([2, 0, 1]) == [] and cache.active == 0


# Keyed random numbers


def mix(seed, step, key, sample, position) -> float:
    """A scalar second writing of the documented hash: SplitMix64's finaliser over blake2b + count · gamma."""
    start = int.from_bytes(hashlib.blake2b(f"{seed}\x1f{step}\x1f{key}".encode(), digest_size=8).digest(), "little")
    z = (start + ((sample << 32) + position + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return ((z ^ (z >> 31)) >> 11) / 2**53


def test_T23_uniforms_are_a_function_of_their_key():
    """Each number is the scalar hash of (seed, step, key, sample, position), however many are asked for."""
    table = uniforms(7, 12, "lupus-3", 5, 40)
    assert table.shape == (5, 40) and table.dtype == np.float64
    for s, p in itertools.product(range(5), range(40)):
        assert table[s, p] == mix(7, 12, "lupus-3", s, p)
    assert np.array_equal(uniforms(7, 12, "lupus-3", 2, 11), table[:2, :11])


def test_T23_uniforms_golden_values():
    """The stream is part of the replay contract: these numbers must not change between versions."""
    wanted = [[0.5356791700333954, 0.013836859849991057], [0.6603211235690876, 0.3114942561506071]]
    assert uniforms(0, 0, "a", 2, 2).tolist() == wanted


def test_T23_uniforms_of_other_keys_are_unrelated():
    """Changing any part of the key gives an uncorrelated table; neighbours within a table are too."""
    base = uniforms(0, 1, "x", 8, 500)
    others = [uniforms(1, 1, "x", 8, 500), uniforms(0, 2, "x", 8, 500), uniforms(0, 1, "y", 8, 500),
              uniforms(1, 0, "x", 8, 500), uniforms(0, 11, "", 8, 500), uniforms(0, 1, "é", 8, 500)]
    assert len(np.unique([base, *others])) == 7 * base.size
    pairs = [(base, other) for other in others] + [(base[:-1], base[1:]), (base[:, :-1], base[:, 1:])]
    for a, b in pairs:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / math.sqrt(a.size)


def test_uniforms_are_uniform():
    """64,000 numbers in 64 bins: chi-square within its 1e-6 tails; all in [0, 1)."""
    values = uniforms(5, 6, "flat", 64, 1000).ravel()
    assert values.min() >= 0 and values.max() < 1
    counts = np.histogram(values, 64, (0, 1))[0]
    assert 20 < ((counts - 1000) ** 2 / 1000).sum() < 126  # 63 degrees of freedom


# One token


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.5])
def test_T15_draw_is_the_exact_inverse_of_the_distribution(temperature):
    """Evenly spread numbers give each token N · p times, to within one: the whole vocabulary, nothing cut off."""
    logits = torch.tensor([2.0, -1.0, 0.5, -4.0, 3.0, 0.5, -2.0])
    n = 4000
    u = [(i + 0.5) / n for i in range(n)]
    ids, logprobs = draw(logits.expand(n, 7), u, temperature)
    wanted = (logits.double() / temperature).softmax(-1)
    assert (torch.bincount(ids, minlength=7) - wanted * n).abs().max() <= 1.001
    torch.testing.assert_close(logprobs.double(), wanted.log()[ids], atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_draw_frequencies_pass_chi_square(temperature):
    """Keyed numbers give frequencies of the exact distribution (6 degrees of freedom, tail 1e-4)."""
    logits, n = torch.tensor([2.0, -1.0, 0.5, -2.0, 3.0, 0.5, -2.0]), 20000
    ids, _ = draw(logits.expand(n, 7), list(uniforms(0, 0, "chi", 1, n)[0]), temperature)
    wanted = (logits.double() / temperature).softmax(-1) * n
    chi = ((torch.bincount(ids, minlength=7) - wanted) ** 2 / wanted).sum()
    assert chi < 27.86


def test_draw_at_the_edges():
    """u = 0 takes the first token that has mass, u just below 1 the last; -inf logits are never drawn."""
    gone = float("-inf")
    logits = torch.tensor([[gone, 1.0, gone, 1.0, gone]])
    assert draw(logits, [0.0], 1.0)[0].item() == 1
    assert draw(logits, [0.4999999], 1.0)[0].item() == 1
    assert draw(logits, [0.5], 1.0)[0].item() == 3
    assert draw(logits, [1 - 2**-53], 1.0)[0].item() == 3


def test_greedy_takes_the_arg_max_with_its_untempered_log_probability():
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    ids, logprobs = draw(logits, None, 0.0)
    assert torch.equal(ids, logits.argmax(-1))
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).amax(-1), atol=1e-6, rtol=0)


# Completions


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_T14_T16_temperature_recorded_log_probabilities_are_the_trainer_s(tiny, kind, temperature):
    """What the sampler recorded for each token is what completion_logprobs computes at the same temperature."""
    model = tiny(kind)
    done = [(PROMPTS[KEYS.index(k)], c) for (k, _), c in drawn(model, temperature=temperature, slots=6).items()]
    batch = collate([Example(p, c.ids) for p, c in done], list(range(len(done))))
    with torch.no_grad():
        values, _ = completion_logprobs(model, batch, temperature)
        wrong, _ = completion_logprobs(model, batch, 1.7 - temperature)
    recorded = torch.tensor([p for _, c in done for p in c.logprobs])
    torch.testing.assert_close(values, recorded, atol=1e-5, rtol=0)
    assert (wrong - recorded).abs().mean() > 0.05  # the test would see a temperature left out
    assert all(p <= 0 for p in recorded)


@pytest.mark.parametrize("slots", [3, 4, 7, 9, 100])
def test_T23_tokens_do_not_depend_on_the_batch(tiny, kind, slots):
    """Any number of slots, any order of the prompts, each prompt alone, any subset: the same completions."""
    model = tiny(kind)
    reference = drawn(model)
    assert len({tuple(c.ids) for c in reference.values()}) > 10
    same_completions(drawn(model, slots=slots), reference)
    order = random.Random(slots).sample(range(5), 5)
    shuffled = drawn(model, [PROMPTS[i] for i in order], [KEYS[i] for i in order], slots=slots)
    same_completions({at: shuffled[at] for at in reference}, reference)
    i = order[0]
    alone = drawn(model, [PROMPTS[i]], [KEYS[i]], slots=slots)
    same_completions(alone, {at: c for at, c in reference.items() if at[0] == KEYS[i]})


def test_T23_fewer_samples_and_shorter_limits_are_prefixes(tiny):
    """The group's first two samples are the same in a group of two; a lower limit cuts, and changes nothing else."""
    model = tiny()
    reference = drawn(model)
    same_completions(drawn(model, samples=2), {at: c for at, c in reference.items() if at[1] < 2})
    for at, c in drawn(model, max_new_tokens=4).items():
        assert c.ids == reference[at].ids[:4]
        assert c.finished == (reference[at].finished and len(reference[at].ids) <= 4)


@pytest.mark.parametrize("change", [{"seed": 8}, {"step": 5}, {"keys": [f"other-{i}" for i in range(5)]}])
def test_T23_every_part_of_the_key_counts(tiny, change):
    """Another seed, step or prompt id: other tokens. Samples of a group, and groups of like prompts, differ too."""
    model = tiny()
    first, second = drawn(model), drawn(model, **change)
    differ = sum(a.ids != b.ids for a, b in zip(first.values(), second.values()))
    assert differ >= len(first) - 2
    twins = drawn(model, [PROMPTS[0]] * 2, ["one", "two"])
    assert len({tuple(c.ids) for c in twins.values()}) >= 5


def test_T23_the_global_generator_is_not_touched(tiny):
    model = tiny()
    torch.manual_seed(0)
    state, first = torch.get_rng_state(), drawn(model)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    same_completions(drawn(model), first)


def step_chain(chain, *edges, size=7):
    """A chain that goes where the edges say, with certainty."""
    table = torch.full((size, size), 0.0)
    for a, b in edges:
        table[a, b] = 60.0
    return chain(table)


def test_T17_T22_truncated_and_finished_at_the_limit(chain):
    """3 → 4 → 5 → end. A limit of three finishes exactly there; a limit of two truncates; the end token is kept."""
    model = step_chain(chain, (3, 4), (4, 5), (5, END), (END, 6))
    for limit, ids, finished in ((2, [4, 5], False), (3, [4, 5, END], True), (8, [4, 5, END], True)):
        for temperature in (0.0, 1.0):
            c, = sample(model, [[3]], ["k"], max_new_tokens=limit, end_ids=[END], temperature=temperature)
            assert (c.ids, c.finished, len(c.logprobs)) == (ids, finished, len(ids))
            np.testing.assert_allclose(c.logprobs, 0.0, atol=1e-6)


def test_T17_every_end_token_ends_and_one_in_the_prompt_does_not(chain):
    """Several end ids; an end token in the prompt is context; an end token as the first token is a completion."""
    model = step_chain(chain, (3, OTHER_END), (4, END), (END, 5), (5, 6), (6, 6), (0, 0))
    prompts = [[3], [4], [4, END], [0]]
    found = sample(model, prompts, list("abcd"), max_new_tokens=3, end_ids=[END, OTHER_END], temperature=1.0, slots=2)
    assert [(c.ids, c.finished) for c in found] == [([OTHER_END], True), ([END], True), ([5, 6, 6], False),
                                                    ([0, 0, 0], False)]


def test_T17_the_end_token_is_drawn_with_its_probability(chain):
    """Whole completions occur as often as exact enumeration says: 4,000 of them, chi-square, tail 1e-4.

    Two tokens or an end token, at most three of them, temperature 0.8; the recorded sum is the exact log-probability.
    """
    table = torch.tensor([[0.3, -0.2, 0.9], [0.0, 0.0, 0.0], [-0.5, 0.4, 0.1]])
    rows = (table.double() / 0.8).log_softmax(-1)
    exact = {}
    for length in (1, 2, 3):
        for ids in itertools.product(range(3), repeat=length):
            ended = [i for i, t in enumerate(ids) if t == END]
            if ended == [length - 1] or (length == 3 and not ended):
                exact[ids] = sum(rows[a, b].item() for a, b in zip((0, *ids), ids))
    assert abs(sum(map(math.exp, exact.values())) - 1) < 1e-12
    n, counts = 4000, dict.fromkeys(exact, 0)
    for c in sample(chain(table), [[0]], ["exact"], samples=n, temperature=0.8, max_new_tokens=3, end_ids=[END]):
        counts[tuple(c.ids)] += 1
        assert abs(sum(c.logprobs) - exact[tuple(c.ids)]) < 1e-5
        assert c.finished == (c.ids[-1] == END)
    chi = sum((counts[ids] - n * math.exp(p)) ** 2 / (n * math.exp(p)) for ids, p in exact.items())
    assert len(exact) == 15 and chi < 42.6  # 14 degrees of freedom: 42.6 leaves 1e-4


def test_groups_come_back_in_order_and_are_counted(tiny):
    """Completions stand by prompt and sample; ``done`` counts each once; the end token counts as a token."""
    ended = []
    found = sample(tiny(), PROMPTS, KEYS, samples=3, max_new_tokens=6, end_ids=list(range(1, 12)), slots=4,
                   done=ended.append)
    assert [(c.prompt, c.sample) for c in found] == [(i, s) for i in range(5) for s in range(3)]
    assert sum(ended) == 15 and all(n > 0 for n in ended)
    for c in found:
        assert 1 <= len(c.ids) == len(c.logprobs) <= 6
        assert c.finished == (1 <= c.ids[-1] < 12) and not any(1 <= t < 12 for t in c.ids[:-1])
        assert c.finished or len(c.ids) == 6
    assert {c.finished for c in found} == {True, False}
    assert sample(tiny(), [], [], max_new_tokens=4, end_ids=[END]) == []


def test_greedy_equals_a_plain_loop(tiny, kind):
    """Temperature 0: the arg-max of the whole row, token after token; all samples of a group are alike."""
    model = tiny(kind)
    for (key, _), c in drawn(model, temperature=0.0, samples=2, slots=4).items():
        row = list(PROMPTS[KEYS.index(key)])
        for token in c.ids:
            assert token == uncached(model, [row])[0].argmax().item()
            row.append(token)


def test_T25_nothing_survives_a_change_of_the_weights(tiny):
    """After an update the sampler's log-probabilities are the new weights': no key or value is kept."""
    model = tiny()
    before = drawn(model)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.05)
    after = drawn(model)
    same_completions(after, drawn(copy.deepcopy(model)))
    assert any(a.logprobs != b.logprobs for a, b in zip(after.values(), before.values()))


def test_T24_sampling_builds_no_graph_and_ignores_training_mode(tiny):
    model = tiny()
    reference = drawn(model.eval())
    same_completions(drawn(model.train()), reference)
    assert model.training and all(p.grad is None for p in model.parameters())


def test_a_completion_ends_where_the_models_positions_do(tiny):
    """A limit far beyond the model costs no memory and no positions that the model was never made for."""
    model, prompts = tiny(max_position_embeddings=12), [[1, 2, 3], [4] * 9]
    found = sample(model, prompts, ["a", "b"], samples=2, temperature=1.0, max_new_tokens=10**9, end_ids=[], seed=1)
    assert [len(c.ids) for c in found] == [9, 9, 3, 3] and not any(c.finished for c in found)
    short = sample(model, prompts, ["a", "b"], samples=2, temperature=1.0, max_new_tokens=9, end_ids=[], seed=1)
    assert [c.ids for c in found] == [c.ids for c in short]
    with pytest.raises(BadInput, match="12 tokens leaves no room in the model's 12"):
        sample(model, [[1] * 12], ["a"], temperature=0.0, max_new_tokens=1, end_ids=[])
