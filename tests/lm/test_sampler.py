"""The sampler against exact distributions, the trainer's scores, and itself in every other
batch."""

from __future__ import annotations

import copy
import itertools
import math
import random

import numpy as np
import pytest
import torch

from minifleming.lm.pack import Example
from minifleming.lm.sampler import PREFILL_PER_ROW, SamplingParams, generate, generate_stream
from minifleming.run.errors import BadInput
from tests.padded import collate, completion_logprobs

END, OTHER_END = 1, 2
PROMPTS = [[5, 9, 33, 2, 17, 8, 1, 30], [7], [4, 4, 11], [40, 39, 38, 37, 36, 3], [12, 6]]
KEYS = [f"item-{i}" for i in range(len(PROMPTS))]


@torch.no_grad()
def uncached(model, rows) -> torch.Tensor:
    """Logits after the last token of each row, every row alone. -> [rows, V]"""
    return torch.stack([model.logits(model(torch.tensor([row])))[0, -1] for row in rows])


def sample(model, prompts, keys, on_done=lambda count: None, **params):
    return generate(model, prompts, keys, SamplingParams(**params), on_done)


def drawn(model, prompts=PROMPTS, keys=KEYS, **changes) -> dict:
    """(key, sample) -> completion."""
    settings = dict(samples=3, temperature=1.0, max_new_tokens=9, end_ids=[END, OTHER_END], seed=3, step=4) | changes
    return {(keys[c.prompt], c.sample): c for c in generate(model, prompts, keys, SamplingParams(**settings))}


def same_completions(a, b):
    assert a.keys() == b.keys()
    for at in a:
        assert (a[at].ids, a[at].finished) == (b[at].ids, b[at].finished), at
        np.testing.assert_allclose(a[at].logprobs, b[at].logprobs, atol=2e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_T14_T16_temperature_recorded_log_probabilities_are_the_trainer_s(tiny, kind, temperature):
    """What the sampler recorded for each token is what completion_logprobs computes at the same
    temperature."""
    model = tiny(kind)
    done = [(PROMPTS[KEYS.index(k)], c) for (k, _), c in drawn(model, temperature=temperature, max_num_seqs=6).items()]
    batch = collate([Example(p, c.ids) for p, c in done])
    with torch.no_grad():
        values, _ = completion_logprobs(model, batch, temperature)
        wrong, _ = completion_logprobs(model, batch, 1.7 - temperature)
    recorded = torch.tensor([p for _, c in done for p in c.logprobs])
    torch.testing.assert_close(values, recorded, atol=1e-5, rtol=0)
    assert (wrong - recorded).abs().mean() > 0.05  # the test would see a temperature left out
    assert all(p <= 0 for p in recorded)


@pytest.mark.parametrize("slots", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 7, 9, 100))])
def test_T23_tokens_do_not_depend_on_the_batch(tiny, kind, slots):
    """Any number of slots, any order of the prompts, each prompt alone, any subset: the same
    completions."""
    model = tiny(kind)
    reference = drawn(model)
    assert len({tuple(c.ids) for c in reference.values()}) > 10
    same_completions(drawn(model, max_num_seqs=slots), reference)
    order = random.Random(slots).sample(range(5), 5)
    shuffled = drawn(model, [PROMPTS[i] for i in order], [KEYS[i] for i in order], max_num_seqs=slots)
    same_completions({at: shuffled[at] for at in reference}, reference)
    i = order[0]
    alone = drawn(model, [PROMPTS[i]], [KEYS[i]], max_num_seqs=slots)
    same_completions(alone, {at: c for at, c in reference.items() if at[0] == KEYS[i]})


def test_T23_fewer_samples_and_shorter_limits_are_prefixes(tiny):
    """The group's first two samples are the same in a group of two; a lower limit cuts, and changes
    nothing else."""
    model = tiny()
    reference = drawn(model)
    same_completions(drawn(model, samples=2), {at: c for at, c in reference.items() if at[1] < 2})
    for at, c in drawn(model, max_new_tokens=4).items():
        assert c.ids == reference[at].ids[:4]
        assert c.finished == (reference[at].finished and len(reference[at].ids) <= 4)


@pytest.mark.parametrize("change", [{"seed": 8}, {"step": 5}, {"keys": [f"other-{i}" for i in range(5)]}])
def test_T23_every_part_of_the_key_counts(tiny, change):
    """Another seed, step or prompt id: other tokens. Samples of a group, and groups of like
    prompts, differ too."""
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
    """3 → 4 → 5 → end. A limit of three finishes exactly there; a limit of two truncates; the end
    token is kept."""
    model = step_chain(chain, (3, 4), (4, 5), (5, END), (END, 6))
    for limit, ids, finished in ((2, [4, 5], False), (3, [4, 5, END], True), (8, [4, 5, END], True)):
        for temperature in (0.0, 1.0):
            c, = sample(model, [[3]], ["k"], max_new_tokens=limit, end_ids=[END], temperature=temperature)
            assert (c.ids, c.finished, len(c.logprobs)) == (ids, finished, len(ids))
            np.testing.assert_allclose(c.logprobs, 0.0, atol=1e-6)


def test_T17_every_end_token_ends_and_one_in_the_prompt_does_not(chain):
    """Several end ids; an end token in the prompt is context; an end token as the first token is a
    completion."""
    model = step_chain(chain, (3, OTHER_END), (4, END), (END, 5), (5, 6), (6, 6), (0, 0))
    prompts = [[3], [4], [4, END], [0]]
    found = sample(model, prompts, list("abcd"), max_new_tokens=3, end_ids=[END, OTHER_END], temperature=1.0, max_num_seqs=2)
    assert [(c.ids, c.finished) for c in found] == [([OTHER_END], True), ([END], True), ([5, 6, 6], False),
                                                    ([0, 0, 0], False)]


