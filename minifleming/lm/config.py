"""What a decoder is made of: a table of families, and one configuration read from ``config.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from minifleming.lm.rope import RopeScaling
from minifleming.run.checkpoint import read_json
from minifleming.run.errors import BadInput

# model_type   bias on q, k, v   norm on q and k   class that transformers loads        models
ARCHITECTURES = {
    "qwen2": dict(qkv_bias=True, qk_norm=False, hf_class="Qwen2ForCausalLM"),   # Qwen2, Qwen2.5
    "qwen3": dict(qkv_bias=False, qk_norm=True, hf_class="Qwen3ForCausalLM"),   # Qwen3 (dense)
    "llama": dict(qkv_bias=False, qk_norm=False, hf_class="LlamaForCausalLM"),  # Llama 2, 3; SmolLM2
}
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
         "num_key_value_heads", "head_dim", "max_position_embeddings")
MOST = {"num_hidden_layers": 1024, "max_position_embeddings": 2**31}  # and 2**24 of the others: no model has more
# What would change the computation and is not built: key, the values that change nothing, what to call it.
UNSUPPORTED = (
    ("hidden_act", ("silu",), "an activation other than silu"),
    ("use_sliding_window", (False,), "sliding windows"),
    ("mlp_bias", (False,), "a bias in the MLP"),
    ("partial_rotary_factor", (1, 1.0), "rotary on a part of the head"),
    ("pretraining_tp", (0, 1), "split pre-training products"),
)


@dataclass(frozen=True)
class ModelConfig:
    """The fields of ``config.json`` that a decoder needs, under their names there."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool
    max_position_embeddings: int = 32768
    rope_scaling: RopeScaling | None = None

    def __post_init__(self):
        if self.model_type not in ARCHITECTURES:
            raise BadInput(f"model_type '{self.model_type}' is not one of {', '.join(ARCHITECTURES)}")
        for name in SIZES:
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise BadInput(f"config.json: '{name}' must be a positive whole number")
            if getattr(self, name) > MOST.get(name, 2**24):
                raise BadInput(f"config.json: '{name}' is {getattr(self, name)}, more than {MOST.get(name, 2**24)}")
        if self.head_dim % 2:
            raise BadInput("config.json: 'head_dim' must be even: rotary turns pairs")
        if self.num_attention_heads % self.num_key_value_heads:
            raise BadInput("config.json: num_attention_heads must be a multiple of num_key_value_heads")

    @classmethod
    def read(cls, path: Path) -> ModelConfig:
        """From a ``config.json``: ``rope_theta`` and ``rope_scaling`` at the top (transformers 4), or in
        ``rope_parameters`` (5). Raises BadInput for what is missing, of a wrong type, or not built here."""
        raw = read_json(path)
        if not isinstance(raw, dict):
            raise BadInput("not a JSON object", path)
        try:
            return cls._from(raw)
        except BadInput as error:
            raise BadInput(str(error), path) from None
        except KeyError as error:
            raise BadInput(f"missing {error}", path) from None
        except (TypeError, ValueError, AttributeError, ZeroDivisionError, OverflowError):
            raise BadInput("a value has the wrong type", path) from None

    @classmethod
    def _from(cls, raw: dict) -> ModelConfig:
        for key, harmless, words in UNSUPPORTED:
            if raw.get(key) is not None and raw[key] not in harmless:
                raise BadInput(f"{words} ('{key}': {json.dumps(raw[key])}) is not supported")
        if raw["model_type"] != "qwen2" and raw.get("attention_bias"):
            raise BadInput("a bias on every attention projection ('attention_bias') is not supported")
        if any(kind != "full_attention" for kind in raw.get("layer_types") or ()):
            raise BadInput(f"layers other than full attention ('layer_types': {raw['layer_types']}) are not supported")
        rope = dict(raw.get("rope_parameters") or {}) or dict(raw.get("rope_scaling") or {})
        heads, positions = raw["num_attention_heads"], raw.get("max_position_embeddings", 32768)
        return cls(
            **{name: raw[name] for name in ("model_type", *SIZES[:5])},
            rms_norm_eps=float(raw["rms_norm_eps"]),
            num_key_value_heads=raw.get("num_key_value_heads") or heads,
            head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
            rope_theta=float(rope.get("rope_theta") or raw.get("rope_theta") or 10000.0),
            tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
            max_position_embeddings=positions,
            rope_scaling=RopeScaling.read(rope, raw.get("original_max_position_embeddings") or positions),
        )

    def to_json(self, dtype: torch.dtype, eos: list[int]) -> str:
        """A ``config.json`` that transformers 4 and 5 both read."""
        scaling = self.rope_scaling.to_json() if self.rope_scaling else None
        raw = {name: value for name, value in vars(self).items()}
        raw |= {
            "architectures": [ARCHITECTURES[self.model_type]["hf_class"]],
            "attention_bias": ARCHITECTURES[self.model_type]["qkv_bias"],
            "rope_scaling": scaling,
            "rope_parameters": (scaling or {"rope_type": "default"}) | {"rope_theta": self.rope_theta},
            "hidden_act": "silu",
            "torch_dtype": str(dtype).removeprefix("torch."),
            "eos_token_id": eos[0] if len(eos) == 1 else eos,
            "use_cache": True,
        }
        return json.dumps(raw, indent=2, sort_keys=True) + "\n"
