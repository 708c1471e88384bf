"""Tests for cold_start/sft.py: which tokens are targets, how the loss is normalised, that it falls."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from minifleming.cold_start.oracle import Oracle
from minifleming.cold_start.sft import ValidationSet, backward, epoch_order, examples_of, train
from minifleming.extras.tiny_base.base import build_tokenizer
from minifleming.lm.model import LanguageModel, ModelConfig
from minifleming.lm.pack import Example
from minifleming.rods.readers import load_graph
from minifleming.run.errors import BadInput, RunFailed
from minifleming.run.fields import ColdStart
from minifleming.run.run_folder import Journal
from tests.padded import collate, completion_logprobs
from tests.rods.items import synthesize

V, END = 40, 39


def model_of(seed: int = 0, layers: int = 2) -> LanguageModel:
    model = LanguageModel(ModelConfig("qwen3", V, 32, 64, layers, 4, 2, 8, 1e-6, 10000.0, True, 128))
    model.init_weights(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.0 if parameter.dim() < 2 else 5.0)  # far from uniform, so that mistakes show
    return model


def some_examples(count: int, seed: int = 0) -> list[Example]:
    """Prompts of 2 to 9 tokens, completions of 1 to 12 that end with END."""
    rng = torch.Generator().manual_seed(seed)

    def length(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=rng))

    def draw(n: int) -> list[int]:
        return torch.randint(1, END, (n,), generator=rng).tolist()

    return [Example(draw(length(2, 10)), draw(length(0, 12)) + [END]) for _ in range(count)]


def gradients(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def gradient_of(examples: list[Example], total: int, tokens: int, seed: int = 0) -> tuple[float, torch.Tensor]:
    model = model_of(seed)
    return backward(model, examples, total, settings(tokens)), gradients(model)


def settings(tokens: int, **change) -> ColdStart:
    return ColdStart(micro_batch_tokens=tokens, **change)


def target_count(examples: list[Example]) -> int:
    return sum(len(example.completion) for example in examples)


class Bigram(nn.Module):
    """The next token depends on the token before it and on nothing else."""

    sharded, compute_dtype = False, None

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(V, V, generator=torch.Generator().manual_seed(0)))
        self.lm_head = SimpleNamespace(weight=torch.eye(V))  # its hidden states are the logits

    def forward(self, ids, positions=None, cache=None, output_positions=None):
        return self.table[ids.flatten()[output_positions]]

    batch_invariant = False
    logprobs, fused_loss = LanguageModel.logprobs, LanguageModel.fused_loss

    @property
    def device(self):
        return self.table.device


def test_the_loss_is_the_mean_over_completion_tokens_row_by_row():
    """A second way: one row at a time, full logits, no padding, no masks."""
    examples, model = some_examples(9), model_of()
    total = target_count(examples)
    loss = backward(model, examples, total, settings(64))
    by_hand = 0.0
    with torch.no_grad():
        for example in examples:
            ids = torch.tensor([example.prompt + example.completion])
            logprobs = model.logits(model(ids))[0].double().log_softmax(-1)
            for place, token in enumerate(example.completion, len(example.prompt)):
                by_hand -= logprobs[place - 1, token].item() / total
    assert loss == pytest.approx(by_hand, rel=1e-5)


def test_only_states_that_predict_a_completion_reach_the_head():
    examples, model = some_examples(6), model_of()
    batch, seen = collate(examples), []
    model.register_forward_hook(lambda module, inputs, named, hidden: seen.append((named["output_positions"], hidden)),
                                with_kwargs=True)
    logprobs, _ = completion_logprobs(model, batch)
    [(output_positions, hidden)] = seen
    assert target_count(examples) == len(logprobs) == len(hidden)
    width = max(map(len, examples)) - 1  # of a row; position t predicts token t + 1
    assert output_positions.tolist() == [row * width + t for row, example in enumerate(examples)
                               for t in range(len(example.prompt) - 1, len(example) - 1)]


def test_prompt_tokens_are_no_targets():
    """With a bigram model only the prompt's last token has an effect."""
    completion = [5, 6, 7, END]
    results = []
    for prompt in ([1, 2, 3], [9, 8, 3], [3, 3, 3], [3], list(range(10, 20)) + [3]):
        model = Bigram()
        results.append((backward(model, [Example(prompt, completion)], 4, settings(100)), model.table.grad))
    for loss, grad in results[1:]:
        assert loss == results[0][0] and torch.equal(grad, results[0][1])
    rows = results[0][1].abs().sum(-1).nonzero().flatten().tolist()
    assert rows == [3, 5, 6, 7], "contexts with a gradient: the prompt's last token and the completion"


