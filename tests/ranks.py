"""Several ranks on this machine: forked processes of one gloo group."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys

import pytest
import torch

from minifleming.run import distributed


def rank_main(rank: int, world: int, port: int, work, *arguments) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)  # a pool of threads does not come along into a forked process
    with distributed.process_group(torch.device("cpu")):
        work(rank, *arguments)


def on_ranks(world: int, work, *arguments) -> list[int]:
    """``work(rank, *arguments)`` in ``world`` forked processes of one group. -> exit codes"""
    if sys.platform != "linux":
        pytest.skip("the processes are forked")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=rank_main, args=(rank, world, port, work, *arguments)) for rank in range(world)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        process.kill()
        process.join()
    return [process.exitcode for process in ranks]
