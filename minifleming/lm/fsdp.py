"""Training memory: weights sharded over the ranks (FSDP2), and activation checkpointing.

Both are applied to a model from outside; its code, parameter names and arithmetic stay the same.

    forward and backward   a block gathers its weights, computes, and frees them again
    gradients              are summed over the ranks in fp32, and each rank keeps its own rows

Dimension 0 of every weight is split as by ``torch.chunk``. ``run.fsdp_size`` is the number of ranks
that share one copy of the model: 0 all ranks; n groups of n ranks, each with a copy (hybrid); 1 no
sharding, and run/distributed.py sums the gradients. A gather is a collective, so all ranks must run
the model equally often: see ``pad_batches_across_ranks``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from minifleming.lm.batch_invariant import make_batch_invariant
from minifleming.lm.model import LanguageModel
from minifleming.run import distributed
from minifleming.run.errors import BadInput


def apply_fsdp(model: LanguageModel, size: int, compute_dtype: torch.dtype,
               device: torch.device) -> None:
    """Shards every block, then the rest of the model (embedding, last norm, head), which may be on
    "meta".

    Args:
        size: ``run.fsdp_size``.
        compute_dtype: dtype of gathered weights and of matrix products; sums over ranks are in
            fp32.

    Raises BadInput if ``size`` does not divide the number of ranks.
    """
    mesh = fsdp_mesh(distributed.world_size(), size, device)
    precision = MixedPrecisionPolicy(compute_dtype, torch.float32, cast_forward_inputs=False)
    for module in (*model.model.layers, model):
        # The head runs after the forward pass has ended, so the root must keep its weights.
        fully_shard(module, mesh=mesh, mp_policy=precision,
                    reshard_after_forward=module is not model)
        module.set_gradient_divide_factor(1.0)  # sum, not mean: denominators are global already
        module.set_force_sum_reduction_for_comms(True)
    model.sharded = True
    model.compute_dtype = compute_dtype


def fsdp_mesh(ranks: int, size: int, device: torch.device) -> DeviceMesh:
    """Mesh of all ranks, or [copies, ranks of a copy] if ``size`` is smaller.

    Raises BadInput if it does not divide.
    """
    size = size or ranks
    if ranks % size:
        raise BadInput(f"run.fsdp_size: {ranks} ranks are no whole number of groups of {size}")
    shape = (ranks,) if size == ranks else (ranks // size, size)
    return init_device_mesh(device.type, shape, mesh_dim_names=("copy", "shard")[-len(shape) :])


def local_row_range(parameter: Tensor) -> slice:
    """The part of dimension 0 that this rank holds."""
    rows = parameter.shape[0]
    if not isinstance(parameter, DTensor):
        return slice(0, rows)
    mesh = parameter.device_mesh
    rows_per_rank = -(-rows // mesh.size(-1))
    first = min(mesh.get_local_rank(mesh.ndim - 1) * rows_per_rank, rows)
    return slice(first, min(first + rows_per_rank, rows))


def to_local(tensor: Tensor) -> Tensor:
    """This rank's rows."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """All rows, on every rank. A collective if the tensor is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def gathered_copy(model: LanguageModel) -> Iterator[LanguageModel]:
    """The model that samples: all weights on this rank in the compute dtype, frozen.

    Yields the model itself if it is not sharded and has that dtype, otherwise a copy of the present
    weights.
    """
    dtype = model.compute_dtype or model.dtype
    if not model.sharded and model.dtype == dtype:
        yield model
        return
    with torch.device("meta"):
        copy = LanguageModel(model.config).to(dtype)
    copy.to_empty(device=model.device).tie_weights()
    if model.batch_invariant:
        make_batch_invariant(copy)
    with torch.no_grad():
        for target, source in zip(copy.parameters(), model.parameters(), strict=True):
            target.copy_(full_tensor(source.detach().to(dtype)))
    yield copy.train(False).requires_grad_(False)


def pad_batches_across_ranks(batches: list, model: LanguageModel) -> list:
    """The batches, padded with None to the largest count of all ranks.

    For None a rank runs ``dummy_forward``.
    """
    if not model.sharded:
        return batches
    longest = max(distributed.all_gather([len(batches)], model.device))
    return batches + [None] * (longest - len(batches))


@contextmanager
def activation_checkpointing(model: LanguageModel, enabled: bool = True) -> Iterator[None]:
    """Within the context every block stores only its input and recomputes the rest in the backward
    pass.

    Costs about a third more arithmetic; values and gradients keep their bits.
    """
    blocks = list(model.model.layers) if enabled else []
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
