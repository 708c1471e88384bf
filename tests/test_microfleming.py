"""Tests for microfleming.py: it agrees with the package, and each of its stages learns."""

import ast
import io
import tokenize
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import microfleming as micro
from minifleming.cold_start.checks import Checks
from minifleming.cold_start.trace import Trace
from minifleming.evaluation.statistics import wilson
from minifleming.lm.sampler import SamplingParams, generate
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_for_training
from minifleming.rlvr import objective
from minifleming.rlvr.reward import reward
from minifleming.rlvr.rollout import Rollout
from minifleming.rlvr.update import backward
from minifleming.rods.answer import Verdict, parse_strict, reasoning_of
from minifleming.rods.check import main as check_proofs
from minifleming.rods.item import Item, write_items
from minifleming.rods.readers import load_graph
from minifleming.rods.synthesize import blind_accuracy
from minifleming.run.fields import RL, Config
from tests.rods.items import TRAIN, synthesize
from tests.rods.poison import ROWS

FILE = Path(micro.__file__)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cfg():
    return SimpleNamespace(seed=3, diseases=60, options=6)


@pytest.fixture(scope="module")
def graph(cfg):
    return micro.Graph(micro.ASSETS / "graph.tsv", cfg.diseases)


@pytest.fixture(scope="module")
def items(graph, cfg):
    """Training and held-out items of the file."""
    train = micro.make_items(graph, cfg, 150, False)
    return train, micro.make_items(graph, cfg, 60, True, {micro.option_set(item) for item in train})


@pytest.fixture(scope="module")
def model():
    return micro.Model(micro.ASSETS / "tiny")


@pytest.fixture(scope="module")
def package_model():
    return load_for_training(micro.ASSETS / "tiny", Config(), CPU)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(micro.ASSETS / "tiny")


def as_item(item: dict) -> Item:
    return Item(**item)


# ---- the file itself ----


def test_the_file_is_short_narrow_and_imports_nothing_of_the_package():
    source = FILE.read_text(encoding="utf-8")
    assert max(map(len, source.splitlines())) <= 100
    assert len(code_lines(source)) <= 500
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.split(".")[0])
    assert not {"minifleming", "kernels"} & modules
    assert {"torch", "numpy", "safetensors", "tokenizers", "tqdm"} <= modules


def code_lines(source: str) -> set[int]:
    """The numbers of the lines with a token that is neither a comment nor a docstring."""
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        has_body = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if has_body and ast.get_docstring(node):
            docstrings |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
              tokenize.ENCODING, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return lines - docstrings


# ---- items, proofs, traces ----


def test_the_items_are_those_that_the_package_makes(items, cfg):
    package = synthesize(
        load_graph("embedded"), 150, [1, 2, 3], seed=10 * cfg.seed, options=cfg.options,
        num_diseases=cfg.diseases, split=TRAIN)
    for ours, theirs in zip(items[0], package, strict=True):
        found = as_item(ours)
        for name in ("question", "options", "answer", "tier", "hops", "path", "visible", "masked",
                     "discriminating"):
            assert getattr(found, name) == getattr(theirs, name), name
        for name in ("root", "hidden"):
            assert found.provenance[name] == theirs.provenance[name]
        assert theirs.id.endswith(found.id)


def test_every_item_passes_the_package_s_proof_check(items, tmp_path, capsys):
    both = [as_item(item) for part in items for item in part]
    write_items(tmp_path / "items.jsonl", both)
    assert check_proofs(["--items", str(tmp_path / "items.jsonl")]) == 0
    assert f"{len(both)} of {len(both)} items proven" in capsys.readouterr().out


def test_held_out_items_share_neither_findings_nor_options_with_training_items(items):
    train, held_out = items
    combinations = [{frozenset(map(tuple, micro.findings_of(item))) for item in part}
                    for part in items]
    assert not combinations[0] & combinations[1]
    options = {micro.option_set(item) for item in train}
    assert not options & {micro.option_set(item) for item in held_out}
    assert {item["hops"] for item in held_out} == {1, 2, 3}


