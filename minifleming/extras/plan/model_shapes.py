"""Shapes of the models in the recipes, so that a run is planned before anything is downloaded.

They are those of the published config.json; a folder's own config.json has precedence.
"""

from __future__ import annotations

from pathlib import Path

from minifleming.lm.config import ModelConfig
from minifleming.lm.weights import TINY
from minifleming.run.errors import BadInput

# name: family, vocabulary, C, I, layers, H, K, D, eps, theta, tied embeddings, positions
KNOWN = {
    "SmolLM2-135M-Instruct": ("llama", 49152, 576, 1536, 30, 9, 3, 64, 1e-5, 1e5, True, 8192),
    "Qwen2.5-0.5B-Instruct": ("qwen2", 151936, 896, 4864, 24, 14, 2, 64, 1e-6, 1e6, True, 32768),
    "Qwen2.5-7B-Instruct": ("qwen2", 152064, 3584, 18944, 28, 28, 4, 128, 1e-6, 1e6, False, 32768),
    "Qwen3-32B": ("qwen3", 151936, 5120, 25600, 64, 64, 8, 128, 1e-6, 1e6, False, 40960),
}


def shape_of(base: str) -> ModelConfig:
    """The configuration of a folder, or of a known model that is not there. Raises BadInput."""
    folder = TINY if base == "tiny" else Path(base)
    if (folder / "config.json").exists():
        return ModelConfig.read(folder / "config.json")
    if folder.name not in KNOWN:
        known = ", ".join(KNOWN)
        raise BadInput(f"no config.json; without one only these are known: {known}", folder)
    return ModelConfig(*KNOWN[folder.name])
