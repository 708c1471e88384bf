"""Tests for run/distributed.py: sharded lists are gathered in order, and sums are over all ranks."""

import json
from pathlib import Path

import pytest
import torch

from minifleming.run import distributed
from minifleming.run.errors import BadInput
from tests.ranks import on_ranks

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


def rank_main(rank: int, folder: Path) -> None:
    """Run on each of the two ranks and write the results to a file."""
    found = collect()
    distributed.barrier()
    (folder / str(rank)).write_text(json.dumps(found))


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    assert on_ranks(2, rank_main, folder) == [0, 0]
    return [json.loads((folder / str(rank)).read_text()) for rank in (0, 1)]


def test_two_processes_know_who_they_are(two_ranks):
    assert [(found["rank"], found["world"]) for found in two_ranks] == [(0, 2), (1, 2)]


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
    with distributed.process_group(CPU, single_rank=True):
        assert torch.distributed.is_initialized() and distributed.world_size() == 1
    assert not torch.distributed.is_initialized(), "the group ends with the block"
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