def test_equal_seeds_make_equal_items_and_other_seeds_other_ones(items, graph, cfg):
    assert micro.make_items(graph, cfg, 20, False) == items[0][:20]
    other = SimpleNamespace(**{**vars(cfg), "seed": 4})
    assert micro.make_items(graph, other, 20, False) != items[0][:20]


def test_every_trace_passes_the_package_s_checks_detours_included(items, graph):
    check = Checks(load_graph("embedded"))
    detours = 0
    for item in items[0]:
        text = micro.write_trace(item, graph, 0)
        reasoning = reasoning_of(text)
        detours += "lacks" in reasoning
        trace = Trace(item["id"], item["question"], item["options"], reasoning, item["answer"],
                      "blind", "micro")
        assert trace.completion == text
        verdicts = check.check_text(as_item(item), trace)
        assert all(verdicts.values()) and "hops" in verdicts, (text, verdicts)
    assert 10 <= detours <= 40  # 15 % of 150


def test_the_blind_rule_is_the_package_s_up_to_ties(items):
    train, held_out = items
    theirs = blind_accuracy(list(map(as_item, train)), list(map(as_item, held_out)))
    assert abs(np.mean(micro.blind_rule(train, held_out)) - theirs) < 0.1


# ---- prompts, rewards, advantages ----


def test_prompts_have_the_same_text_and_ids(items, model, tokenizer):
    for item in items[0]:
        text = tokenizer.prompt(item["question"], item["options"])
        assert micro.prompt_text(item) == text
        assert model.encode(micro.prompt_text(item)) == tokenizer.encode(text)


def test_rewards_are_equal_for_the_poison_corpus_and_for_each_truncation():
    wrong = []
    for row in ROWS:
        item = {"options": dict.fromkeys(row.labels, "x"), "answer": row.strict or "C"}
        for finished in (True, False):
            verdict = parse_strict(row.text, row.labels, finished)
            theirs = reward(verdict, item["answer"], RL())
            if micro.reward_of(row.text, finished, item) != theirs:
                wrong.append((row.family, row.text[:80], finished))
    assert len(ROWS) > 300 and wrong == []


def test_rewards_take_linear_time():
    for text in ("<think" * 200_000, " " * 1_000_000, "<answer>" + "C" * 1_000_000,
                 f"<think>a</think><answer>{' ' * 1_000_000}"):
        assert micro.reward_of(text, True, {"options": {"C": "x"}, "answer": "C"}) == 0


def test_advantages_are_equal():
    rng = np.random.default_rng(0)
    groups = [rng.choice([0.0, 0.1, 1.1], size=2 + i % 15).tolist() for i in range(200)]
    for rewards in [*groups, [0.1] * 3, [1.1] * 7, [0.3] * 10]:
        assert micro.advantages(rewards) == objective.advantages(rewards)


def test_wilson_intervals_are_equal():
    for right, n in ((1, 3), (40, 60), (599, 600)):
        assert micro.wilson(right, n) == pytest.approx(wilson(right, n), abs=1e-4)


# ---- loss, gradient, sampler ----


def rollouts(items, graph, model):
    """Groups of completions of unequal lengths, with rewards; the last group is constant."""
    groups = []
    for number, item in enumerate(items[:4]):
        trace = model.encode(micro.write_trace(item, graph, 0))
        ids = [trace[: 9 + 4 * i + number] + [model.end] for i in range(3)]
        rewards = [1.1, 0.0, 0.1] if number < 3 else [0.1] * 3
        groups.append((item, ids, rewards))
    return groups


