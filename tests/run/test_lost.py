"""Tests for lost ranks: all others end at once with status 1, and one line states the reason."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time

import pytest
import torch

from minifleming.run import distributed
from minifleming.run.errors import BadInput, RunFailed, run_cli

CPU = torch.device("cpu")


def work_until_asked(argv) -> int:
    """Run a collective every 20 milliseconds until a file asks for something else."""
    folder, what = argv
    with distributed.process_group(CPU, minutes=0.1):
        me = distributed.rank()
        for step in range(500):
            if me == 1 and step == 20:
                if what == "stops":
                    os.kill(os.getpid(), signal.SIGSTOP)
                if what == "bad input":
                    raise BadInput("line 3 of it", folder / "items.jsonl")
                if what == "failure":
                    raise RunFailed("loss nan")
            distributed.any_rank(True, CPU)
            (folder / f"{me}.step").write_text(str(step))
            time.sleep(0.02)
    return 0


def rank_main(rank: int, world: int, port: int, folder, what: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    sys.stderr = open(folder / f"{rank}.err", "w")
    os._exit(run_cli(work_until_asked, (folder, what)))


def start(folder, what: str, world: int = 3) -> list:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=rank_main, args=(rank, world, port, folder, what)) for rank in range(world)]
    for process in ranks:
        process.start()
    return ranks


def ended(ranks: list, seconds: float) -> list[int | None]:
    until = time.monotonic() + seconds
    for process in ranks:
        process.join(max(0.0, until - time.monotonic()))
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
        process.join()
    return codes


def error_lines(folder) -> list[str]:
    """Return the error lines of all ranks."""
    return [line for file in sorted(folder.glob("*.err")) for line in file.read_text().splitlines()
            if line.startswith("minifleming: ")]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_killed_rank_is_reported_once_and_nobody_waits(tmp_path, victim):
    ranks = start(tmp_path, "nothing")
    until = time.monotonic() + 30
    while not (tmp_path / f"{victim}.step").exists() and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.3)
    ranks[victim].kill()
    killed = time.monotonic()
    codes = ended(ranks, 30)
    assert time.monotonic() - killed < 10
    assert codes == [-signal.SIGKILL if rank == victim else 1 for rank in range(3)]
    assert error_lines(tmp_path) == ["minifleming: another rank is gone, or has not answered for 0.1 minutes"]


@pytest.mark.parametrize(("what", "status", "line"), [
    ("bad input", 2, "items.jsonl: line 3 of it"), ("failure", 1, "loss nan")])
def test_what_one_rank_finds_is_said_by_it_alone(tmp_path, what, status, line):
    codes = ended(start(tmp_path, what), 30)
    assert codes == [1, status, 1]
    assert len(error_lines(tmp_path)) == 1 and error_lines(tmp_path)[0].endswith(line)


@pytest.mark.slow
def test_a_rank_that_answers_no_more_is_given_up_after_the_time_out(tmp_path):
    first, stopped, last = start(tmp_path, "stops")
    assert ended([first, last], 25) == [1, 1] and len(error_lines(tmp_path)) == 1
    stopped.kill()


def test_an_error_of_our_own_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(RuntimeError, match="gloo would say so"), distributed.process_group(CPU):
        raise RuntimeError("gloo would say so")
