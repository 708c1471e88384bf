"""Two and four ranks take the step of one: the same tokens, and the gradient of global denominators."""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from minifleming.audit.verify import verify
from minifleming.lm.fsdp import full_tensor
from minifleming.lm.weights import load_for_training, load_model, save_model
from minifleming.rlvr import train as trainer
from minifleming.rlvr.objective import OBJECTIVES
from minifleming.rlvr.rollout import roll_out
from minifleming.rlvr.update import update
from minifleming.rods.item import write_items
from minifleming.run import distributed
from minifleming.run.checkpoint import write_text
from minifleming.run.config import to_toml
from minifleming.run.errors import RunFailed
from minifleming.run.fields import RL, Config, Mining, Run, Stage1, Stage2
from tests.ranks import on_ranks


def settings(shard: int = 1, **rl) -> Config:
    """Five prompts on two ranks: shares of three and two."""
    return Config(
        run=Run(seed=3, fsdp_size=shard),
        rl=RL(max_new_tokens=12, lr=1e-3, prompts_per_step=5, **rl),
        stage1=Stage1(samples_per_prompt=4, min_steps=2, max_steps=2, plateau_threshold=1.0),
        stage2=Stage2(samples_per_prompt=3, rounds=1, steps_per_round=1), mining=Mining(samples=2, chunk=20))


def train(rank, base, items, tokenizer, folder, cfg) -> None:
    trainer.train(cfg, load_for_training(base, cfg, torch.device("cpu")), tokenizer, items, folder)


@pytest.fixture(scope="module")
def base(talker, tokenizer, tmp_path_factory):
    """The talker as a folder."""
    folder = tmp_path_factory.mktemp("base") / "model"
    save_model(talker[0](), tokenizer, folder)
    return folder


def results(folder):
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rollouts = [[json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
                for path in sorted((folder / "rollouts").glob("*.gz"))]
    return [r for r in metrics if r["stage"].startswith("rl_")], rollouts


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "cfg"), [
    (2, settings()), (2, settings(0)), (4, settings(2)),
    (2, settings(0, kl_coef=0.1, activation_checkpointing=True, micro_batch_tokens=30))],
    ids=["replicated", "sharded", "hybrid", "sharded, with KL, recomputed"])
def test_T27_T29_several_ranks_take_the_steps_of_one(talker, base, tokenizer, tmp_path, ranks, cfg):
    """Groups stay whole on a rank, completions end at different lengths on each, and nobody waits for ever."""
    items = talker[1]
    train(0, base, items, tokenizer, tmp_path / "one", dataclasses.replace(cfg, run=Run(seed=3)))
    assert on_ranks(ranks, train, base, items, tokenizer, tmp_path / "two", cfg) == [0] * ranks
    (one, ours), (two, theirs) = results(tmp_path / "one"), results(tmp_path / "two")
    assert [r["step"] for r in one] == [r["step"] for r in two] == [1, 2, 3]
    assert one[0]["samples_with_gradient"] > 0 and one[0]["grad_norm"] > 0.1, "there is something to compare"
    for a, b in zip(ours, theirs):
        assert [(r["key"], r["completion_ids"]) for r in a] == [(r["key"], r["completion_ids"]) for r in b]
        for x, y in zip(a, b):
            assert x["coefficient"] == pytest.approx(y["coefficient"], rel=1e-3, abs=1e-7)
    for a, b in zip(one, two):
        for name in ("prompts", "reward", "accuracy", "zero_variance_groups", "samples_with_gradient", "completion_tokens"):
            assert a[name] == pytest.approx(b[name], rel=1e-12), name
        for name in ("loss", "grad_norm", "sampled_entropy"):
            assert a[name] == pytest.approx(b[name], rel=1e-4), name
    for a, b in zip(*((tmp_path / name / "mining.jsonl").read_text().splitlines() for name in ("one", "two"))):
        a, b = json.loads(a), json.loads(b)
        assert a | {"hash": "", "config": ""} == b | {"hash": "", "config": ""}
    ends = [load_model(tmp_path / name / "checkpoints" / "step_000003" / "model") for name in ("one", "two")]
    assert all((a - b).abs().max() < 1e-4 for a, b in zip(*(end.parameters() for end in ends)))
    for name in ("one", "two"):  # and either log holds
        shutil.copytree(base, tmp_path / name / "base")
        (tmp_path / name / "items").mkdir()
        write_items(tmp_path / name / "items" / "train.jsonl", items)
        write_text(tmp_path / name / "config.toml", to_toml(cfg if name == "two" else dataclasses.replace(
            cfg, run=Run(seed=3))))
        assert not verify(tmp_path / name).differences


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [((2, 0), (1, 1)), ((4, 2), (2, 0)), ((1, 1), (4, 0))])
def test_a_checkpoint_of_some_ranks_goes_on_on_others(talker, base, tokenizer, tmp_path, before, after):
    """A new run from another one's checkpoint (--resume PATH), on another number of ranks and other shards: the same
    weights and moments to the bit, so the same tokens in the next step."""
    items = talker[1]

    def go(ranks, shard, folder, start=None):
        cfg = dataclasses.replace(settings(shard), run=Run(seed=3, fsdp_size=shard, checkpoint_every=1, keep_last=9))
        assert on_ranks(ranks, train_from, base, items, tokenizer, folder, cfg, start) == [0] * ranks

    go(*before, tmp_path / "first")
    go(*after, tmp_path / "second", tmp_path / "first" / "checkpoints" / "step_000001")
    (_, first), (_, second) = results(tmp_path / "first"), results(tmp_path / "second")
    assert [[(r["key"], r["completion_ids"]) for r in step] for step in first[1:]] == [
        [(r["key"], r["completion_ids"]) for r in step] for step in second]
    kept = [load_file(tmp_path / name / "checkpoints" / "step_000001" / "optimizer.safetensors")
            for name in ("first", "second")]
    assert kept[0].keys() == kept[1].keys() and all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def train_from(rank, base, items, tokenizer, folder, cfg, start) -> None:
    trainer.train(cfg, load_for_training(base, cfg, torch.device("cpu")), tokenizer, items, folder, start)


