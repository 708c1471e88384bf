"""Two ranks take the step of one: the same tokens, and the gradient of global denominators."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import socket
import sys

import pytest
import torch

from minifleming.rlvr import stages
from minifleming.run import parallel
from minifleming.run.fields import RL, Config, Mining, Run, Stage1, Stage2


def settings() -> Config:
    """Five prompts on two ranks: shares of three and two."""
    return Config(
        run=Run(seed=3), rl=RL(max_new_tokens=12, lr=1e-3, prompts_per_step=5),
        stage1=Stage1(samples_per_prompt=4, min_steps=2, max_steps=2, sparsity=1.0),
        stage2=Stage2(samples_per_prompt=3, rounds=1, steps_per_round=1), mining=Mining(samples=2))


def train(talker, tokenizer, folder) -> None:
    fresh, items = talker
    stages.train(settings(), fresh(), tokenizer, items, folder)


def rank_main(rank: int, port: int, talker, tokenizer, folder) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    parallel.start(torch.device("cpu"))
    train(talker, tokenizer, folder)
    parallel.stop()


def results(folder):
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rollouts = [[json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
                for path in sorted((folder / "rollouts").glob("*.gz"))]
    return [r for r in metrics if r["stage"].startswith("rl_")], rollouts


@pytest.mark.skipif(sys.platform != "linux", reason="the processes are forked")
def test_two_ranks_take_the_steps_of_one(talker, tokenizer, tmp_path):
    train(talker, tokenizer, tmp_path / "one")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=rank_main, args=(rank, port, talker, tokenizer, tmp_path / "two")) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in ranks] == [0, 0]
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
