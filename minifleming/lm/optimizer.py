"""AdamW with weight decay on matrices only: schedule, step, and state as safetensors."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

from minifleming.lm.fsdp import full_tensor, local_row_range, to_local
from minifleming.lm.model import LanguageModel
from minifleming.lm.tensor_files import stored_tensors, write_tensors
from minifleming.lm.weights import check_shapes
from minifleming.run import distributed
from minifleming.run.errors import BadInput, RunFailed

STEM = "optimizer"


def adamw(model: nn.Module, lr: float, betas: tuple[float, float],
          weight_decay: float) -> torch.optim.AdamW:
    """Raises BadInput for 16-bit weights: steps of 1e-6 would round to nothing (trap T32)."""
    parameters = list(model.parameters())
    if any(p.dtype in (torch.bfloat16, torch.float16) for p in parameters):
        raise BadInput("model.dtype: training needs float32 weights; "
                       "small steps round away in 16 bits")
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=1e-8, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def cosine_schedule(step: int, steps: int, warmup: float, floor: float = 0.1) -> float:
    """The factor of the peak learning rate at ``step`` of 0..steps-1.

    It rises linearly over the fraction ``warmup`` of the steps, then falls as a cosine to
    ``floor``.
    """
    warmup_steps = warmup * steps
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def optimizer_step(model: LanguageModel, optimizer: torch.optim.Optimizer, max_grad_norm: float,
                   loss: float, where: str = "") -> float:
    """Sums the gradients over the ranks, clips them and steps. Returns the norm before clipping.

    ``loss`` is the global loss of the step. Raises RunFailed, with the weights unchanged, if the
    loss or the gradient norm is not finite; ``where`` is the prefix of that message.
    """
    parameters = list(model.parameters())
    if not model.sharded:  # FSDP has already summed them in the backward pass
        distributed.sum_gradients(parameters)
    norm = full_tensor(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)).item()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise RunFailed(f"{where}loss {loss}, gradient norm {norm}: the update is refused")
    optimizer.step()
    return norm


def save_optimizer(optimizer: torch.optim.AdamW, model: LanguageModel,
                   folder: Path | None) -> None:
    """Writes moments and step counts as "PARAMETER|MOMENT" to ``optimizer.safetensors`` (or
    several).

    A sharded model's moments are gathered: all ranks call this, and all but one pass ``folder``
    None.
    """
    state = {}
    for name, parameter in model.named_parameters():
        for moment, value in optimizer.state.get(parameter, {}).items():
            state[f"{name}|{moment}"] = value
    write_tensors(folder, state, torch.float32, STEM)


def load_optimizer(optimizer: torch.optim.AdamW, model: LanguageModel, folder: Path) -> None:
    """Restores what ``save_optimizer`` wrote for this model, on any number of ranks.

    An empty file is the state before the first step. Raises BadInput if the state is not the
    model's.
    """
    parameters = dict(model.named_parameters())
    wanted = {}
    for name, parameter in parameters.items():
        shape = list(parameter.shape)
        wanted |= {f"{name}|step": [], f"{name}|exp_avg": shape, f"{name}|exp_avg_sq": shape}
    found = [(key, stored.get_shape()) for key, stored in stored_tensors(folder, STEM)]
    if found:
        check_shapes(wanted, found, folder / f"{STEM}.safetensors")
    for key, stored in stored_tensors(folder, STEM):
        name, _, moment = key.rpartition("|")
        parameter = parameters[name]
        if moment == "step":
            value = stored[...].to(parameter.device)
        else:
            value = torch.zeros_like(parameter)
            to_local(value).copy_(stored[local_row_range(parameter)])
        optimizer.state[parameter][moment] = value
