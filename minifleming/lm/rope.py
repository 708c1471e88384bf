"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864) and the scalings that our model
families use.

At each position, pair i of a head of width D is rotated by position · frequency_i, with frequency_i
= theta^(-2i/D) before scaling:

- ``llama3`` (Llama 3.1): long wavelengths are divided by the factor, short ones kept, with a linear
  blend between.
- ``yarn`` (Peng et al. 2023, arXiv:2309.00071): the same over the index of the pair; cos and sin
  are scaled by 0.1 · ln(factor) + 1.

The fp32 operations have the order of the common implementation: at position 30,000 one unit in the
last place of a frequency is an angle of 0.002, so two correct formulas would give two models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minifleming.run.errors import BadInput

OPTIONS = {  # of each kind of scaling, in addition to the factor: default values, "" if required
    "llama3": {"low_freq_factor": "", "high_freq_factor": ""},
    "yarn": {"beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": None, "truncate": True},
}


@dataclass(frozen=True)
class RopeScaling:
    kind: str
    factor: float
    original_positions: int  # the model's positions before scaling
    options: dict[str, float | bool | None] = field(default_factory=dict)

    @classmethod
    def read(cls, raw: dict, positions: int) -> RopeScaling | None:
        """From ``rope_scaling`` or ``rope_parameters``; None without scaling.

        Raises BadInput, KeyError.
        """
        kind = raw.get("rope_type", raw.get("type", "default"))
        if kind == "default":
            return None
        if kind not in OPTIONS or raw.get("mscale") or raw.get("mscale_all_dim"):
            raise BadInput(f"rotary scaling '{raw}' is not supported")
        options = {}
        for name, default in OPTIONS[kind].items():
            value = raw[name] if default == "" else raw.get(name)
            if value is None:
                value = default
            options[name] = value if value is None or name == "truncate" else float(value)
        original = int(raw.get("original_max_position_embeddings") or positions)
        return cls(kind, float(raw["factor"]), original, options)

    def to_json(self) -> dict:
        set_options = {name: value for name, value in self.options.items() if value is not None}
        return {"rope_type": self.kind, "factor": self.factor,
                "original_max_position_embeddings": self.original_positions} | set_options


def cos_sin(positions: Tensor, theta: float, D: int,
            scaling: RopeScaling | None) -> tuple[Tensor, Tensor]:
    """cos and sin of every pair's angle, in fp32. positions [...] -> [..., D/2] each"""
    frequency, factor = frequencies(theta, D, scaling, positions.device)
    angle = positions[..., None].float() * frequency
    return angle.cos() * factor, angle.sin() * factor


def frequencies(theta: float, D: int, scaling: RopeScaling | None,
                device: torch.device) -> tuple[Tensor, float]:
    """Radians per position of each pair, in fp32, and the factor of cos and sin. -> [D/2], float"""
    powers = theta ** (torch.arange(0, D, 2, dtype=torch.int64, device=device).float() / D)
    unscaled = 1.0 / powers
    if scaling is None:
        return unscaled, 1.0
    if scaling.kind == "llama3":
        return llama3_frequencies(unscaled, scaling), 1.0
    kept = 1 - yarn_ramp(theta, D, scaling).to(device)
    factor = scaling.options["attention_factor"]
    if factor is None:
        factor = 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
    return 1.0 / (scaling.factor * powers) * (1 - kept) + unscaled * kept, factor


def llama3_frequencies(unscaled: Tensor, scaling: RopeScaling) -> Tensor:
    low, high = scaling.options["low_freq_factor"], scaling.options["high_freq_factor"]
    wavelength = 2 * math.pi / unscaled
    is_long = wavelength > scaling.original_positions / low
    is_short = wavelength < scaling.original_positions / high
    blend = (scaling.original_positions / wavelength - low) / (high - low)
    scaled = torch.where(is_long, unscaled / scaling.factor, unscaled)
    blended = (1 - blend) * scaled / scaling.factor + blend * scaled
    return torch.where(is_long | is_short, scaled, blended)


def yarn_ramp(theta: float, D: int, scaling: RopeScaling) -> Tensor:
    """0 for pairs that rotate fast, 1 for those that rotate slowly. -> [D/2]"""

    def pair_with(rotations: float) -> float:
        """The index of the pair that makes this many rotations over the original positions."""
        ratio = scaling.original_positions / (rotations * 2 * math.pi)
        return D * math.log(ratio) / (2 * math.log(theta))

    options = scaling.options
    low, high = pair_with(options["beta_fast"]), pair_with(options["beta_slow"])
    if options["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, D - 1)
    width = high - low or 0.001
    return ((torch.arange(D // 2, dtype=torch.float32) - low) / width).clamp(0, 1)