def test_loss_and_gradient_of_equal_rollouts_are_equal(items, graph):
    """In fp64, so that 1e-6 leaves no room for anything but rounding."""
    model, package_model = micro.Model(micro.ASSETS / "tiny"), package_model_in_fp64()
    for weight in model.weights.values():
        weight.data = weight.data.double()
    groups = rollouts(items[0], graph, model)
    prompts = [model.encode(micro.prompt_text(item)) for item, _, _ in groups[:3]]
    advantage = sum((micro.advantages(rewards) for _, _, rewards in groups[:3]), [])
    logprobs = micro.completion_logprobs(model, prompts, [ids for _, ids, _ in groups[:3]])
    loss = micro.policy_loss(logprobs, torch.tensor(advantage), 12)
    loss.backward()

    theirs = []
    for item, ids, rewards in groups:
        prompt = model.encode(micro.prompt_text(item))
        for i, value in enumerate(objective.advantages(rewards)):
            rollout = Rollout(as_item(item), "easy", i, prompt, ids[i], [0.0] * len(ids[i]), True,
                              Verdict(None, "label"), {}, rewards[i], advantage=value)
            if value:
                theirs.append([rollout])
    counts = objective.GlobalCounts(12, 0, 64)  # the constant group counts among the 12 sequences
    their_loss = backward(package_model, theirs, RL(), counts, None)[0]

    assert loss.item() == pytest.approx(their_loss, rel=1e-6)
    for name, parameter in package_model.named_parameters():
        difference = (model.weights[name].grad - parameter.grad).norm()
        assert difference <= 1e-6 * parameter.grad.norm(), name


def package_model_in_fp64():
    model = load_for_training(micro.ASSETS / "tiny", Config(), CPU).double()
    model.compute_dtype = torch.float64
    return model


def test_the_sampler_records_the_log_probabilities_of_the_trainer(items, model):
    groups = micro.sample(model, items[0][:6], 3, ("test", 0))
    ids = [[completion.ids for completion in group] for group in groups]
    prompts = [model.encode(micro.prompt_text(item)) for item in items[0][:6]]
    logprobs = micro.completion_logprobs(model, prompts, ids)
    rows = [completion for group in groups for completion in group]
    for row, completion in zip(logprobs, rows, strict=True):
        recorded = torch.tensor(completion.logprobs)
        assert torch.allclose(row[: len(recorded)], recorded, atol=1e-4)
        assert completion.finished == (completion.ids[-1] == model.end)


def test_a_sample_depends_on_its_key_and_not_on_the_batch(items, model):
    def ids(part, key):
        return [completion.ids for completion in micro.sample(model, part, 2, key)[-1]]

    found = ids(items[0][3:4], ("test", 1))
    assert ids(items[0][:4], ("test", 1)) == found
    assert ids(items[0][3:4], ("test", 2)) != found


def test_drawn_tokens_have_the_frequencies_of_the_distribution():
    logits = torch.log(torch.tensor([0.1, 0.0, 0.6, 0.3]))
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    ids, logprobs = micro.draw_tokens(logits.expand(1000, 4), u)
    assert torch.bincount(ids, minlength=4).tolist() == [100, 0, 600, 300]
    assert torch.allclose(logprobs.exp(), torch.tensor([0.1, 0.0, 0.6, 0.3])[ids])


def test_greedy_completions_are_those_of_the_package(items, model, package_model):
    prompts = [model.encode(micro.prompt_text(item)) for item in items[0][:5]]
    params = SamplingParams(micro.MAX_NEW_TOKENS, [model.end], temperature=0)
    theirs = generate(package_model, prompts, ["x"] * 5, params)
    ours = micro.sample(model, items[0][:5])
    assert [group[0].ids for group in ours] == [completion.ids for completion in theirs]


# ---- learning ----


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_each_stage_improves_the_accuracy(seed, capsys):
    results = micro.run(micro.arguments(["--seed", str(seed)]))
    correct = [sum(results[name]) for name in
               ("Base", "+ CoT cold start", "+ RL stage 1", "+ RL stage 2")]
    assert len(results["Base"]) >= 400
    assert correct == sorted(set(correct)), correct
    assert correct[-1] > sum(results["Blind rule"])
    assert "| + RL stage 2 |" in capsys.readouterr().out
