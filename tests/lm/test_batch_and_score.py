"""Batches and the log-probabilities of completions: what is learned, where it stands, and that nothing else matters."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from minifleming.lm.batch import Example, collate, drop_too_long, micro_batches
from minifleming.lm.logprobs import completion_logprobs
from tests.lm.conftest import row_sums

END = 1


def examples(seed: int, count: int, vocab: int = 41) -> list[Example]:
    """Prompts of 1..9 tokens, completions of 1..12 whose last token is the end token."""
    rng = random.Random(seed)
    return [Example([rng.randrange(vocab) for _ in range(rng.randint(1, 9))],
                    [rng.randrange(vocab) for _ in range(rng.randint(0, 11))] + [END]) for _ in range(count)]


def score(model, example: Example, temperature: float = 1.0) -> list[float]:
    """Second way: one prefix at a time, one position at a time, fp64 softmax."""
    ids, out = example.prompt + example.completion, []
    with torch.no_grad():
        for t in range(len(example.prompt), len(ids)):
            logits = model.logits(model(torch.tensor([ids[:t]])))[0, -1].double() / temperature
            out.append(logits.log_softmax(-1)[ids[t]].item())
    return out


@pytest.mark.parametrize("seed, tokens", [(0, 1), (1, 21), (2, 64), (3, 100), (4, 10**6)])
def test_micro_batches_cover_every_example_once(seed, tokens):
    """Every example stands in exactly one row, with its own ids; a batch of several rows keeps to the budget."""
    given = examples(seed, 37)
    batches = micro_batches(given, tokens)
    assert Counter(i for batch in batches for i in batch.rows) == Counter(range(len(given)))
    for batch in batches:
        assert batch.ids.shape == batch.targets.shape == (len(batch.rows), max(len(given[i]) for i in batch.rows))
        assert batch.ids.numel() <= tokens or len(batch.rows) == 1
        for row, i in zip(batch.ids, batch.rows):
            assert row[: len(given[i])].tolist() == given[i].prompt + given[i].completion
    if tokens == 10**6:
        assert len(batches) == 1
    assert micro_batches([], tokens) == []


def test_micro_batches_waste_little():
    """Rows of like length share a batch: an ordered split, no batch that could have taken the next row."""
    given, tokens = examples(5, 60), 64
    batches = micro_batches(given, tokens)
    lengths = [len(given[i]) for batch in batches for i in batch.rows]
    assert lengths == sorted(lengths, reverse=True)
    assert all((len(b.rows) + 1) * b.ids.shape[1] > tokens for b in batches[:-1])


def test_T17_T19_targets_are_the_completion_with_its_end_token():
    """Reading ids one place after each target gives back the completion, end token last, and nothing else."""
    given = examples(6, 30)
    given.append(Example([5], [END]))
    given.append(Example([END, END, 0], [END, 0, 0, END]))  # end and padding ids inside are tokens like others
    for batch in micro_batches(given, 50):
        for ids, targets, i in zip(batch.ids, batch.targets, batch.rows):
            columns = targets.nonzero().squeeze(1)
            assert ids[columns + 1].tolist() == given[i].completion
            assert columns.tolist() == list(range(len(given[i].prompt) - 1, len(given[i]) - 1))


def test_longer_examples_are_dropped_and_counted():
    given = examples(7, 50)
    kept, dropped = drop_too_long(given, 10)
    assert kept == [e for e in given if len(e.prompt) + len(e.completion) <= 10] and 0 < dropped == 50 - len(kept)
    assert drop_too_long(given, max(map(len, given))) == (given, 0)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.6])
def test_T14_T19_log_probabilities_by_a_second_way(tiny, kind, temperature):
    """Batched and ragged equals one prefix at a time; the temperature divides the logits."""
    model, given = tiny(kind), examples(8, 9)
    for batch in micro_batches(given, 60):
        with torch.no_grad():
            values, rows = completion_logprobs(model, batch, temperature)
        wanted = [p for i in batch.rows for p in score(model, given[i], temperature)]
        assert rows.tolist() == [r for r, i in enumerate(batch.rows) for _ in given[i].completion]
        torch.testing.assert_close(values, torch.tensor(wanted), atol=2e-5, rtol=1e-5)


def test_T19_log_probabilities_of_a_known_chain(chain):
    """Where each token depends on the last one alone, the values are the table's, to the position."""
    table = torch.randn(7, 7, generator=torch.Generator().manual_seed(0)) * 2
    model, given = chain(table), examples(9, 12, vocab=7)
    batch = collate(given, list(range(12)))
    values, rows = completion_logprobs(model, batch)
    ids = [e.prompt[-1:] + e.completion for e in given]
    wanted = torch.tensor([table.log_softmax(-1)[a, b] for row in ids for a, b in zip(row, row[1:])])
    torch.testing.assert_close(values, wanted, atol=1e-5, rtol=1e-5)
    per_row = row_sums(values, rows, 12)
    torch.testing.assert_close(per_row, torch.stack([wanted[rows == r].sum() for r in range(12)]), atol=1e-4, rtol=0)


