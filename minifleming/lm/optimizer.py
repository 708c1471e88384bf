"""AdamW with decay on matrices only, its schedule, and its state as safetensors."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from minifleming.run.errors import BadInput


def adamw(model: nn.Module, lr: float, betas: tuple[float, float], weight_decay: float) -> torch.optim.AdamW:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=1e-8, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def cosine(step: int, steps: int, warmup: float, floor: float = 0.1) -> float:
    """Factor on the peak learning rate at ``step`` of 0..steps-1: linear rise, then cosine down to ``floor``."""
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    along = (step - rise) / max(steps - rise, 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * along))


def save_state(optimizer: torch.optim.AdamW, model: nn.Module, path: Path) -> None:
    """First and second moments and step counts, under the parameters' names."""
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}|{key}"] = value.detach().cpu().contiguous()
    save_file(tensors, path)


def load_state(optimizer: torch.optim.AdamW, model: nn.Module, path: Path) -> None:
    try:
        tensors = load_file(path)
    except Exception as error:
        raise BadInput(f"not a readable optimizer state: {error}", path) from None
    for name, parameter in model.named_parameters():
        state = {key.split("|")[1]: value for key, value in tensors.items() if key.split("|")[0] == name}
        if state and state["exp_avg"].shape != parameter.shape:
            raise BadInput(f"{name} has another shape", path)
        if state:
            moments = {key: state[key].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": state["step"].float(), **moments}
