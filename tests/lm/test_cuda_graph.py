"""The GPU's sampler without a GPU: the same steps, one operation after the other; and once with
every kernel in Triton's interpreter. Greedy tokens are the CPU sampler's; drawn ones follow the
same distribution."""

from __future__ import annotations

import random

import pytest
import torch

from minifleming.lm import sampler
from minifleming.lm.engines import cuda_graph
from minifleming.lm.sampler import SamplingParams, generate, generate_stream
from minifleming.run.errors import RunFailed
from tests.kernels.check import mend_interpreter
from tests.lm.conftest import group_logprobs

RNG = random.Random(3)
PROMPTS = [[RNG.randrange(3, 41) for _ in range(n)] for n in (9, 3, 17, 5, 12, 1)]
KEYS = [f"item {i}" for i in range(len(PROMPTS))]

ONE_KIND = pytest.mark.parametrize(
    "kind", ["qwen3", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("qwen2", "llama"))])


@pytest.fixture
def on(monkeypatch):
    """Sample as on a GPU."""
    monkeypatch.setattr(cuda_graph, "is_supported", lambda model: True)


def drawn(model, prompts=PROMPTS, keys=KEYS, **changes) -> dict:
    settings = dict(samples=3, max_new_tokens=20, end_ids=[0, 1], seed=1) | changes
    return {(keys[c.prompt], c.sample): (c.ids, c.logprobs, c.finished) for c in
            generate(model, prompts, keys, SamplingParams(**settings))}


