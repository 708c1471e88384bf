"""Ranks: who am I, how many are we, and the few collectives the recipe needs.

Every denominator in this project is global: each rank computes its share of the sums, the sums are
all-reduced, and only then is anything divided. So the world size never changes the mathematics.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from minifleming.run.errors import BadInput, RunFailed


def start(device: torch.device) -> None:
    """Join the process group if torchrun started more than one rank."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=10))


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


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
    """A block without collectives in which a rank may fail: then every rank raises, instead of waiting for it."""
    failed: RunFailed | None = None
    try:
        yield
    except RunFailed as error:
        failed = error
    if all_sum([failed is not None], device)[0]:
        raise failed or RunFailed("another rank has failed")


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
