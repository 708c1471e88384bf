"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864) and the scalings that our model
families use.

At each position, pair i of a head of width D is rotated by position · frequency_i. Before scaling,
frequency_i = theta^(-2i/D).

- ``llama3`` (Llama 3.1): long wavelengths are divided by the factor, short ones kept, with a linear
  blend between.
- ``yarn`` (Peng et al. 2023, arXiv:2309.00071): the same over the index of the pair; cos and sin
  are scaled by 0.1 · ln(factor) + 1.

The fp32 operations have the order of the common implementation: at position 30,000 one unit in the
last place of a frequency is an angle of 0.002, so two correct formulas would give two models.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from minifleming.run.errors import BadInput

OPTIONS = {  # of each kind of scaling, in addition to the factor: default values, "" if required
    "llama3": {"low_freq_factor": "", "high_freq_factor": ""},
    "yarn": {"beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": None, "truncate": True},
}


def read_scaling(raw: dict, positions: int) -> dict | None:
    """``rope_scaling`` or ``rope_parameters`` of a config.json, with default values.

    None without scaling. ``positions`` are those before it. Raises BadInput, KeyError.
    """
    kind = raw.get("rope_type", raw.get("type", "default"))
    if kind == "default":
        return None
    if kind not in OPTIONS or raw.get("mscale") or raw.get("mscale_all_dim"):
        raise BadInput(f"rotary scaling '{raw}' is not supported")
    positions = int(raw.get("original_max_position_embeddings") or positions)
    scaling = {"rope_type": kind, "factor": float(raw["factor"]),
               "original_max_position_embeddings": positions}
    for name, default in OPTIONS[kind].items():
        value = raw[name] if default == "" else raw.get(name)
        if value is None:
            value = default
        if value is not None:
            scaling[name] = value if name == "truncate" else float(value)
    return scaling


def cos_sin(positions: Tensor, theta: float, D: int,
            scaling: dict | None) -> tuple[Tensor, Tensor]:
    """cos and sin of every pair's angle, in fp32. positions [...] -> [..., D/2] each"""
    frequency, factor = frequencies(theta, D, scaling, positions.device)
    angle = positions[..., None].float() * frequency
    return angle.cos() * factor, angle.sin() * factor


def frequencies(theta: float, D: int, scaling: dict | None,
                device: torch.device) -> tuple[Tensor, float]:
    """Radians per position of each pair, in fp32, and the factor of cos and sin. -> [D/2], float"""
    powers = theta ** (torch.arange(0, D, 2, dtype=torch.int64, device=device).float() / D)
    unscaled = 1.0 / powers
    if scaling is None:
        return unscaled, 1.0
    if scaling["rope_type"] == "llama3":
        return llama3_frequencies(unscaled, scaling), 1.0
    kept = 1 - yarn_ramp(theta, D, scaling).to(device)
    scale = scaling["factor"]
    default = 0.1 * math.log(scale) + 1.0 if scale > 1 else 1.0
    factor = scaling.get("attention_factor", default)
    return 1.0 / (scale * powers) * (1 - kept) + unscaled * kept, factor


def llama3_frequencies(unscaled: Tensor, scaling: dict) -> Tensor:
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    positions, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    wavelength = 2 * math.pi / unscaled
    is_long = wavelength > positions / low
    is_short = wavelength < positions / high
    blend = (positions / wavelength - low) / (high - low)
    scaled = torch.where(is_long, unscaled / factor, unscaled)
    blended = (1 - blend) * scaled / factor + blend * scaled
    return torch.where(is_long | is_short, scaled, blended)


def yarn_ramp(theta: float, D: int, scaling: dict) -> Tensor:
    """0 for pairs that rotate fast, 1 for those that rotate slowly. -> [D/2]"""

    def pair_with(rotations: float) -> float:
        """The index of the pair that makes this many rotations over the original positions."""
        ratio = scaling["original_max_position_embeddings"] / (rotations * 2 * math.pi)
        return D * math.log(ratio) / (2 * math.log(theta))

    low, high = pair_with(scaling["beta_fast"]), pair_with(scaling["beta_slow"])
    if scaling["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, D - 1)
    width = high - low or 0.001
    return ((torch.arange(D // 2, dtype=torch.float32) - low) / width).clamp(0, 1)