def one_step(rank, base, groups, cfg, path, shard=1) -> None:
    """Update on this rank's share of the groups; leave gradient, weights and figures behind."""
    run, cpu = Config(run=Run(fsdp_size=shard)), torch.device("cpu")
    model, reference = load_for_training(base, run, cpu), None
    if cfg.kl_coef:
        reference = load_for_training(base, run, cpu).requires_grad_(False)
        with torch.no_grad():
            for p in reference.parameters():
                p.mul_(1.01)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    found = update(model, optimizer, distributed.shard_list(groups), cfg, fused=True, reference=reference,
                   key=(1, 2))
    gradient, weights = (torch.cat([full_tensor(x.detach()).flatten() for x in xs]) for xs in (
        [p.grad for p in model.parameters()], list(model.parameters())))
    save_file({"gradient": gradient, "weights": weights}, f"{path}.{rank}.safetensors")
    (path.with_suffix(f".{rank}.json")).write_text(json.dumps(found))


VARIANTS = [RL(objective=name) for name in OBJECTIVES] + [
    RL(advantage="batch"), RL(advantage="leave_one_out", kl_coef=0.1), RL(objective="dapo", num_iterations=2, minibatches=3, kl_coef=0.1),
    RL(objective="gspo", num_iterations=2)]
LAYOUTS = [(2, 1, 16384), (4, 1, 40), (2, 0, 40), (4, 2, 16384), (4, 0, 60)]  # ranks, run.fsdp_size, tokens a micro-batch


@pytest.mark.slow
@pytest.mark.parametrize("cfg", VARIANTS, ids=lambda c: f"{c.objective}-{c.advantage}-{c.num_iterations}-{c.kl_coef}")
def test_T9_T26_gradient_on_1_2_and_4_ranks(talker, base, tokenizer, tmp_path, cfg):
    """Five groups on four ranks, so some have one and one has two, in whole or cut into other micro-batches; the same
    gradient on every rank, to 1e-6, whether each holds the weights or they share them."""
    fresh, items = talker
    cfg = dataclasses.replace(cfg, max_new_tokens=12, max_grad_norm=1e9)

    def groups():
        return roll_out(fresh(), tokenizer, [(item, "") for item in items[:5]], cfg, samples=8, seed=0, step=3)

    one_step(0, base, groups(), cfg, tmp_path / "w1")
    plain = load_file(f"{tmp_path / 'w1'}.0.safetensors")
    assert plain["gradient"].abs().max() > 1e-4
    figures = json.loads((tmp_path / "w1.0.json").read_text())
    for world, shard, tokens in LAYOUTS:
        path, cut = tmp_path / f"w{world}-{shard}", dataclasses.replace(cfg, micro_batch_tokens=tokens)
        assert on_ranks(world, one_step, base, groups(), cut, path, shard) == [0] * world
        for rank in range(world):
            found = load_file(f"{path}.{rank}.safetensors")
            assert (found["gradient"] - plain["gradient"]).abs().max() <= 1e-6
            assert (found["weights"] - plain["weights"]).abs().max() <= 1e-6
            told = json.loads(path.with_suffix(f".{rank}.json").read_text())
            assert told == pytest.approx(figures, rel=1e-4, abs=1e-7)


def failing(rank, folder) -> None:
    try:
        with distributed.raise_on_all_ranks(torch.device("cpu")):
            if rank == 1:
                raise RunFailed("rank 1 saw it")
        said = "went on"
    except RunFailed as error:
        said = str(error)
    (folder / str(rank)).write_text(said)


@pytest.mark.slow
def test_a_rank_that_fails_takes_the_others_with_it(tmp_path):
    assert on_ranks(2, failing, tmp_path) == [0, 0]
    assert [(tmp_path / str(rank)).read_text() for rank in (0, 1)] == ["rank 1 saw it"] * 2