def test_T17_the_end_token_is_drawn_with_its_probability(chain):
    """Whole completions occur as often as exact enumeration says: 4,000 of them, chi-square, tail
    1e-4.

    Two tokens or an end token, at most three of them, temperature 0.8; the recorded sum is the
    exact log-probability.
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
    """Completions stand by prompt and sample; ``done`` counts each once; the end token counts as a
    token."""
    ended = []
    found = sample(tiny(), PROMPTS, KEYS, samples=3, max_new_tokens=6, end_ids=list(range(1, 12)), max_num_seqs=4,
                   on_done=ended.append)
    assert [(c.prompt, c.sample) for c in found] == [(i, s) for i in range(5) for s in range(3)]
    assert sum(ended) == 15 and all(n >= 0 for n in ended)
    for c in found:
        assert 1 <= len(c.ids) == len(c.logprobs) <= 6
        assert c.finished == (1 <= c.ids[-1] < 12) and not any(1 <= t < 12 for t in c.ids[:-1])
        assert c.finished or len(c.ids) == 6
    assert {c.finished for c in found} == {True, False}
    assert sample(tiny(), [], [], max_new_tokens=4, end_ids=[END]) == []


def test_greedy_equals_a_plain_loop(tiny, kind):
    """Temperature 0: the arg-max of the whole row, token after token; all samples of a group are
    alike."""
    model = tiny(kind)
    for (key, _), c in drawn(model, temperature=0.0, samples=2, max_num_seqs=4).items():
        row = list(PROMPTS[KEYS.index(key)])
        for token in c.ids:
            assert token == uncached(model, [row])[0].argmax().item()
            row.append(token)


def test_T25_nothing_survives_a_change_of_the_weights(tiny):
    """After an update the sampler's log-probabilities are the new weights': no key or value is
    kept."""
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
    """A limit far beyond the model costs no memory for positions that the model was never made
    for."""
    model, prompts = tiny(max_position_embeddings=12), [[1, 2, 3], [4] * 9]
    found = sample(model, prompts, ["a", "b"], samples=2, temperature=1.0, max_new_tokens=10**9, end_ids=[], seed=1)
    assert [len(c.ids) for c in found] == [9, 9, 3, 3] and not any(c.finished for c in found)
    short = sample(model, prompts, ["a", "b"], samples=2, temperature=1.0, max_new_tokens=9, end_ids=[], seed=1)
    assert [c.ids for c in found] == [c.ids for c in short]
    with pytest.raises(BadInput, match="12 tokens leaves no room in the model's 12"):
        sample(model, [[1] * 12], ["a"], temperature=0.0, max_new_tokens=1, end_ids=[])


def test_steps_yield_every_token_as_it_comes(tiny):
    """After each step the completions that got a token; ended ones once; together what ``sample``
    returns."""
    model, settings = tiny(), dict(samples=2, max_new_tokens=7, end_ids=[END, *range(20, 30)], max_num_seqs=4, seed=5)
    seen, ended = {}, []
    for rows in generate_stream(model, PROMPTS, KEYS, SamplingParams(**settings)):
        for row in rows:
            at = (row.prompt, row.sample)
            assert at not in ended and len(row.ids) == seen.get(at, 0) + 1
            seen[at] = len(row.ids)
            assert row.ended == (row.ids[-1] in settings["end_ids"] or len(row.ids) == 7)
            assert row.truncated == (row.ended and not row.finished)
            ended += [at] if row.ended else []
    assert sorted(ended) == [(i, s) for i in range(5) for s in range(2)]
    assert {(c.prompt, c.sample): len(c.ids) for c in generate(model, PROMPTS, KEYS, SamplingParams(**settings))} == seen


def test_a_poisoned_padding_token_changes_nothing(tiny, kind):
    """Prompts are padded with id 0, which ends a completion here, so nobody is fed it: its
    embedding reaches nobody."""
    model, prompts = tiny(kind), [[p or 1 for p in prompt] for prompt in PROMPTS]
    reference = drawn(model, prompts, end_ids=[0])
    with torch.no_grad():
        model.model.embed_tokens.weight[0] = 1e4
    same_completions(drawn(model, prompts, end_ids=[0]), reference)


def test_an_end_token_that_is_the_last_one_allowed_finishes_and_cuts_nothing_off(tiny):
    for ends, finished in ((list(range(41)), True), ([], False)):
        found = sample(tiny(), PROMPTS, KEYS, max_new_tokens=1, end_ids=ends)
        assert all((len(c.ids), c.finished, c.truncated) == (1, finished, not finished) for c in found)


def test_a_pass_of_prompts_is_bounded_and_goes_on_with_their_last_tokens(tiny):
    """At most PREFILL_PER_ROW padded tokens for each row decoded; behind the last attention one
    state a prompt."""
    model, seen, passes = tiny(), [], []
    model.model.layers[-1].mlp.register_forward_hook(lambda module, given, out: seen.append(out[..., 0].numel()))
    model.model.embed_tokens.register_forward_hook(lambda module, given, out: passes.append(given[0].shape))
    prompts = [[5] * n for n in (20, 19, 9, 8, 7, 3, 3, 2)]
    sample(model, prompts, list("abcdefgh"), samples=2, max_new_tokens=1, end_ids=[], temperature=1.0, max_num_seqs=16)
    assert [tuple(shape) for shape in passes] == [(1, 20), (1, 19), (3, 9), (3, 3)] and seen == [1, 1, 3, 3]
    assert all(rows * width <= PREFILL_PER_ROW * 16 for rows, width in passes)