def test_T3_T18_a_row_does_not_depend_on_its_batch(tiny, kind):
    """Each row alone, in one batch, in micro-batches and in another order: the same log-probabilities in fp32."""
    model, given = tiny(kind), examples(10, 11)

    def scored(budget, order):
        chosen, out = [given[i] for i in order], {}
        with torch.no_grad():
            for batch in micro_batches(chosen, budget):
                values, rows = completion_logprobs(model, batch, 0.7)
                out |= {order[i]: values[rows == r] for r, i in enumerate(batch.rows)}
        return out

    alone = scored(1, range(11))
    for budget, order in ((40, range(11)), (10**6, range(11)), (80, random.Random(0).sample(range(11), 11))):
        other = scored(budget, order)
        for i in range(11):
            torch.testing.assert_close(other[i], alone[i], atol=2e-5, rtol=0)


@pytest.mark.parametrize("poison", [1e3, -1e15])
def test_T18_poisoned_padding(tiny, kind, poison):
    """Padding is id 0: a poisoned embedding of id 0 reaches no row, in value or gradient.

    The poison is finite: PyTorch's fused causal attention multiplies masked values by an exact 0, and 0 · NaN is
    NaN. Nothing here writes NaN behind a row's end.
    """
    model, given = tiny(kind), [Example([3, 4], [5, END]), Example([9, 8, 7, 6, 5, 4], [2, 3, END])]
    batch = collate(given, [0, 1])
    before, _ = completion_logprobs(model, batch)
    with torch.no_grad():
        model.model.embed_tokens.weight[0] = poison
    after, _ = completion_logprobs(model, batch)
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
    after.sum().backward()
    assert model.model.embed_tokens.weight.grad[0].abs().max() == 0
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_T20_rows_are_isolated(tiny, kind):
    """Another content of row A leaves row B bit for bit, value and gradient with respect to A's prompt."""
    model = tiny(kind)
    a, b = Example([3, 4, 5, 6], [7, 8, END]), Example([9, 10], [11, END])
    other = Example([13, 14, 15, 16], [17, 18, END])
    first, rows = completion_logprobs(model, collate([a, b], [0, 1]))
    second, _ = completion_logprobs(model, collate([other, b], [0, 1]))
    assert torch.equal(first[rows == 1], second[rows == 1])
    assert (first[rows == 0] - second[rows == 0]).abs().max() > 1e-2
    first[rows == 1].sum().backward()
    assert model.model.embed_tokens.weight.grad[a.prompt].abs().max() == 0


def test_T17_the_end_token_is_learned(tiny):
    """Its log-probability has a gradient, and training on it alone raises it."""
    model = tiny()
    values, rows = completion_logprobs(model, collate([Example([3, 4], [END])], [0]))
    assert len(values) == 1
    values.sum().backward()
    assert model.lm_head.weight.grad[END].abs().max() > 1e-3
    with torch.no_grad():
        for p in model.parameters():
            p += 1e-3 * p.grad
    assert completion_logprobs(model, collate([Example([3, 4], [END])], [0]))[0].item() > values.item()


@pytest.mark.parametrize("budget", [1, 33, 70])
def test_T9_micro_batching_leaves_the_gradient(tiny, kind, budget):
    """A weighted sum over sequences has the same gradient whatever the split into micro-batches."""
    given, weights = examples(11, 10), torch.randn(10, generator=torch.Generator().manual_seed(2))

    def gradient(tokens):
        model = tiny(kind)
        for batch in micro_batches(given, tokens):
            values, rows = completion_logprobs(model, batch, 0.7)
            (row_sums(values, rows, len(batch.rows)) * weights[batch.rows]).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    whole = gradient(10**6)
    torch.testing.assert_close(gradient(budget), whole, atol=2e-6 * whole.abs().max().item(), rtol=1e-4)


def test_T32_log_probabilities_of_a_bfloat16_model_are_fp32(tiny):
    """fp32 log-softmax over bf16 logits: never above 0, and a sum over the vocabulary of 1 to fp32."""
    model = tiny().to(torch.bfloat16)
    values = [completion_logprobs(model, collate([Example([3, 4], [t])], [0]))[0] for t in range(41)]
    values = torch.cat(values)
    assert values.dtype == torch.float32 and values.max() <= 0
    assert abs(values.exp().sum().item() - 1) < 1e-5
