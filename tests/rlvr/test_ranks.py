"""Two and four ranks take the step of one: the same tokens, and the gradient of global denominators."""

from __future__ import annotations

import dataclasses
import gzip
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from minifleming.rlvr import stages
from minifleming.rlvr.objective import OBJECTIVES
from minifleming.rlvr.rollout import roll_out
from minifleming.rlvr.update import update
from minifleming.run import parallel
from minifleming.run.errors import RunFailed
from minifleming.run.fields import RL, Config, Mining, Run, Stage1, Stage2
from tests.ranks import on_ranks


def settings() -> Config:
    """Five prompts on two ranks: shares of three and two."""
    return Config(
        run=Run(seed=3), rl=RL(max_new_tokens=12, lr=1e-3, prompts_per_step=5),
        stage1=Stage1(samples_per_prompt=4, min_steps=2, max_steps=2, sparsity=1.0),
        stage2=Stage2(samples_per_prompt=3, rounds=1, steps_per_round=1), mining=Mining(samples=2))


def train(rank, talker, tokenizer, folder) -> None:
    fresh, items = talker
    stages.train(settings(), fresh(), tokenizer, items, folder)


def results(folder):
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rollouts = [[json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
                for path in sorted((folder / "rollouts").glob("*.gz"))]
    return [r for r in metrics if r["stage"].startswith("rl_")], rollouts


def test_T27_T29_two_ranks_take_the_steps_of_one(talker, tokenizer, tmp_path):
    """Groups stay whole on a rank, completions end at different lengths on each, and nobody waits for ever."""
    train(0, talker, tokenizer, tmp_path / "one")
    assert on_ranks(2, train, talker, tokenizer, tmp_path / "two") == [0, 0]
    (one, ours), (two, theirs) = results(tmp_path / "one"), results(tmp_path / "two")
    assert [r["step"] for r in one] == [r["step"] for r in two] == [1, 2, 3]
    assert one[0]["trained"] > 0 and one[0]["grad_norm"] > 0.1, "there is something to compare"
    for a, b in zip(ours, theirs):
        assert [(r["key"], r["completion_ids"], r["coefficient"]) for r in a] == [
            (r["key"], r["completion_ids"], r["coefficient"]) for r in b]
    for a, b in zip(one, two):
        for name in ("prompts", "reward", "accuracy", "sparsity", "trained", "length"):
            assert a[name] == pytest.approx(b[name], rel=1e-12), name
        for name in ("loss", "grad_norm", "entropy"):
            assert a[name] == pytest.approx(b[name], rel=1e-4), name
    for a, b in zip(*((tmp_path / name / "mining.jsonl").read_text().splitlines() for name in ("one", "two"))):
        assert json.loads(a) | {"hash": ""} == json.loads(b) | {"hash": ""}


def one_step(rank, model, reference, groups, cfg, path) -> None:
    """Update on this rank's share of the groups; leave gradient, weights and figures behind."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    mine = parallel.share(groups)
    found = update(model, optimizer, mine, cfg, samples=8, prompts=len(groups), reference=reference, key=(1, 2))
    gradient, weights = (torch.cat([x.detach().flatten() for x in xs]) for xs in (
        [p.grad for p in model.parameters()], list(model.parameters())))
    save_file({"gradient": gradient, "weights": weights}, f"{path}.{rank}.safetensors")
    (path.with_suffix(f".{rank}.json")).write_text(json.dumps(found))


VARIANTS = [RL(objective=name) for name in OBJECTIVES] + [
    RL(advantage="batch"), RL(advantage="leave_one_out", kl=0.1), RL(objective="dapo", epochs=2, minibatches=3, kl=0.1),
    RL(objective="gspo", epochs=2)]


@pytest.mark.parametrize("cfg", VARIANTS, ids=lambda c: f"{c.objective}-{c.advantage}-{c.epochs}-{c.kl}")
def test_T9_T26_gradient_on_1_2_and_4_ranks(talker, tokenizer, tmp_path, cfg):
    """Five groups on four ranks, so some have one and one has two; the same gradient on every rank, to 1e-6."""
    fresh, items = talker
    cfg = dataclasses.replace(cfg, max_new_tokens=12, max_grad_norm=1e9)
    reference = None
    if cfg.kl:
        reference = fresh()
        with torch.no_grad():
            for p in reference.parameters():
                p.mul_(1.01)

    def groups():
        return roll_out(fresh(), tokenizer, [(item, "") for item in items[:5]], cfg, samples=8, seed=0, step=3)

    one_step(0, fresh(), reference, groups(), cfg, tmp_path / "w1")
    plain = load_file(f"{tmp_path / 'w1'}.0.safetensors")
    assert plain["gradient"].abs().max() > 1e-4
    figures = json.loads((tmp_path / "w1.0.json").read_text())
    for world in (2, 4):
        path = tmp_path / f"w{world}"
        assert on_ranks(world, one_step, fresh(), reference, groups(), cfg, path) == [0] * world
        for rank in range(world):
            found = load_file(f"{path}.{rank}.safetensors")
            assert (found["gradient"] - plain["gradient"]).abs().max() <= 1e-6
            assert (found["weights"] - plain["weights"]).abs().max() <= 1e-6
            told = json.loads(path.with_suffix(f".{rank}.json").read_text())
            assert told == pytest.approx(figures, rel=1e-4, abs=1e-7)


def failing(rank, folder) -> None:
    try:
        with parallel.together(torch.device("cpu")):
            if rank == 1:
                raise RunFailed("rank 1 saw it")
        said = "went on"
    except RunFailed as error:
        said = str(error)
    (folder / str(rank)).write_text(said)


def test_a_rank_that_fails_takes_the_others_with_it(tmp_path):
    assert on_ranks(2, failing, tmp_path) == [0, 0]
    assert [(tmp_path / str(rank)).read_text() for rank in (0, 1)] == ["rank 1 saw it"] * 2