def test_the_end_token_is_learned_and_nothing_after_it():
    model = Bigram()
    backward(model, [Example([1], [2, END]), Example([1], [2, 4, 5, 6, END])], 7, settings(1000))
    share = model.table.grad[2]
    assert share[END] < 0 and share[4] < 0, "END is a target after 2, once"
    assert model.table.grad[END].abs().sum() == 0, "nothing is learned from what comes after END"
    assert model.table.grad[0].abs().sum() == 0, "nor from padding"


def test_the_micro_batch_size_does_not_change_the_gradient():
    examples = some_examples(13, seed=3)
    loss, grad = gradient_of(examples, target_count(examples), 60)
    for tokens in (1, 24, 50, 137, 10**6):
        other_loss, other = gradient_of(examples, target_count(examples), tokens)
        assert other_loss == pytest.approx(loss, rel=1e-6)
        assert (other - grad).abs().max() <= 1e-6 * max(1.0, grad.abs().max().item())


def test_the_denominator_is_global_so_ranks_add_up():
    """Parts of unequal size, each divided by the global count, add up to the full gradient."""
    examples = sorted(some_examples(11, seed=4), key=len)
    total = target_count(examples)
    loss, grad = gradient_of(examples, total, 64)
    for ranks in (2, 3, 4, 16):
        parts = [gradient_of(examples[rank::ranks], total, 64) for rank in range(ranks) if examples[rank::ranks]]
        assert sum(part[0] for part in parts) == pytest.approx(loss, rel=1e-6)
        assert (sum(part[1] for part in parts) - grad).abs().max() <= 1e-6 * max(1.0, grad.abs().max().item())


def test_every_token_has_the_same_weight():
    """The loss is no mean of sequence means: a longer sequence has a larger share."""
    short, long = Example([1], [2, END]), Example([1], [3] * 20 + [END])
    model = Bigram()
    loss = backward(model, [short, long], 23, settings(1000))
    nll = -model.table.detach().log_softmax(-1)
    by_hand = nll[1, 2] + nll[2, END] + nll[1, 3] + 19 * nll[3, 3] + nll[3, END]
    assert loss == pytest.approx(by_hand.item() / 23, rel=1e-5)


@pytest.fixture(scope="module")
def graph():
    return load_graph("embedded")


