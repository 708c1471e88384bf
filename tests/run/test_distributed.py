"""Ranks: lists are split and put together again in order, sums are sums over all ranks; nothing is pickled."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minifleming.run import distributed
from minifleming.run.errors import BadInput

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
LENGTHS = (0, 1, 2, 3, 7, 10)
DATA = [{"id": f"é🩺-{i}", "n": i, "x": i / 7, "none": None, "list": [i, [str(i) * i]]} for i in range(10)]


def collect() -> dict:
    """What this rank gets from each collective."""
    me = distributed.rank()
    weight = torch.nn.Parameter(torch.zeros(3))
    idle = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.full((3,), 1.0 + me)
    if me == 0:
        idle.grad = torch.tensor([5.0, 6.0])
    distributed.sum_gradients([weight, idle])
    long = ["long " * 10_000]
    return {
        "rank": me, "world": distributed.world_size(),
        "shares": [distributed.shard_list(list(range(n))) for n in LENGTHS],
        "gathered": [distributed.all_gather(distributed.shard_list(DATA[:n]), CPU) for n in LENGTHS],
        "uneven": distributed.all_gather(long if me == 0 else [], CPU) == long,
        "sums": distributed.all_sum([me + 1, 0.1 * (me + 1), 2.0**53 if me == 0 else 1.0, -3], CPU),
        "gradients": [weight.grad.tolist(), idle.grad.tolist()],
    }


def rank_main(out: str) -> None:
    """What each of the two processes does; its findings go to a file."""
    with distributed.process_group(CPU):
        found = collect()
        distributed.barrier()
    found["after"] = [distributed.rank(), distributed.world_size()]
    Path(out).write_text(json.dumps(found))


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                                "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen([sys.executable, __file__, str(folder / rank)], stderr=subprocess.PIPE, text=True,
                                  env=environment | {"RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    return [json.loads((folder / str(rank)).read_text()) for rank in (0, 1)]


def test_two_processes_know_who_they_are(two_ranks):
    assert [(found["rank"], found["world"]) for found in two_ranks] == [(0, 2), (1, 2)]
    assert [found["after"] for found in two_ranks] == [[0, 1], [0, 1]], "after the block there is one rank again"


def test_shares_are_disjoint_and_cover_the_list(two_ranks):
    for i, n in enumerate(LENGTHS):
        first, second = (found["shares"][i] for found in two_ranks)
        assert sorted(first + second) == list(range(n)) and abs(len(first) - len(second)) <= 1


def test_what_was_shared_is_gathered_in_the_old_order_on_every_rank(two_ranks):
    """Lists shorter than the number of ranks, of odd length and of length 0 included."""
    for found in two_ranks:
        assert found["gathered"] == [DATA[:n] for n in LENGTHS]
        assert found["uneven"]


def test_sums_are_over_all_ranks_and_in_double_precision(two_ranks):
    for found in two_ranks:
        assert found["sums"] == [3.0, pytest.approx(0.3, abs=1e-15), 2.0**53 + 1.0, -6.0]


def test_gradients_are_summed_and_a_rank_without_one_adds_nothing(two_ranks):
    for found in two_ranks:
        assert found["gradients"] == [[3.0, 3.0, 3.0], [5.0, 6.0]]


def test_one_rank_alone_needs_no_process_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.process_group(CPU):
        distributed.barrier()
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.shard_list([1, 2, 3]) == distributed.all_gather([1, 2, 3], CPU) == [1, 2, 3]
    assert distributed.all_sum([1, 0.5], CPU) == [1, 0.5]


def test_the_device_is_the_one_asked_for(monkeypatch):
    assert distributed.pick_device("cpu") == CPU
    monkeypatch.setenv("LOCAL_RANK", "3")
    for there, wanted in ((False, CPU), (True, torch.device("cuda", 3))):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert distributed.pick_device("auto") == wanted
    assert distributed.pick_device("cuda") == torch.device("cuda", 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="no CUDA device"):
        distributed.pick_device("cuda")


if __name__ == "__main__":
    rank_main(sys.argv[1])