@ONE_KIND
def test_greedy_tokens_are_those_of_the_other_sampler(tiny, kind, monkeypatch):
    model = tiny(kind, max_position_embeddings=64)
    wanted = drawn(model, temperature=0.0)
    monkeypatch.setattr(cuda_graph, "is_supported", lambda model: True)
    for changes in ({}, {"max_num_seqs": 3}, {"max_num_seqs": 7, "sync_every": 1}, {"sync_every": 5}):
        found = drawn(model, temperature=0.0, **changes)
        assert {at: c[0] for at, c in found.items()} == {at: c[0] for at, c in wanted.items()}
        assert {at: c[2] for at, c in found.items()} == {at: c[2] for at, c in wanted.items()}
        for at, c in found.items():
            assert c[1] == pytest.approx(wanted[at][1], abs=2e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_recorded_log_probabilities_are_the_trainers(tiny, kind, on, temperature):
    model = tiny(kind)
    found = drawn(model, temperature=temperature, max_num_seqs=9, sync_every=4)
    assert sum(finished for _, _, finished in found.values()) > 3
    with torch.no_grad():
        scored, _ = group_logprobs(model, PROMPTS, [KEYS.index(k) for k, _ in found], [c[0] for c in found.values()],
                                   temperature)
    recorded = [p for _, logprobs, _ in found.values() for p in logprobs]
    assert recorded == pytest.approx(scored.tolist(), abs=5e-5)


def test_a_completion_does_not_depend_on_its_batch(tiny, on):
    """Any number of rows, any sync interval, a prompt by itself: the same tokens, since the noise is keyed."""
    model = tiny("qwen3")
    wanted = {at: c[0] for at, c in drawn(model).items()}
    assert len({tuple(ids) for ids in wanted.values()}) > 12
    for changes in ({"max_num_seqs": 8, "sync_every": 1}, {"max_num_seqs": 3, "sync_every": 7}):
        assert {at: c[0] for at, c in drawn(model, **changes).items()} == wanted
    alone = drawn(model, [PROMPTS[2]], [KEYS[2]])
    assert {at: c[0] for at, c in alone.items()} == {at: ids for at, ids in wanted.items() if at[0] == KEYS[2]}
    assert {at: c[0] for at, c in drawn(model, step=1).items()} != wanted


@pytest.mark.slow
def test_the_chains_distribution(chain, on):
    """Where each token depends on the last one alone, first and second tokens follow the table
    (chi-square)."""
    table = torch.randn(7, 7, generator=torch.Generator().manual_seed(0))
    model, n = chain(table), 4000
    params = SamplingParams(2, [], samples=n, max_num_seqs=n, sync_every=1)
    rows = generate(model, [[2]], ["k"], params)
    p = table.log_softmax(-1).exp().double()
    pairs = torch.zeros(7, 7, dtype=torch.float64)
    for row in rows:
        pairs[row.ids[0], row.ids[1]] += 1
    wanted = n * p[2][:, None] * p
    assert ((pairs - wanted).square() / wanted).sum() < 85  # 48 degrees of freedom: one in a thousand


def test_limits_and_looks(tiny, on):
    """Nothing is longer than its budget, whatever the looks; every yield has the rows that got
    tokens."""
    model = tiny("qwen2", max_position_embeddings=24)
    counts: dict = {}
    params = SamplingParams(30, [0], samples=2, max_num_seqs=4, sync_every=7)
    for rows in generate_stream(model, PROMPTS, KEYS, params):
        assert rows and len(rows) <= 4
        for row in rows:
            before = counts.get((row.prompt, row.sample), 0)
            assert len(row.ids) == len(row.logprobs) > before and not counts.get((row.prompt, row.sample, "ended"))
            counts[row.prompt, row.sample] = len(row.ids)
            assert len(row.ids) <= min(30, 24 - len(PROMPTS[row.prompt]))
            assert row.truncated == (row.ids[-1] != 0 and len(row.ids) == min(30, 24 - len(PROMPTS[row.prompt])))
            if row.ended:
                counts[row.prompt, row.sample, "ended"] = True
            assert 0 not in row.ids[:-1]
    assert sum("ended" in key for key in counts) == 2 * len(PROMPTS)


def test_what_a_graph_would_replay(tiny, on, monkeypatch):
    """A first step as it is, then replays, over several batch sizes."""
    model = tiny("qwen2")
    wanted = {at: c[0] for at, c in drawn(model, sync_every=5).items()}
    made = []

    class Graph:
        def __init__(self, engine, n):
            self.engine, self.n = engine, n
            made.append(n)

        def replay(self):
            self.engine.step(self.n)

    class Capturing(cuda_graph.CudaGraphDecoder):
        def __init__(self, *args):
            super().__init__(*args)
            self.captures = True

        def capture(self, n):
            return Graph(self, n)

    monkeypatch.setattr(sampler, "CudaGraphDecoder", Capturing)
    assert {at: c[0] for at, c in drawn(model, sync_every=5).items()} == wanted
    assert len(made) == len(set(made)) > 1, "each batch size is captured once"
    made.clear()
    assert {at: c[0] for at, c in drawn(model, sync_every=1, max_num_seqs=6).items()} == wanted and made


def test_a_row_that_has_gone_is_idle(tiny, on, monkeypatch):
    """Idle rows of a bucket count 0: any other number grows with the steps, and a kernel would read
    past the cache."""
    released = []

    class Watched(cuda_graph.CudaGraphDecoder):
        def release(self, finished):
            kept = super().release(finished)
            released.append(len(finished))
            n = len(self.slots)
            assert (self.counts[:n] > 0).all() and (self.counts[n:] == 0).all()
            assert self.counts[:n].tolist() == self.lengths
            return kept

    monkeypatch.setattr(sampler, "CudaGraphDecoder", Watched)
    drawn(tiny(), max_num_seqs=6, sync_every=3)
    assert sum(released) == 3 * len(PROMPTS)


def test_broken_weights_end_the_sampling(tiny, on):
    model = tiny()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(RunFailed, match="not finite"):
        drawn(model)


def test_where_it_serves(tiny, monkeypatch):
    """On a GPU whose shared memory fits the kernels, not in batch-invariant mode."""
    monkeypatch.setattr(cuda_graph, "on_gpu", lambda *tensors: True)
    monkeypatch.setattr(cuda_graph, "fits_shared_memory", lambda x: x.shape[-1] == 8)
    model = tiny(head_dim=8)
    assert cuda_graph.is_supported(model)
    assert not cuda_graph.is_supported(tiny(head_dim=4))
    other = tiny(head_dim=8)
    other.batch_invariant = True
    assert not cuda_graph.is_supported(other)
    monkeypatch.setattr(cuda_graph, "on_gpu", lambda *tensors: False)
    assert not cuda_graph.is_supported(model)


@pytest.mark.slow
def test_every_step_through_the_kernels(tiny, kind, monkeypatch, on):
    """The decode step with all its Triton kernels, in the interpreter: the plain one's tokens and
    log-probabilities."""
    from minifleming.kernels import decode_attention, gumbel, norm, rotary, swiglu

    mend_interpreter(monkeypatch)
    model = tiny(kind, head_dim=16)
    wanted = drawn(model, PROMPTS[:3], KEYS[:3], max_new_tokens=5, sync_every=2)
    for module in (decode_attention, norm, rotary, gumbel, swiglu):
        monkeypatch.setattr(module, "on_gpu", lambda *tensors: True)
    found = drawn(model, PROMPTS[:3], KEYS[:3], max_new_tokens=5, sync_every=2)
    for at, (ids, logprobs, _) in wanted.items():
        assert found[at][0] == ids and found[at][1] == pytest.approx(logprobs, abs=1e-4)
