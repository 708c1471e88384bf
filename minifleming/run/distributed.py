"""Ranks: who am I, how many are we, and the few collectives the recipe needs.

Every denominator in this project is global: each rank computes its share of the sums, the sums are
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

LOST = re.compile("gloo|NCCL|[Cc]onnection|[Ss]ocket|[Tt]imed out")  # how collectives complain of a rank that is gone


def start(device: torch.device, minutes: float = 30, alone: bool = False) -> None:
    """Join the process group if torchrun started more than one rank, or (``alone``) be one of a single rank.

    A rank that waits for the others longer than ``minutes`` gives up. Tensors on the CPU go through gloo.
    """
    if dist.is_initialized():
        return
    backend, limit = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timedelta(minutes=minutes)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        store, me, count = next(dist.rendezvous("env://", timeout=limit))
        dist.init_process_group(backend, timeout=limit, store=store, rank=me, world_size=count)
        errors.speaks = partial(_first_to_speak, dist.PrefixStore("errors", store))
    elif alone:
        dist.init_process_group(backend, timeout=limit, store=dist.HashStore(), rank=0, world_size=1)


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def session(device: torch.device, minutes: float = 30, alone: bool = False):
    """``start``, and ``stop`` at the end. Where another rank dies, this one ends with RunFailed: the first collective
    that misses it fails."""
    start(device, minutes, alone)
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not (isinstance(error, dist.DistError) or LOST.search(str(error))):
            raise
        raise RunFailed(f"another rank is gone, or has not answered for {minutes:g} minutes") from None
    except BaseException:
        if world_size() == 1:
            stop()
        raise  # the others learn of it from their next collective
    stop()


def _first_to_speak(store: dist.Store) -> bool:
    """Of all ranks that end with an error, the first one says so."""
    try:
        store.set_timeout(timedelta(seconds=5))
        return store.add("spoken", 1) == 1
    except (RuntimeError, OSError):  # it went with rank 0
        return os.environ.get("RANK") in ("0", "1")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def pick_device(name: str) -> torch.device:
    """``auto`` takes the GPU of this local rank where there is one, the CPU elsewhere."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("run.device: there is no CUDA device here")
    if name == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(name)


def share(items: list) -> list:
    """This rank's part of a list: every world_size-th element. Groups stay whole on one rank."""
    return items[rank() :: world_size()]


def all_sum(values: list[float], device: torch.device) -> list[float]:
    """Sum each value over the ranks, in fp64."""
    if world_size() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.tolist()


def anyone(yes: bool, device: torch.device) -> bool:
    """Does one of the ranks say yes?"""
    return all_sum([yes], device)[0] > 0


def all_gather(objects: list, device: torch.device) -> list:
    """Lists of plain data from all ranks, interleaved back into the order that ``share`` split.

    The data travel as JSON bytes in tensors: nothing is pickled.
    """
    if world_size() == 1:
        return objects
    data = torch.frombuffer(bytearray(json.dumps(objects).encode()), dtype=torch.uint8).to(device)
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([data.numel()], device=device))
    longest = max(int(size) for size in sizes)
    buffers = [torch.zeros(longest, dtype=torch.uint8, device=device) for _ in sizes]
    dist.all_gather(buffers, torch.nn.functional.pad(data, (0, longest - data.numel())))
    parts = [json.loads(b[: int(n)].cpu().numpy().tobytes()) for b, n in zip(buffers, sizes)]
    length = sum(len(part) for part in parts)
    return [parts[i % len(parts)][i // len(parts)] for i in range(length)]


def from_first(value, device: torch.device):
    """What rank 0 says (plain data), on every rank."""
    return all_gather([value] if rank() == 0 else [], device)[0]


def sum_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Add the ranks' gradients. They were divided by global denominators, so the sum is the gradient."""
    if world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)


@contextmanager
def together(device: torch.device):
    """A block without collectives in which a rank may fail: then every rank raises the first one's error, instead of
    waiting for it."""
    failed: RunFailed | BadInput | None = None
    try:
        yield
    except (RunFailed, BadInput) as error:
        failed = error
    if anyone(failed is not None, device):
        told = all_gather([[str(failed or ""), isinstance(failed, BadInput)]], device)
        words, bad = next(pair for pair in told if pair[0])
        raise failed or (BadInput if bad else RunFailed)(words)


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
