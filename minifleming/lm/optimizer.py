"""AdamW with decay on matrices only, its schedule, its step, and its state as safetensors."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

from minifleming.lm import tensors
from minifleming.lm.fsdp import full_tensor, local_row_range, shard_like, to_local
from minifleming.lm.model import LanguageModel
from minifleming.run import distributed
from minifleming.run.errors import BadInput, RunFailed

STEM = "optimizer"


def adamw(model: nn.Module, lr: float, betas: tuple[float, float], weight_decay: float) -> torch.optim.AdamW:
    """Refuses weights in 16 bits: a step of 1e-6 rounds away in them, and nothing is learned (trap T32)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if any(p.dtype in (torch.bfloat16, torch.float16) for p in parameters):
        raise BadInput("model.dtype: training needs float32 weights; small steps round away in 16 bits")
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=1e-8, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def cosine_schedule(step: int, steps: int, warmup: float, floor: float = 0.1) -> float:
    """Factor on the peak learning rate at ``step`` of 0..steps-1: linear rise, then cosine down to ``floor``."""
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    along = (step - rise) / max(steps - rise, 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * along))


def optimizer_step(model: LanguageModel, optimizer: torch.optim.Optimizer, max_grad_norm: float,
                   loss: float, where: str = "") -> float:
    """Sums the gradients over the ranks, clips them and steps. Returns the norm before clipping.

    ``loss`` is the global loss of the step. Raises RunFailed, with the weights unchanged, if the loss or the
    gradient norm is not finite; ``where`` is the prefix of that message.
    """
    parameters = list(model.parameters())
    if not model.sharded:  # FSDP has already summed them in the backward pass
        distributed.sum_gradients(parameters)
    norm = full_tensor(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)).item()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise RunFailed(f"{where}loss {loss}, gradient norm {norm}: the update is refused")
    optimizer.step()
    return norm


def save_optimizer(optimizer: torch.optim.AdamW, model: LanguageModel, folder: Path | None,
               shard_bytes: int = tensors.SHARD_BYTES) -> None:
    """First and second moments and step counts, under the parameters' names: ``optimizer.safetensors``, or shards.

    Of a sharded model each is gathered whole: all ranks call this, and one of them with a folder.
    """
    held = {f"{name}|{what}": value.detach() for name, parameter in model.named_parameters()
            for what, value in optimizer.state.get(parameter, {}).items()}
    tensors.write_tensors(folder, {name: value.numel() * value.element_size() for name, value in held.items()},
                  lambda name: full_tensor(held[name]), STEM, shard_bytes)


def load_optimizer(optimizer: torch.optim.AdamW, model: LanguageModel, folder: Path) -> None:
    """Take up what ``save_state`` wrote for this very model, on any number of ranks; an empty state is that of before
    the first step."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    shapes: dict[str, dict] = {}
    for key, _, shape in tensors.read_tensors(folder, STEM):
        name, _, what = key.rpartition("|")
        shapes.setdefault(name, {})[what] = shape
    for name in sorted(shapes.keys() ^ parameters.keys()) if shapes else []:
        raise BadInput(f"{name} is in the model or in this state, not in both", folder / f"{STEM}.safetensors")
    for name, found in shapes.items():
        shape = tuple(parameters[name].shape)
        if found != {"step": (), "exp_avg": shape, "exp_avg_sq": shape}:
            raise BadInput(f"{name} has other moments, or of another shape", folder / f"{STEM}.safetensors")
    for key, rows, shape in tensors.read_tensors(folder, STEM):
        name, _, what = key.rpartition("|")
        parameter = parameters[name]
        part = rows(local_row_range(parameter, shape[0]) if shape else None).to(to_local(parameter).device)
        optimizer.state[parameter][what] = shard_like(part, parameter) if shape else part
