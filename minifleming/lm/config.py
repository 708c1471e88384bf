"""The shape of a decoder: a table of model families, and the fields of ``config.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from minifleming.lm.rope import read_scaling
from minifleming.run.checkpoint import read_json
from minifleming.run.errors import BadInput

ARCHITECTURES = {
    "qwen2": {"qkv_bias": True, "qk_norm": False, "hf_class": "Qwen2ForCausalLM"},  # and Qwen2.5
    "qwen3": {"qkv_bias": False, "qk_norm": True, "hf_class": "Qwen3ForCausalLM"},  # dense models
    "llama": {"qkv_bias": False, "qk_norm": False, "hf_class": "LlamaForCausalLM"},  # and SmolLM2
}
REQUIRED_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                  "num_attention_heads")
SIZES = (*REQUIRED_SIZES, "num_key_value_heads", "head_dim", "max_position_embeddings")
MAX_SIZES = {"num_hidden_layers": 1024, "max_position_embeddings": 2**31}  # others: 2**24
HARMLESS = {  # values of keys whose other values ask for a computation that is not implemented
    "hidden_act": ("silu",),
    "use_sliding_window": (False,),
    "mlp_bias": (False,),
    "partial_rotary_factor": (1,),
    "pretraining_tp": (0, 1),
}


@dataclass(frozen=True)
class ModelConfig:
    """The fields of ``config.json`` that determine a decoder."""

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
    rope_scaling: dict | None = None

    def __post_init__(self):
        if self.model_type not in ARCHITECTURES:
            families = ", ".join(ARCHITECTURES)
            raise BadInput(f"model_type '{self.model_type}' is not one of {families}")
        for name in SIZES:
            value = getattr(self, name)
            most = MAX_SIZES.get(name, 2**24)
            if type(value) is not int or not 1 <= value <= most:
                raise BadInput(f"config.json: '{name}' must be a whole number from 1 to {most}")
        if self.head_dim % 2:
            raise BadInput("config.json: 'head_dim' must be even: rotary turns pairs")
        if self.num_attention_heads % self.num_key_value_heads:
            raise BadInput("config.json: num_attention_heads must be a multiple of "
                           "num_key_value_heads")

    @classmethod
    def read(cls, path: Path) -> ModelConfig:
        """From a ``config.json``. Raises BadInput."""
        return cls.from_json(read_json(path), path)

    @classmethod
    def from_json(cls, raw: dict, path: Path) -> ModelConfig:
        """From the content of a ``config.json``.

        Raises BadInput if a key is missing, mistyped or not supported.
        """
        try:
            return cls(**read_fields(raw))
        except BadInput as error:
            reason = str(error)
        except KeyError as error:
            reason = f"missing {error}"
        except (TypeError, ValueError, AttributeError, ZeroDivisionError, OverflowError):
            reason = "a value has the wrong type"
        raise BadInput(reason, path)

    def to_json(self, dtype: torch.dtype, end_ids: list[int]) -> str:
        """A ``config.json`` that transformers 4 and 5 both read."""
        rope = self.rope_scaling or {"rope_type": "default"}
        architecture = ARCHITECTURES[self.model_type]
        raw = vars(self) | {
            "architectures": [architecture["hf_class"]],
            "attention_bias": architecture["qkv_bias"],
            "rope_parameters": rope | {"rope_theta": self.rope_theta},
            "hidden_act": "silu",
            "torch_dtype": str(dtype).removeprefix("torch."),
            "eos_token_id": end_ids[0] if len(end_ids) == 1 else end_ids,
        }
        return json.dumps(raw, indent=2, sort_keys=True) + "\n"


def read_fields(raw: dict) -> dict:
    """The fields of a ``ModelConfig``."""
    # "rope_parameters" is of transformers 5, "rope_scaling" of transformers 4
    rope = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    check_supported(raw | rope)
    sizes = {name: raw[name] for name in REQUIRED_SIZES}
    heads = sizes["num_attention_heads"]
    positions = raw.get("max_position_embeddings", 32768)
    original_positions = raw.get("original_max_position_embeddings") or positions
    return sizes | {
        "model_type": raw["model_type"],
        "num_key_value_heads": raw.get("num_key_value_heads") or heads,
        "head_dim": raw.get("head_dim") or sizes["hidden_size"] // heads,
        "rms_norm_eps": float(raw["rms_norm_eps"]),
        "rope_theta": float(rope.get("rope_theta") or raw.get("rope_theta") or 10000.0),
        "tie_word_embeddings": bool(raw.get("tie_word_embeddings", False)),
        "max_position_embeddings": positions,
        "rope_scaling": read_scaling(rope, original_positions),
    }


def check_supported(raw: dict) -> None:
    """Raises BadInput for a key whose value asks for another computation."""
    faults = [key for key, values in HARMLESS.items() if raw.get(key) not in (None, *values)]
    if raw["model_type"] != "qwen2" and raw.get("attention_bias"):
        faults.append("attention_bias")
    if set(raw.get("layer_types") or ()) - {"full_attention"}:
        faults.append("layer_types")
    for key in faults:
        raise BadInput(f"'{key}': {json.dumps(raw[key])} is not supported")
