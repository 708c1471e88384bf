"""One decoder for the Qwen2/2.5, Qwen3 and Llama families, under the names of the Hugging Face layout.

B batch, T tokens, C width, H query heads, K key/value heads, D head width, V vocabulary.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minifleming.kernels.reference import rms_norm, rotary, swiglu
from minifleming.lm.cache import Cache
from minifleming.lm.prefix import Prefix
from minifleming.run.checkpoint import read_json
from minifleming.run.errors import BadInput

# model_type:      bias on q, k, v      norm on q and k     class that transformers loads
ARCHITECTURES = {
    "qwen2": dict(qkv_bias=True, qk_norm=False, hf_class="Qwen2ForCausalLM"),
    "qwen3": dict(qkv_bias=False, qk_norm=True, hf_class="Qwen3ForCausalLM"),
    "llama": dict(qkv_bias=False, qk_norm=False, hf_class="LlamaForCausalLM"),
}


@dataclass(frozen=True)
class ModelConfig:
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

    def __post_init__(self):
        if self.model_type not in ARCHITECTURES:
            raise BadInput(f"model_type '{self.model_type}' is not one of {', '.join(ARCHITECTURES)}")
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                     "num_attention_heads", "num_key_value_heads", "head_dim"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise BadInput(f"config.json: '{name}' must be a positive whole number")
        if self.head_dim % 2:
            raise BadInput("config.json: 'head_dim' must be even: rotary turns pairs")
        if self.num_attention_heads % self.num_key_value_heads:
            raise BadInput("config.json: num_attention_heads must be a multiple of num_key_value_heads")

    @classmethod
    def read(cls, path: Path) -> ModelConfig:
        """From a ``config.json``, with ``rope_theta`` at the top (transformers 4) or in ``rope_parameters`` (5)."""
        raw = read_json(path)
        if not isinstance(raw, dict):
            raise BadInput("not a JSON object", path)
        try:
            rope = raw.get("rope_parameters") or {}
            scaling = raw.get("rope_scaling") or rope
            if scaling.get("rope_type", scaling.get("type", "default")) != "default":
                raise BadInput(f"rotary scaling '{scaling}' is not supported", path)
            if raw.get("hidden_act", "silu") != "silu" or raw.get("use_sliding_window"):
                raise BadInput("a hidden_act other than silu, and sliding windows, are not supported", path)
            heads = raw["num_attention_heads"]
            return cls(
                **{name: raw[name] for name in ("model_type", "vocab_size", "hidden_size", "intermediate_size",
                                                "num_hidden_layers")},
                rms_norm_eps=float(raw["rms_norm_eps"]),
                num_attention_heads=heads,
                num_key_value_heads=raw.get("num_key_value_heads") or heads,
                head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
                rope_theta=float(raw.get("rope_theta") or rope.get("rope_theta") or 10000.0),
                tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
                max_position_embeddings=raw.get("max_position_embeddings", 32768),
            )
        except KeyError as error:
            raise BadInput(f"missing {error}", path) from None
        except (TypeError, ValueError, AttributeError, ZeroDivisionError):
            raise BadInput("a value has the wrong type", path) from None

    def to_json(self, dtype: torch.dtype, eos: list[int]) -> str:
        """A ``config.json`` that transformers 4 and 5 both read."""
        raw = {name: value for name, value in vars(self).items()}
        raw |= {
            "architectures": [ARCHITECTURES[self.model_type]["hf_class"]],
            "attention_bias": ARCHITECTURES[self.model_type]["qkv_bias"],
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "hidden_act": "silu",
            "torch_dtype": str(dtype).removeprefix("torch."),
            "eos_token_id": eos[0] if len(eos) == 1 else eos,
            "use_cache": True,
        }
        return json.dumps(raw, indent=2, sort_keys=True) + "\n"


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention: H query heads share K key/value heads."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        c, kind = config, ARCHITECTURES[config.model_type]
        self.layer, self.H, self.K, self.D = layer, c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.q_proj = nn.Linear(c.hidden_size, self.H * self.D, bias=kind["qkv_bias"])
        self.k_proj = nn.Linear(c.hidden_size, self.K * self.D, bias=kind["qkv_bias"])
        self.v_proj = nn.Linear(c.hidden_size, self.K * self.D, bias=kind["qkv_bias"])
        self.o_proj = nn.Linear(self.H * self.D, c.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.D, c.rms_norm_eps) if kind["qk_norm"] else nn.Identity()
        self.k_norm = RMSNorm(self.D, c.rms_norm_eps) if kind["qk_norm"] else nn.Identity()

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], cache: Cache | Prefix | None) -> Tensor:
        B, T, _ = x.shape
        q = rotary(self.q_norm(self.q_proj(x).view(B, T, self.H, self.D)).transpose(1, 2), *rope)  # [B, H, T, D]
        k = rotary(self.k_norm(self.k_proj(x).view(B, T, self.K, self.D)).transpose(1, 2), *rope)  # [B, K, T, D]
        v = self.v_proj(x).view(B, T, self.K, self.D).transpose(1, 2)
        if cache is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.H != self.K)
        else:
            y = cache.attend(self.layer, q, k, v)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, self.H * self.D))


class MLP(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], cache: Cache | Prefix | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Everything below the head; the parameter names are those of ``model.*`` in the Hugging Face layout."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class LanguageModel(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, ids: Tensor, positions: Tensor | None = None, cache: Cache | Prefix | None = None) -> Tensor:
        """Hidden states after the last norm. ids [B, T], positions [B, T] (default 0..T-1) -> [B, T, C].

        Attention is causal over right-padded rows: what stands behind a row's end cannot reach its tokens,
        so there is no mask, and callers ignore the outputs there.
        """
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        x = self.model.embed_tokens(ids)
        rope = self.rope(positions, x.dtype)
        for block in self.model.layers:
            x = block(x, rope, cache)
        return self.model.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., C] -> [..., V]"""
        return self.lm_head(hidden)

    def rope(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin of position · theta^(-2i/D), in fp32, for both halves of a head. [B, 1, T, D] each."""
        D = self.config.head_dim
        frequency = self.config.rope_theta ** (-torch.arange(0, D, 2, device=positions.device).float() / D)
        angle = positions[..., None].float() * frequency  # [B, T, D/2]
        angle = torch.cat((angle, angle), dim=-1).unsqueeze(1)
        return angle.cos().to(dtype), angle.sin().to(dtype)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Normal with deviation 0.02, the two projections back into the residual stream scaled by depth."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            deviation = 0.02
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                deviation /= (2 * self.config.num_hidden_layers) ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device
