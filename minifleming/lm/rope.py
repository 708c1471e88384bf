"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864) and the scalings that the configs of our families use.

Pair i of a head of width D turns by position · frequency_i, with frequency_i = theta^(-2i/D) before scaling:

- ``linear`` (Chen et al. 2023): every frequency divided by the factor;
- ``llama3`` (Llama 3.1): long wavelengths divided by the factor, short ones kept, a linear blend between;
- ``yarn`` (Peng et al. 2023, arXiv:2309.00071): the same idea over the pairs' index, and cos and sin scaled by
  0.1 · ln(factor) + 1.

The order of the fp32 operations is that of the field's common implementation: at position 30,000 one unit in the
last place of a frequency is an angle of 0.002, so two right formulas would give two models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from minifleming.run.errors import BadInput

DEFAULTS = {  # kind: its keys beside the factor, with their defaults; ... must be given
    "linear": {},
    "llama3": {"low_freq_factor": ..., "high_freq_factor": ...},
    "yarn": {"beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": None, "truncate": True},
}


@dataclass(frozen=True)
class RopeScaling:
    """One scaling: its kind, factor, the positions it was trained with before, and the keys of its kind."""

    kind: str
    factor: float
    original: int
    options: tuple[tuple[str, float | bool | None], ...] = ()

    @classmethod
    def read(cls, raw: dict, positions: int) -> RopeScaling | None:
        """From ``rope_scaling`` or ``rope_parameters``; None where there is none. Raises BadInput or KeyError."""
        kind = raw.get("rope_type", raw.get("type", "default"))
        if raw.get("partial_rotary_factor", 1) != 1:
            raise BadInput("rotary on a part of the head ('partial_rotary_factor') is not supported")
        if kind == "default":
            return None
        if kind not in DEFAULTS or raw.get("mscale") or raw.get("mscale_all_dim"):
            raise BadInput(f"rotary scaling '{raw}' is not supported")
        options = {}
        for name, default in DEFAULTS[kind].items():
            value = raw[name] if default is ... else raw.get(name)
            options[name] = default if value is None else value if name == "truncate" else float(value)
        original = int(raw.get("original_max_position_embeddings") or positions)
        return cls(kind, float(raw["factor"]), original, tuple(options.items()))

    def to_json(self) -> dict:
        given = {name: value for name, value in self.options if value is not None}
        common = {"rope_type": self.kind, "factor": self.factor, "original_max_position_embeddings": self.original}
        return common | given


def frequencies(theta: float, D: int, scaling: RopeScaling | None, device: torch.device) -> tuple[Tensor, float]:
    """Radians a position for each pair, in fp32, and the factor on cos and sin. -> [D/2], float"""
    powers = theta ** (torch.arange(0, D, 2, dtype=torch.int64, device=device).float() / D)
    plain = 1.0 / powers
    if scaling is None:
        return plain, 1.0
    if scaling.kind == "linear":
        return plain / scaling.factor, 1.0
    options = dict(scaling.options)
    if scaling.kind == "llama3":
        return _llama3(plain, scaling, options["low_freq_factor"], options["high_freq_factor"]), 1.0
    ramp = _yarn_ramp(theta, D, scaling, options).to(device)  # 0 where a pair turns fast, 1 where it turns slowly
    kept = 1 - ramp
    attention = options["attention_factor"]
    if attention is None:
        attention = 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
    return 1.0 / (scaling.factor * powers) * (1 - kept) + plain * kept, attention


def _llama3(plain: Tensor, scaling: RopeScaling, low: float, high: float) -> Tensor:
    wavelength = 2 * math.pi / plain
    slow, fast = wavelength > scaling.original / low, wavelength < scaling.original / high
    blend = (scaling.original / wavelength - low) / (high - low)
    scaled = torch.where(slow, plain / scaling.factor, plain)
    return torch.where(slow | fast, scaled, (1 - blend) * scaled / scaling.factor + blend * scaled)


def _yarn_ramp(theta: float, D: int, scaling: RopeScaling, options: dict) -> Tensor:
    def pair(turns: float) -> float:
        """The index of the pair that turns this often over the original positions."""
        return D * math.log(scaling.original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair(options["beta_fast"]), pair(options["beta_slow"])
    if options["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, D - 1)
    width = high - low or 0.001
    return ((torch.arange(D // 2, dtype=torch.float32) - low) / width).clamp(0, 1)


def cos_sin(positions: Tensor, theta: float, D: int, scaling: RopeScaling | None) -> tuple[Tensor, Tensor]:
    """cos and sin of every pair's angle, in fp32. positions [...] -> [..., D/2] each"""
    frequency, factor = frequencies(theta, D, scaling, positions.device)
    angle = positions[..., None].float() * frequency
    return angle.cos() * factor, angle.sin() * factor