@pytest.fixture(scope="module")
def tokenizer(graph, tmp_path_factory):
    return build_tokenizer(graph, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def items(graph):
    return synthesize(graph, 60, [1, 2, 3], seed=2)


def test_examples_are_prompt_then_completion_then_end(items, graph, tokenizer):
    traces = [traces[0] for traces in Oracle(graph, 0.5).propose(items)]
    fitting, examples = examples_of(list(reversed(traces)), tokenizer, 512)
    assert fitting == traces[::-1] and len(examples) == 60
    for example, trace, item in zip(examples, reversed(traces), reversed(items)):
        assert tokenizer.decode(example.prompt) == tokenizer.prompt(item.question, item.options)
        assert tokenizer.decode(example.completion) == trace.completion + "<|im_end|>"
        assert example.completion[-1] == tokenizer.end_ids[0]
        assert not set(tokenizer.end_ids) & set(example.completion[:-1])


def test_over_long_traces_are_dropped_whole_and_counted(items, graph, tokenizer):
    traces = [traces[0] for traces in Oracle(graph, 0.5).propose(items)]
    _, every = examples_of(traces, tokenizer, 512)
    lengths = sorted(map(len, every))
    longest = lengths[len(lengths) // 2]
    fitting, kept = examples_of(traces, tokenizer, longest)
    assert kept == [example for example in every if len(example) <= longest], "in order, none cut"
    assert 60 > len(kept) == sum(length <= longest for length in lengths)
    assert fitting == [trace for trace, example in zip(traces, every) if len(example) <= longest]
    assert max(map(len, kept)) == longest, "the limit itself fits"
    assert examples_of(traces, tokenizer, 1) == ([], [])


def test_each_epoch_sees_every_example_once():
    order = epoch_order(10, 35, seed=1)
    assert len(order) == 35
    for epoch in range(3):
        assert sorted(order[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert len(set(order[30:])) == 5
    assert order[:10] != order[10:20] and order != epoch_order(10, 35, seed=2)
    assert order == epoch_order(10, 35, seed=1) and order[:12] == epoch_order(10, 12, seed=1)


def run(folder, seed: int = 0, tokens: int = 200, **change) -> tuple[LanguageModel, list[dict]]:
    folder.mkdir(exist_ok=True)
    model = model_of(1)
    cfg = settings(tokens, **({"epochs": 6.0, "batch": 8, "lr": 1e-2, "warmup": 0.1} | change))
    train(model, some_examples(24, seed=9), cfg, seed=seed, journal=Journal(folder))
    return model, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_short_run_lowers_the_loss(tmp_path):
    model, metrics = run(tmp_path)
    losses = [record["loss"] for record in metrics]
    assert len(losses) == 18 and all(map(math.isfinite, losses))
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
    with torch.no_grad():
        examples = some_examples(24, seed=9)
        logprobs, _ = completion_logprobs(model, collate(examples))
    assert -logprobs.mean().item() < 0.6 * losses[0], "the trained weights are those of the model passed in"


def test_the_journal_records_each_step(tmp_path):
    _, metrics = run(tmp_path, epochs=2.0)
    assert [record["step"] for record in metrics] == [1, 2, 3, 4, 5, 6]
    examples, order = some_examples(24, seed=9), epoch_order(24, 48, 0)
    assert [record["target_tokens"] for record in metrics] == [
        target_count([examples[i] for i in order[8 * step : 8 * step + 8]]) for step in range(6)]
    rates = [record["lr"] for record in metrics]
    assert max(rates) <= 1e-2 and rates[0] < rates[1] and rates[1:] == sorted(rates[1:], reverse=True)
    assert {record["stage"] for record in metrics} == {"cold_start"}


def test_gradients_are_cleared_before_and_after_a_step(tmp_path):
    """At learning rate 0 and with all examples in each step, all steps are alike."""
    model, metrics = run(tmp_path, epochs=4.0, batch=24, lr=0.0)
    assert len(metrics) == 4
    for key in ("loss", "grad_norm"):
        assert [record[key] for record in metrics] == pytest.approx([metrics[0][key]] * 4, rel=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), model_of(1).parameters()))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_result_depends_on_the_seed_and_not_on_micro_batches(tmp_path):
    model, metrics = run(tmp_path / "a", epochs=2.0)
    again, same = run(tmp_path / "b", epochs=2.0)
    assert same == metrics and all(map(torch.equal, model.parameters(), again.parameters()))
    _, other = run(tmp_path / "c", epochs=2.0, seed=1)
    assert other != metrics
    _, small = run(tmp_path / "d", epochs=2.0, tokens=30)
    assert [r["loss"] for r in small] == pytest.approx([r["loss"] for r in metrics], rel=1e-3)


def test_a_non_finite_loss_stops_the_run(tmp_path):
    model = model_of()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(RunFailed, match="step 1"):
        train(model, some_examples(8), ColdStart(batch=8), seed=0, journal=Journal(tmp_path))
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, model.parameters()))


