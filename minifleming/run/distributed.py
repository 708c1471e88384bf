"""The process group: start, rank, world size, and the few collectives that the recipe needs.

Every denominator in this project is global: each rank computes its part of the sums, the sums are
all-reduced, and only then is anything divided. So the world size never changes the mathematics.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist

from minifleming.run import errors
from minifleming.run.errors import BadInput, RunFailed

# what collectives say when another rank is gone
RANK_LOST = re.compile("gloo|NCCL|[Cc]onnection|[Ss]ocket|[Tt]imed out")


@contextmanager
def process_group(device: torch.device, minutes: float = 30, single_rank: bool = False):
    """Join the process group for the block, if torchrun started more than one rank.

    ``single_rank``: create a group even for one rank (FSDP needs one). A collective that waits
    longer than ``minutes`` fails. Raises RunFailed when another rank dies. CPU tensors go through
    gloo.
    """
    _join(device, timedelta(minutes=minutes), single_rank)
    failed = True
    try:
        yield
        failed = False
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or RANK_LOST.search(str(error))
        if world_size() == 1 or not lost:
            raise
        reason = f"another rank is gone, or has not answered for {minutes:g} minutes"
        raise RunFailed(reason) from None
    finally:  # a rank that fails does not wait for the others: their next collective fails
        if dist.is_initialized() and (world_size() == 1 or not failed):
            dist.destroy_process_group()


def _join(device: torch.device, timeout: timedelta, single_rank: bool) -> None:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if dist.is_initialized():
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        store, me, count = next(dist.rendezvous("env://", timeout=timeout))
        dist.init_process_group(backend, timeout=timeout, store=store, rank=me, world_size=count)
        errors.is_reporting_rank = partial(_is_first_to_fail, dist.PrefixStore("errors", store))
    elif single_rank:
        store = dist.HashStore()
        dist.init_process_group(backend, timeout=timeout, store=store, rank=0, world_size=1)


def _is_first_to_fail(store: dist.Store) -> bool:
    """Only the first failing rank prints its error."""
    try:
        store.set_timeout(timedelta(seconds=5))
        return store.add("failed", 1) == 1
    except (RuntimeError, OSError):  # rank 0 is gone, and the store with it
        return os.environ.get("RANK") in ("0", "1")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def pick_device(name: str) -> torch.device:
    """The device for ``auto`` (this rank's GPU if there is one), ``cpu`` or ``cuda``."""
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name == "cuda" and not available:
        raise BadInput("run.device: there is no CUDA device here")
    if name == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(name)


def shard_list(items: list) -> list:
    """This rank's part of a list: every world_size-th element."""
    return items[rank() :: world_size()]


def all_sum(values: list[float], device: torch.device) -> list[float]:
    """The sum of each value over the ranks, in fp64."""
    if world_size() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.tolist()


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` is true on at least one rank."""
    return all_sum([flag], device)[0] > 0


def all_gather(objects: list, device: torch.device) -> list:
    """The plain data of all ranks, interleaved: undoes ``shard_list``.

    The data travel as JSON bytes in tensors; nothing is pickled.
    """
    if world_size() == 1:
        return objects
    encoded = bytearray(json.dumps(objects).encode())
    data = torch.frombuffer(encoded, dtype=torch.uint8).to(device)
    parts = [json.loads(buffer.cpu().numpy().tobytes()) for buffer in _gather_bytes(data)]
    length = sum(map(len, parts))
    return [parts[i % len(parts)][i // len(parts)] for i in range(length)]


def _gather_bytes(data: torch.Tensor) -> list[torch.Tensor]:
    """The byte tensors of all ranks, which may differ in length."""
    sizes = [torch.zeros(1, dtype=torch.int64, device=data.device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([data.numel()], device=data.device))
    longest = max(map(int, sizes))
    buffers = [data.new_zeros(longest) for _ in sizes]
    dist.all_gather(buffers, torch.nn.functional.pad(data, (0, longest - data.numel())))
    return [buffer[: int(size)] for buffer, size in zip(buffers, sizes)]


def broadcast_from_rank0(value, device: torch.device):
    """Rank 0's value (plain data), on every rank."""
    return all_gather([value] if rank() == 0 else [], device)[0]


def sum_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Sum the gradients over the ranks; they were divided by global counts."""
    if world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)


@contextmanager
def raise_on_all_ranks(device: torch.device):
    """If one rank fails inside the block, raise its error on every rank.

    The block must not contain collectives.
    """
    failure: RunFailed | BadInput | None = None
    try:
        yield
    except (RunFailed, BadInput) as error:
        failure = error
    reports = all_gather([[str(failure or ""), isinstance(failure, BadInput)]], device)
    if failure is not None:
        raise failure
    for message, is_bad_input in reports:
        if message:
            raise BadInput(message) if is_bad_input else RunFailed(message)


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
