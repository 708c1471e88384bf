"""One decoder for the Qwen2/2.5, Qwen3 and Llama families, under the names of the Hugging Face layout.

B batch, T tokens, C width, H query heads, K key/value heads, D head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minifleming.kernels.norm import add_rms_norm, rms_norm
from minifleming.kernels.rotary import rotary_qk
from minifleming.kernels.swiglu import swiglu
from minifleming.lm import batch_invariant
from minifleming.lm.config import ARCHITECTURES, ModelConfig
from minifleming.lm.rope import cos_sin


class AttentionBackend(Protocol):
    """What attention may be given instead of the rows themselves: the cache of a rollout, or the segments of a pack."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, H, T, D]; k, v [B, K, T, D] of the new tokens -> [B, H, T, D]"""


def apply(f: Callable, *tensors: Tensor):
    """``f`` over all rows at once; its counterpart is ``fixed.in_blocks``."""
    return f(*tensors)


def to_matmul_dtype(x: Tensor) -> Tensor:
    """In the dtype of products, once: autocast would make a copy for each product, and each would be kept."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def gather_rows(rows: Tensor, at: Tensor) -> Tensor:
    """rows[at], whose gradient adds up in the same order every time: on a CPU that of ``index_select`` does, and that
    of indexing adds in the order in which the threads arrive; on a GPU it is the other way round."""
    return rows[at] if rows.is_cuda else rows.index_select(0, at)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, in_fixed_blocks: bool = False) -> Tensor:
    """Every token attends to itself and to what stands before it. q [B, H, T, D]; k, v [B, K, T, D]"""
    B, H, T, _ = q.shape
    if in_fixed_blocks:
        return batch_invariant.attention(q, k, v, torch.arange(1, T + 1, device=q.device).expand(B, T))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=H != k.shape[1])


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention: H query heads share K key/value heads."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        c, kind = config, ARCHITECTURES[config.model_type]
        self.D = c.head_dim
        H, K = c.num_attention_heads, c.num_key_value_heads
        self.q_proj = nn.Linear(c.hidden_size, H * self.D, bias=kind["qkv_bias"])
        self.k_proj = nn.Linear(c.hidden_size, K * self.D, bias=kind["qkv_bias"])
        self.v_proj = nn.Linear(c.hidden_size, K * self.D, bias=kind["qkv_bias"])
        self.o_proj = nn.Linear(H * self.D, c.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.D, c.rms_norm_eps) if kind["qk_norm"] else nn.Identity()
        self.k_norm = RMSNorm(self.D, c.rms_norm_eps) if kind["qk_norm"] else nn.Identity()

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[..., C] -> q [..., H, D], k and v [..., K, D], before rotary"""
        x = to_matmul_dtype(x)
        q, k, v = (proj(x).unflatten(-1, (-1, self.D)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        return self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v  # norms of fp32 weights widen 16 bits


class MLP(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = to_matmul_dtype(x)
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class Block(nn.Module):
    """Work on rows, attention between them, work on rows."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def pre_attention(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.self_attn.project(self.input_layernorm(x))

    def post_attention(self, x: Tensor, y: Tensor) -> Tensor:
        norm = self.post_attention_layernorm
        h, x = add_rms_norm(self.self_attn.o_proj(y), x, norm.weight, norm.eps)
        return x + self.mlp(h)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], cache: AttentionBackend | None, in_fixed_blocks: bool,
                output_positions: Tensor | None = None):
        """x [B, T, C], rope [B·T, D] twice -> [B, T, C]; with ``output_positions``, places in [0, B·T), what stands there [M, C]
        """
        by_rows = batch_invariant.in_fixed_blocks if in_fixed_blocks else apply
        B, T = x.shape[:2]
        q, k, v = by_rows(self.pre_attention, x)  # [B, T, heads, D]
        q, k = rotary_qk(q.flatten(0, 1), k.flatten(0, 1), *rope)
        q, k, v = (heads.view(B, T, -1, heads.shape[-1]).transpose(1, 2) for heads in (q, k, v))  # [B, heads, T, D]
        y = causal_attention(q, k, v, in_fixed_blocks) if cache is None else cache.attend(self.layer, q, k, v)
        y = y.transpose(1, 2).flatten(2)
        if output_positions is not None:
            x, y = (gather_rows(rows.flatten(0, 1), output_positions) for rows in (x, y))
        return by_rows(self.post_attention, x, y)


class Decoder(nn.Module):
    """Everything below the head; the parameter names are those of ``model.*`` in the Hugging Face layout."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class LanguageModel(nn.Module):
    """Four things are set from outside, and change no value beyond rounding (on a GPU the first two also change which
    sampler draws, so which tokens: lm/engines/cuda_graph.py):

    deterministic  True computes in operations of one shape (fixed.py): slower, equal bits in any batch
    sharded        the weights are spread over the ranks (shard.py)
    compute        dtype of products and hidden states, where it is not that of the weights
    place          the device that it computes on, where the weights rest elsewhere
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.deterministic, self.sharded = False, False
        self.compute_dtype: torch.dtype | None = None
        self.compute_device: torch.device | None = None
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie_weights()

    def forward(self, ids: Tensor, positions: Tensor | None = None, cache: AttentionBackend | None = None,
                output_positions: Tensor | None = None) -> Tensor:
        """Hidden states after the last norm. ids [B, T], positions [B, T] (default 0..T-1) -> [B, T, C].

        Attention is causal over right-padded rows: what stands behind a row's end cannot reach its tokens,
        so there is no mask, and callers ignore the outputs there. Who reads but some of the states says which: with
        ``output_positions``, places in [0, B·T), the last block computes these alone behind its attention. -> [M, C]
        """
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        x = self.model.embed_tokens(ids)
        rope = self.rope(positions)
        *below, last = self.model.layers
        for block in below:
            x = block(x, rope, cache, self.deterministic)
        x = last(x, rope, cache, self.deterministic, output_positions)
        return self.by_rows(self.model.norm, x)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., C] -> [..., V]"""
        return self.by_rows(self.lm_head, hidden)

    def by_rows(self, f: Callable, *tensors: Tensor):
        """``f`` over the rows of [..., C]: at once, or in the deterministic mode in blocks of one shape."""
        return (batch_invariant.in_fixed_blocks if self.deterministic else apply)(f, *tensors)

    def rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of every position's angles, for both halves of a head, in fp32. [B, T] -> [B·T, D] each"""
        c = self.config

        def angles(p: Tensor) -> tuple[Tensor, Tensor]:
            return cos_sin(p[..., 0], c.rope_theta, c.head_dim, c.rope_scaling)

        halves = self.by_rows(angles, positions.flatten()[:, None])
        cos, sin = (torch.cat((half, half), dim=-1) for half in halves)
        return cos, sin

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
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

    def tie_weights(self) -> LanguageModel:
        """One tensor for the table and the head, where the configuration says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        return self

    @property
    def device(self) -> torch.device:
        return self.compute_device or self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.compute_dtype if self.sharded else self.model.embed_tokens.weight.dtype
