"""The model that a run trains: in which precision it computes, and whether the ranks share its weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from minifleming.lm.fsdp import apply_fsdp
from minifleming.lm.model import LanguageModel
from minifleming.lm.weights import DTYPES, load_model
from minifleming.run.fields import Config


def compute_dtype_of(cfg: Config, device: torch.device) -> torch.dtype:
    """dtype of products in training and rollouts. auto: bfloat16 on a GPU, unless the run is deterministic."""
    if cfg.model.compute_dtype != "auto":
        return DTYPES[cfg.model.compute_dtype]
    return torch.bfloat16 if device.type == "cuda" and not cfg.run.deterministic else torch.float32


def load_for_training(folder: Path, cfg: Config, device: torch.device) -> LanguageModel:
    """fp32 weights, whole or this rank's share of them (``run.fsdp_size``), computing as ``compute_of`` says."""
    compute, spread = compute_dtype_of(cfg, device), None
    if cfg.run.fsdp_size != 1:
        spread = partial(apply_fsdp, size=cfg.run.fsdp_size, compute_dtype=compute, device=device, offload=cfg.run.offload)
    home = torch.device("cpu") if spread and cfg.run.offload else device
    model = load_model(folder, cfg.model.dtype, home, cfg.run.deterministic, spread)
    model.compute_dtype = compute
    return model


def load_for_inference(folder: Path, cfg: Config, device: torch.device) -> LanguageModel:
    """The whole model on this rank, in the precision that it was trained to answer in."""
    exact = cfg.model.dtype == "float32" and compute_dtype_of(cfg, device) == torch.float32
    return load_model(folder, "float32" if exact else "bfloat16", device, cfg.run.deterministic)