@pytest.mark.parametrize("tokens", [1, 37, 10**6])
def test_packed_padded_and_one_by_one_have_one_gradient(tokens):
    """In fp32, to 1e-6 of the largest entry."""
    examples = some_examples(17, seed=5)
    total = target_count(examples)
    model = model_of()
    alone = sum(backward(model, [example], total, settings(1)) for example in examples)
    expected = gradients(model)
    model = model_of()
    packed = backward(model, examples, total, settings(tokens))
    assert packed == pytest.approx(alone, rel=1e-6)
    assert (gradients(model) - expected).abs().max() <= 1e-6 * expected.abs().max()
    model = model_of()
    logprobs, _ = completion_logprobs(model, collate(examples))
    loss = -logprobs.sum() / total
    loss.backward()
    assert loss.item() == pytest.approx(alone, rel=1e-6)
    assert (gradients(model) - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_checkpointed_activations_change_no_bit(tmp_path):
    plain, told = run(tmp_path / "a", epochs=2.0)
    again, same = run(tmp_path / "b", epochs=2.0, activation_checkpointing=True)
    assert same == told and all(map(torch.equal, plain.parameters(), again.parameters()))


def test_bf16_compute_keeps_fp32_weights_and_nearly_the_gradient():
    """8 bits of mantissa: 2**-8 a product, a few layers of them; 5 % of the gradient's length is wide of that."""
    examples = some_examples(17, seed=5)
    total, model = target_count(examples), model_of()
    loss, grad = gradient_of(examples, total, 100)
    model.compute_dtype = torch.bfloat16
    rough = backward(model, examples, total, settings(100))
    found = gradients(model)
    assert found.dtype == torch.float32 and rough != loss
    assert rough == pytest.approx(loss, rel=0.02) and (found - grad).norm() < 0.05 * grad.norm()


class Judged(ValidationSet):
    """Accuracies by a script, so that the best is known."""

    def __init__(self, accuracies):
        object.__setattr__(self, "script", list(accuracies))
        object.__setattr__(self, "seen", [])
        object.__setattr__(self, "examples", [0])

    def measure(self, model):
        self.seen.append([p.detach().clone() for p in model.parameters()])
        return self.script[len(self.seen) - 1]


@pytest.mark.parametrize(("script", "best"), [
    ([(1.0, 0.1), (1.0, 0.3), (1.0, 0.2)], 1), ([(1.0, 0.3), (0.5, 0.3), (0.7, 0.3)], 1),
    ([(1.0, 0.3), (1.0, 0.3), (1.0, 0.3)], 0), ([(3.0, 0.0), (2.0, 0.1), (9.0, 0.9)], 2)])
def test_the_model_ends_with_its_best_weights(tmp_path, script, best):
    """Best accuracy, then the lower loss, then the earlier. Weights may be parts of larger tensors."""
    model, held, home = model_of(1), Judged(script), tmp_path / "home"
    for parameter in model.parameters():
        parameter.data = torch.cat((parameter.data, parameter.data))[: len(parameter)]
    cfg = settings(200, epochs=6.0, batch=8, lr=1e-2, num_evals=3)
    train(model, some_examples(24, seed=9), cfg, seed=0, journal=Journal(tmp_path), validation=held, folder=home)
    assert [all(map(torch.equal, model.parameters(), seen)) for seen in held.seen] == [i == best for i in range(3)]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    measured = [(line["step"], line["val_loss"], line["val_accuracy"]) for line in lines
                if "val_loss" in line]
    assert measured == [(step, *pair) for step, pair in zip((6, 12, 18), script)]


def test_measuring_changes_nothing(tmp_path):
    plain, _ = run(tmp_path / "a", epochs=2.0)
    model, held = model_of(1), Judged([(1.0, 0.1), (1.0, 0.2), (1.0, 0.3)])
    cfg = settings(200, epochs=2.0, batch=8, lr=1e-2, warmup=0.1, num_evals=3)
    train(model, some_examples(24, seed=9), cfg, seed=0, journal=Journal(tmp_path), validation=held,
          folder=tmp_path / "home")
    assert all(map(torch.equal, plain.parameters(), model.parameters()))


def test_a_trace_longer_than_the_models_context_is_refused(tokenizer, tmp_path):
    model = model_of()
    room = model.config.max_position_embeddings
    long = Example([1] * room, [2])
    with pytest.raises(BadInput, match=f"a trace has {room + 1} tokens, and the model {room} positions"):
        train(model, [long], ColdStart(), seed=0, journal=Journal(tmp_path))
