"""The plan against the tensors of real passes: every storage that an operation makes is counted while it lives."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import train_grpo
import train_sft
from minifleming.extras.plan.model_shapes import KNOWN, shape_of
from minifleming.extras.plan.plan import (
    Batch,
    activations,
    cache,
    head,
    largest_microbatch,
    peak_extra_bytes,
    plan,
    sizes,
    training,
)
from minifleming.kernels.head import TokenLoss
from minifleming.lm import optimizer as optim
from minifleming.lm.fsdp import activation_checkpointing
from minifleming.lm.kv_cache import Capacity, KVCache
from minifleming.lm.model import LanguageModel, ModelConfig
from minifleming.lm.pack import Example, Group, Pack, pack_groups, packed_loss
from minifleming.run import config as configuration
from minifleming.run.errors import BadInput
from minifleming.run.fields import RL, Config, Run

RECIPES = sorted((train_grpo.RECIPE.parent).glob("*.toml"))


class Live(TorchDispatchMode):
    """Bytes of the storages made within that are still alive, and the most at any time."""

    def __init__(self, known):
        super().__init__()
        self.known, self.held, self.peak = {t.untyped_storage()._cdata for t in known}, {}, 0

    def now(self) -> int:
        self.held = {key: pair for key, pair in self.held.items() if not pair[0].expired()}
        return sum(size for _, size in self.held.values())

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        out = f(*args, **(kwargs or {}))
        for tensor in (t for t in tree_leaves(out) if isinstance(t, torch.Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self.known:
                self.held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, self.now())
        return out


def model_of(kind: str, vocabulary: int, dtype=torch.float32) -> LanguageModel:
    model = LanguageModel(ModelConfig(kind, vocabulary, 64, 160, 3, 4, 2, 16, 1e-6, 1e4, False, 512))
    model.init_weights(0)
    return model.to(dtype)


def trees(batch: Batch) -> list[Group]:
    return [Group([1] * batch.p, [[2] * batch.t] * (batch.rows // batch.prompts))] * batch.prompts


def passes(model: LanguageModel, made: Pack, recompute: bool) -> tuple[int, int]:
    """Bytes alive between the forward pass below the head and the head; and the most from there on."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    kept = []

    def note(*_):
        kept.append(live.now())
        live.peak = 0

    handle = model.model.norm.register_forward_hook(note)
    with activation_checkpointing(model, recompute), Live([*model.parameters(), *(p.grad for p in model.parameters())]
                                                          ) as live:
        loss, _ = packed_loss(model, made, TokenLoss("weighted", torch.ones(len(made.labels))))
        loss.backward()
    handle.remove()
    return kept[0], live.peak


