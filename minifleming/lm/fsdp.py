"""Sharded training (FSDP2): every rank keeps a part of each weight, of its gradient and of its moments.

    block    gather its weights -> compute -> let them go        forward, and again backward
             gradients: summed over the ranks in fp32, each rank keeps its rows

Put on from outside: the model, its names and its arithmetic stay as they are. Rows of dimension 0 are dealt as
``torch.chunk`` does; what the table and the head share when they are tied stays one tensor, in the root's group.

    run.fsdp_size   0   over all ranks
                n   over groups of n ranks (one host each), every group a whole copy: hybrid
                1   not at all: every rank holds the whole model, and gradients are summed by run/distributed.py

A gather is a collective: all ranks must run the model equally often. ``even`` gives a rank with fewer batches idle
ones, ``in_step`` keeps a rank that has nothing left to sample in step with the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from minifleming.lm.model import LanguageModel
from minifleming.run import distributed
from minifleming.run.errors import BadInput


def fsdp_mesh(ranks: int, size: int, device: torch.device) -> DeviceMesh:
    """All ranks in a row, or, where ``size`` is smaller, [copies, shards]. Raises BadInput if they do not divide."""
    size = size or ranks
    if ranks % size:
        raise BadInput(f"run.fsdp_size: {ranks} ranks are no whole number of groups of {size}")
    if size == ranks:
        return init_device_mesh(device.type, (ranks,), mesh_dim_names=("shard",))
    return init_device_mesh(device.type, (ranks // size, size), mesh_dim_names=("copy", "shard"))


def apply_fsdp(model: LanguageModel, size: int, compute: torch.dtype, device: torch.device, offload: bool = False) -> None:
    """Block by block, then the rest (the table, the last norm, the head). ``model`` may be on the meta device.

    ``compute``: dtype of gathered weights and of products; sums over ranks are fp32. ``offload``: parts and moments
    in the memory of the CPU.
    """
    how = {"mesh": fsdp_mesh(distributed.world_size(), size, device),
           "mp_policy": MixedPrecisionPolicy(compute, torch.float32, cast_forward_inputs=False),  # angles stay fp32
           "offload_policy": CPUOffloadPolicy() if offload and device.type == "cuda" else OffloadPolicy()}
    for block in model.model.layers:
        fully_shard(block, **how, reshard_after_forward=True)
    fully_shard(model, **how, reshard_after_forward=False)  # the head is used after the forward pass has ended
    for module in (*model.model.layers, model):
        module.set_gradient_divide_factor(1.0)  # sums: every denominator is global already
        module.set_force_sum_reduction_for_comms(True)
    model.sharded, model.compute_dtype, model.compute_device = True, compute, device


def local_row_range(parameter: Tensor, total: int) -> slice:
    """Which of the ``total`` rows of dimension 0 this rank holds."""
    if not isinstance(parameter, DTensor):
        return slice(0, total)
    mesh = parameter.device_mesh
    each = -(-total // mesh.size(-1))
    first = min(mesh.get_local_rank(mesh.ndim - 1) * each, total)
    return slice(first, min(first + each, total))


def to_local(tensor: Tensor) -> Tensor:
    """This rank's rows."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """All rows, on every rank: a collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_first_replica(parameter: Tensor) -> bool:
    """Does this rank belong to the first copy? In sums over all ranks the others stay out."""
    return not isinstance(parameter, DTensor) or parameter.device_mesh.ndim == 1 or \
        parameter.device_mesh.get_local_rank(0) == 0


def shard_like(part: Tensor, parameter: Tensor) -> Tensor:
    """``part``, the rows of this rank, as a tensor sharded as ``parameter`` is."""
    if not isinstance(parameter, DTensor):
        return part
    return DTensor.from_local(part, parameter.device_mesh, parameter.placements, run_check=False,
                              shape=parameter.shape, stride=parameter.stride())


def reshard(model: LanguageModel) -> None:
    """Of gathered weights, after passes without a gradient: the next step changes them."""
    if model.sharded:
        model.reshard()


@contextmanager
def gathered_copy(model: LanguageModel, dtype: torch.dtype) -> Iterator[LanguageModel]:
    """The whole model on this rank in ``dtype``, as it is now: what samples. The model itself if it is just that."""
    if not model.sharded and model.dtype == dtype:
        yield model
        return
    with torch.device("meta"):
        copy = LanguageModel(model.config).to(dtype)
    copy.to_empty(device=model.device).tie_weights()
    copy.deterministic = model.deterministic
    with torch.no_grad():
        for mine, theirs in zip(copy.parameters(), model.parameters(), strict=True):
            mine.copy_(full_tensor(theirs.detach().to(dtype)))
    yield copy.train(False).requires_grad_(False)


def pad_batches_across_ranks(batches: list, model: LanguageModel) -> list:
    """The batches, with None behind them until every rank has as many."""
    if not model.sharded:
        return batches
    most = max(distributed.all_gather([len(batches)], model.device))
    return [*batches, *[None] * (most - len(batches))]


def sampler(model: LanguageModel, weights: str):
    """What samples in a run: ``rl.rollout_weights``. To be used as a context."""
    if weights == "sharded" and model.sharded:
        return nullcontext(model)
    return gathered_copy(model, model.compute_dtype or model.dtype)


@contextmanager
def in_step(model: LanguageModel) -> Iterator[None]:
    """Within it ranks call a sharded model as often as each likes; whoever leaves runs on until all have left."""
    if not model.sharded:
        yield
        return
    handle = model.register_forward_pre_hook(lambda *inputs: distributed.anyone(True, model.device) and None, prepend=True)
    try:
        yield
    finally:
        handle.remove()
        with torch.no_grad():
            while distributed.anyone(False, model.device):
                model(torch.zeros(1, 1, dtype=torch.int64, device=model.device))
        model.reshard()
