"""[5/10] The decoder: one transformer for the Qwen2, Qwen2.5, Qwen3 and Llama families.

    embedding -> blocks -> RMSNorm -> head
    block     =  x + attention(RMSNorm(x)), then x + MLP(RMSNorm(x))

Modules and parameters have the names of the Hugging Face layout. On a GPU the operations imported
from ``kernels`` are fused Triton kernels; elsewhere they are plain PyTorch, written out in
kernels/reference.py.

An ``AttentionBackend`` decides what a token attends to: right-padded rows here, the sampler's
key/value cache (kv_cache.py), or the documents of a packed row (pack.py).

B batch, T tokens, C width, H query heads, K key/value heads, D head width, V vocabulary,
M output positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minifleming.kernels.head import TokenLoss, linear_logprobs, linear_policy_loss
from minifleming.kernels.norm import add_rms_norm, rms_norm
from minifleming.kernels.rotary import rotary_qk
from minifleming.kernels.swiglu import swiglu
from minifleming.lm.config import ARCHITECTURES, ModelConfig
from minifleming.lm.rope import cos_sin


class AttentionBackend:
    """Each token attends to itself and to earlier tokens of its row. Subclasses replace that."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, H, T, D]; k, v [B, K, T, D] of the new tokens -> [B, H, T, D]"""
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All keys and values [B, K, L, D], and how many of them each new token sees, [B, T]."""
        B, _, T, _ = k.shape
        return k, v, torch.arange(1, T + 1, device=k.device).expand(B, T)


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    """Projections of grouped-query attention: H query heads share K key/value heads."""

    def __init__(self, c: ModelConfig):
        super().__init__()
        architecture = ARCHITECTURES[c.model_type]
        bias, has_norm = architecture["qkv_bias"], architecture["qk_norm"]
        H, K, self.D = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.q_proj = nn.Linear(c.hidden_size, H * self.D, bias=bias)
        self.k_proj = nn.Linear(c.hidden_size, K * self.D, bias=bias)
        self.v_proj = nn.Linear(c.hidden_size, K * self.D, bias=bias)
        self.o_proj = nn.Linear(H * self.D, c.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.D, c.rms_norm_eps) if has_norm else nn.Identity()
        self.k_norm = RMSNorm(self.D, c.rms_norm_eps) if has_norm else nn.Identity()

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [..., C] -> q [..., H, D], k and v [..., K, D], before the rotary embedding."""
        x = to_matmul_dtype(x)
        q = self.q_proj(x).unflatten(-1, (-1, self.D))
        k = self.k_proj(x).unflatten(-1, (-1, self.D))
        v = self.v_proj(x).unflatten(-1, (-1, self.D))
        # norms with fp32 weights return fp32
        return self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v


class MLP(nn.Module):
    def __init__(self, c: ModelConfig):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = to_matmul_dtype(x)
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class Block(nn.Module):
    def __init__(self, c: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.self_attn = Attention(c)
        self.mlp = MLP(c)
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], attention: AttentionBackend,
                output_positions: Tensor | None = None) -> Tensor:
        """x [B, T, C], rope [B·T, D] twice -> [B, T, C], or [M, C] at ``output_positions``."""
        B, T = x.shape[:2]
        q, k, v = self.pre_attention(x)
        q, k = rotary_qk(q.flatten(0, 1), k.flatten(0, 1), *rope)
        q = q.view(B, T, *q.shape[1:]).transpose(1, 2)  # [B, H, T, D]
        k = k.view(B, T, *k.shape[1:]).transpose(1, 2)
        y = attention.attend(self.layer, q, k, v.transpose(1, 2))
        y = y.transpose(1, 2).flatten(2)  # [B, T, H·D]
        if output_positions is not None:
            x = gather_rows(x.flatten(0, 1), output_positions)
            y = gather_rows(y.flatten(0, 1), output_positions)
        return self.post_attention(x, y)

    def pre_attention(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.self_attn.project(self.input_layernorm(x))

    def post_attention(self, x: Tensor, y: Tensor) -> Tensor:
        norm = self.post_attention_layernorm
        h, x = add_rms_norm(self.self_attn.o_proj(y), x, norm.weight, norm.eps)
        return x + self.mlp(h)


class Decoder(nn.Module):
    """Everything below the head: the parameters under ``model.`` in the Hugging Face layout."""

    def __init__(self, c: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Block(c, i) for i in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class LanguageModel(nn.Module):
    """The decoder and its head. Three attributes are set from outside; they change only rounding.

    compute_dtype    dtype of matrix products and hidden states, if it is not that of the weights
    sharded          the weights are spread over the ranks (fsdp.py)
    batch_invariant  a token's values have the same bits in any batch (batch_invariant.py)
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        self.sharded = False
        self.batch_invariant = False
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie_weights()

    def forward(self, ids: Tensor, positions: Tensor | None = None,
                attention: AttentionBackend | None = None,
                output_positions: Tensor | None = None) -> Tensor:
        """Hidden states after the last norm. ids and positions (default 0..T-1) [B, T] -> [B, T, C]

        Rows are right-padded. Attention is causal, so padding cannot reach a row's tokens and needs
        no mask; callers ignore the outputs there. ``output_positions`` [M] restricts the last
        block's MLP to these flattened positions, in [0, B·T); only their states are returned,
        [M, C].
        """
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        attention = attention or AttentionBackend()
        rope = self.rope(positions.reshape(-1, 1))
        x = self.model.embed_tokens(ids)
        *lower_blocks, last_block = self.model.layers
        for block in lower_blocks:
            x = block(x, rope, attention)
        x = last_block(x, rope, attention, output_positions)
        return self.model.norm(x)

    def rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of the rotary angles, fp32, for both halves of a head. [N, 1] -> [N, D]"""
        c = self.config
        cos, sin = cos_sin(positions.flatten(), c.rope_theta, c.head_dim, c.rope_scaling)
        return torch.cat((cos, cos), dim=-1), torch.cat((sin, sin), dim=-1)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., C] -> [..., V]"""
        return self.lm_head(hidden)

    def logprobs(self, hidden: Tensor, ids: Tensor, temperature: float = 1.0) -> Tensor:
        """log π(ids | hidden), in chunks of the logits. hidden [M, C], ids [M] -> [M]"""
        hidden = hidden.to(self.compute_dtype or hidden.dtype)
        return linear_logprobs(hidden, self.lm_head.weight, ids, temperature)

    def fused_loss(self, hidden: Tensor, ids: Tensor, token_loss: TokenLoss,
                   temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """The loss, with a gradient, and log π(ids | hidden), without one. -> scalar, [M]"""
        hidden = hidden.to(self.compute_dtype or hidden.dtype)
        head = self.lm_head.weight
        return linear_policy_loss(hidden, head, ids, token_loss, temperature)[:2]

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Normal with deviation 0.02; projections into the residual stream are scaled by depth."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            std = 0.02
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std /= (2 * self.config.num_hidden_layers) ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)

    def tie_weights(self) -> LanguageModel:
        """Share one tensor between embedding and head, if the configuration says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        return self

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.compute_dtype if self.sharded else self.model.embed_tokens.weight.dtype


def to_matmul_dtype(x: Tensor) -> Tensor:
    """Cast once for several matrix products; autocast would cast and keep a copy for each."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """rows[index], with a gradient that is summed in the same order in every run.

    That holds for ``index_select`` on a CPU and for indexing on a GPU, but not the other way round.
    """
    return rows[index] if rows.is_cuda else rows.index_select(0, index)