@pytest.mark.parametrize("recompute", [False, True], ids=["", "recomputed"])
@pytest.mark.parametrize(("dtype", "weights"), [(torch.float32, 4), (torch.bfloat16, 2), (torch.bfloat16, 4)])
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("batch", [Batch(1, 24, 4, 40), Batch(3, 100, 6, 20), Batch(2, 8, 16, 100)])
def test_activations_and_peak_of_an_update_to_10_per_cent(kind, dtype, weights, batch, recompute):
    """fp32, bf16, and products in bf16 over fp32 weights, as one GPU trains."""
    model, e = model_of(kind, 4000, dtype if weights == dtype.itemsize else torch.float32), dtype.itemsize
    model.compute_dtype = dtype
    [made] = pack_groups(trees(batch), 10**6)
    assert made.segments.tokens == batch.tokens and len(made.labels) == batch.learned
    kept, peak = passes(model, made, recompute)
    copies, table = 0, 0  # that autocast makes of the blocks' matrices, and the head of its own, while it works
    if weights > e:
        copies = e * sum(p.numel() for p in model.model.layers.parameters() if p.dim() > 1)
        table = e * model.lm_head.weight.numel()
    planned = activations(model.config, batch, e, recompute, weights)
    assert planned + batch.learned * 64 * weights == pytest.approx(kept - copies, rel=0.1)  # and the last norm's output
    assert planned + peak_extra_bytes(model.config, batch, e, recompute, weights, False) == pytest.approx(peak - copies - table,
                                                                                              rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_the_vocabulary_is_small_a_block_is_the_peak(dtype):
    batch, e = Batch(2, 60, 16, 100), dtype.itemsize
    model = model_of("qwen3", 60, dtype)
    [made] = pack_groups(trees(batch), 10**6)
    for recompute in (False, True):
        planned = peak_extra_bytes(model.config, batch, e, recompute, e, False)
        assert planned > head(model.config, batch.learned, e, False)
        _, peak = passes(model, made, recompute)
        assert activations(model.config, batch, e, recompute, e) + planned == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("recompute", [False, True], ids=["", "recomputed"])
@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_the_cold_starts_pack_to_10_per_cent(kind, recompute):
    model, tokens = model_of(kind, 3000), 600
    [made] = pack_groups([Example([1], [2] * 120)] * 5, tokens)
    _, peak = passes(model, made, recompute)
    planned = training(model.config, Batch(0, 0, 1, tokens + 1), 4, recompute, 4, False)
    assert sum(planned.values()) == pytest.approx(peak, rel=0.1)


def test_weights_gradients_moments_and_cache():
    model = model_of("qwen2", 500)
    optimizer = optim.adamw(model, 1e-3, (0.9, 0.95), 0.0)
    model.logits(model(torch.tensor([[1, 2, 3]]))).sum().backward()
    optimizer.step()

    def held(tensors):
        return sum(t.untyped_storage().nbytes() for t in tensors)

    found = plan(Config(), model.config, 1, 4)
    assert found.memory["all along"]["weights"] == held(model.parameters())
    assert found.memory["all along"]["gradients"] == held(p.grad for p in model.parameters())
    assert found.memory["all along"]["moments"] == held(s[n] for s in optimizer.state.values() for n in ("exp_avg", "exp_avg_sq"))
    own = KVCache(model.bfloat16(), Capacity(rows=12, prompts=5, prompt_tokens=30, new_tokens=700))
    assert cache(model.config, 12, 5, 30, 700, 2) == held([*own.prompts, *own.keys, *own.values])
    assert sizes(model.config) == (sum(p.numel() for p in model.parameters()),
                                   sum(p.numel() for p in model.model.layers[1].parameters()))


def test_shares_and_phases():
    c, cfg = model_of("qwen2", 500).config, Config(run=Run(fsdp_size=0), rl=RL(prompts_per_step=32))
    one, four = plan(cfg, c, 1, 4), plan(cfg, c, 4, 4)
    assert {name: size / 4 for name, size in one.memory["all along"].items()} == four.memory["all along"]
    hybrid = plan(dataclasses.replace(cfg, run=Run(fsdp_size=2)), c, 4, 4)
    assert {name: size / 2 for name, size in one.memory["all along"].items()} == hybrid.memory["all along"]
    always, *phases = [sum(part.values()) for part in four.memory.values()]
    assert four.peak == always + max(phases) and len(phases) == 3
    with pytest.raises(BadInput, match="run.fsdp_size: 4 ranks are no whole number of groups of 3"):
        plan(dataclasses.replace(cfg, run=Run(fsdp_size=3)), c, 4, 4)


def test_the_largest_micro_batch_is_what_the_update_would_cut():
    assert largest_microbatch(1000, 9, 100, 8, 50) == Batch(2, 100, 16, 50)
    assert largest_microbatch(1000, 1, 100, 8, 50) == Batch(1, 100, 8, 50)
    assert largest_microbatch(491, 9, 100, 8, 50) == Batch(1, 100, 7, 50)
    assert largest_microbatch(492, 9, 100, 8, 50) == Batch(1, 100, 8, 50)
    assert largest_microbatch(10, 9, 100, 8, 50) == Batch(1, 100, 1, 50)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("main", [train_grpo.main, train_sft.main], ids=["grpo", "sft"])
def test_every_recipe_is_planned_with_no_weights_there(recipe, main, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--config", str(recipe), "--dry-run", "--ranks", "32", "--gpu", "h200"]) == 0
    text = capsys.readouterr().out
    told, _, planned = text.partition("\nPlan for 32 ranks")
    (tmp_path / "told.toml").write_text(told)
    assert configuration.load(tmp_path / "told.toml") == configuration.load(recipe)
    assert "fits" in planned and "DOES NOT FIT" not in planned
    assert not (tmp_path / "runs").exists()


def test_a_model_that_is_neither_there_nor_known(tmp_path):
    with pytest.raises(BadInput, match=r"Other-7B: no config.json; without one only these are known: SmolLM2"):
        shape_of(str(tmp_path / "Other-7B"))
    assert shape_of("tiny").hidden_size == 128


@pytest.mark.parametrize(("name", "billions"), [
    ("SmolLM2-135M-Instruct", 0.1345), ("Qwen2.5-0.5B-Instruct", 0.494), ("Qwen2.5-7B-Instruct", 7.616),
    ("Qwen3-32B", 32.76)])
def test_known_shapes_have_the_published_parameters(name, billions):
    assert sizes(ModelConfig(*KNOWN[name]))[0] / 1e9 == pytest.approx(billions, rel=1e-3)


@pytest.mark.parametrize("main", [train_grpo.main, train_sft.main], ids=["grpo", "sft"])
@pytest.mark.parametrize("argument", [["--ranks", "8"], ["--gpu", "h100"]])
def test_what_belongs_to_a_plan_starts_no_run(main, argument, tmp_path):
    with pytest.raises(BadInput, match=f"{argument[0]}: only with --dry-run"):
        main([*argument, "--set", f"run.out={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("recipe", "ranks", "gpu"), [("qwen2.5-7b", 8, "h100"), ("qwen3-32b", 32, "h200")])
def test_the_plans_in_the_docs_are_what_the_command_prints(recipe, ranks, gpu, capsys):
    path = train_grpo.RECIPE.parent / f"{recipe}.toml"
    assert train_grpo.main(["--config", str(path), "--dry-run", "--ranks", str(ranks), "--gpu", gpu]) == 0
    printed = "Plan for" + capsys.readouterr().out.partition("\nPlan for")[2]
    assert printed.strip() in (train_grpo.RECIPE.parents[1] / "docs" / "scaling.md").read_text()
