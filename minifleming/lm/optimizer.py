"""AdamW with decay on matrices only, its schedule, and its state as safetensors."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from minifleming.run.errors import BadInput


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
    """Take up what ``save_state`` wrote for this very model; an empty state is that of before the first step."""
    try:
        tensors = load_file(path)
    except Exception as error:
        raise BadInput(f"not a readable optimizer state: {error}", path) from None
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    state: dict[str, dict] = {}
    for key, value in tensors.items():
        name, _, what = key.rpartition("|")
        state.setdefault(name, {})[what] = value
    for name in sorted(state.keys() ^ parameters.keys()) if state else []:
        raise BadInput(f"{name} is in the model or in this state, not in both", path)
    for name, held in state.items():
        shape = parameters[name].shape
        if {what: value.shape for what, value in held.items()} != {"step": (), "exp_avg": shape, "exp_avg_sq": shape}:
            raise BadInput(f"{name} has other moments, or of another shape", path)
    for name, held in state.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {what: value.to(parameter.device) for what, value in held.items()}
