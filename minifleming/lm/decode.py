"""One decode step: the newest token of every row through all layers, with nothing done twice.

The same arithmetic as ``LanguageModel.forward`` with a cache, written for one token a row:

- states stand in columns, [C, n]: a product W @ x of few columns was faster than x @ W^T of few rows on the CPU where
  this was measured, and gate and up come out as two contiguous halves;
- the weights of q, k and v (and of gate and up) stand side by side in one storage, so a layer has four products
  instead of seven; they are the model's own parameters (``side_by_side``), not copies;
- a residual is added by the product that makes it, and the scale of the scores is in the table of angles.

n rows, C width, H query heads, K key/value heads, D head width, I intermediate width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minifleming.lm.cache import Cache
from minifleming.lm.model import Block, LanguageModel, RMSNorm
from minifleming.lm.rope import cos_sin


@dataclass(slots=True)
class Layer:
    """The weights of one block, as a decode step multiplies by them."""

    norm: Tensor  # [C, 1], times √C: see ``rms_norm``
    qkv: Tensor  # [(H + 2K) · D, C]
    bias: Tensor  # [(H + 2K) · D, 1]; zeros where the family has none
    qk_norm: tuple[Tensor, Tensor] | None  # [D, 1] twice, times √D
    out: Tensor  # [C, H · D]
    mlp_norm: Tensor  # [C, 1], times √C
    gate_up: Tensor  # [2 · I, C]
    down: Tensor  # [C, I]


class Decode:
    def __init__(self, model: LanguageModel, longest: int):
        """``longest``: positions that a sequence can reach."""
        self.model = model
        if model.deterministic or model.sharded:  # through the model's own forward, which gathers its weights
            return
        self.layers = [layer_weights(block) for block in model.model.layers]
        self.embedding, self.norm = model.model.embed_tokens.weight, column(model.model.norm)
        c, device, dtype = model.config, model.device, self.embedding.dtype
        cos, sin = cos_sin(torch.arange(longest, device=device), c.rope_theta, c.head_dim, c.rope_scaling)
        self.cos, self.sin = cos.t().to(dtype), torch.stack((-sin.t(), sin.t())).to(dtype)  # [(2,) D/2, longest]
        self.scale = torch.tensor([c.head_dim**-0.5] * c.num_attention_heads + [1.0] * c.num_key_value_heads,
                                  dtype=dtype, device=device).view(-1, 1, 1, 1)  # queries are scaled, keys are not

    def step(self, ids: Tensor, cache: Cache) -> Tensor:
        """ids [n], one token for each active row -> hidden states after the last norm [n, C]"""
        if self.model.deterministic or self.model.sharded:
            return self.plain_step(ids, cache)
        c = self.model.config
        n, H, K, D, eps = len(cache), c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.rms_norm_eps
        positions = cache.begin_step()
        cos = self.cos.index_select(-1, positions) * self.scale  # [H + K, 1, D/2, n]
        sin = self.sin.index_select(-1, positions) * self.scale  # [H + K, 2, D/2, n]
        x = F.embedding(ids, self.embedding).t().contiguous()
        for i, layer in enumerate(self.layers):
            heads = torch.addmm(layer.bias, layer.qkv, rms_norm(x, layer.norm, eps)).view(H + 2 * K, D, n)
            qk = heads[: H + K]
            if layer.qk_norm:
                qk = torch.cat([rms_norm(h, w, eps) for h, w in zip((qk[:H], qk[H:]), layer.qk_norm)])
            qk = qk.view(H + K, 2, D // 2, n)
            turned = torch.addcmul(qk * cos, qk.flip(1), sin).view(H + K, D, n).permute(2, 0, 1)  # [n, H + K, D]
            cache.write(i, turned[:, H:], heads[H + K :].permute(2, 0, 1))
            y = cache.read(i, turned[:, :H].reshape(n * K, H // K, D)).view(n, H * D)
            x = torch.addmm(x, layer.out, y.t())
            gate, up = torch.mm(layer.gate_up, rms_norm(x, layer.mlp_norm, eps)).chunk(2)
            x = torch.addmm(x, layer.down, F.silu(gate, inplace=True).mul_(up))
        cache.end_step()
        return rms_norm(x, self.norm, eps).t()

    def plain_step(self, ids: Tensor, cache: Cache) -> Tensor:
        """The same through the model's own forward: the law of ``step``, and the deterministic mode."""
        positions = cache.begin_step()
        hidden = self.model(ids[:, None], positions[:, None], cache)[:, 0]
        cache.end_step()
        return hidden


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``reference.rms_norm`` of columns: x / sqrt(Σx² + C·eps) times (√C · weight), an outer product. [..., C, n]"""
    scale = x.float().square().sum(-2, keepdim=True).add_(x.shape[-2] * eps).rsqrt_()  # [..., 1, n]
    return (x * (weight * scale)).to(x.dtype)


def column(norm: RMSNorm) -> Tensor:
    """[C] -> [C, 1] in fp32, times √C"""
    return (norm.weight.detach().float() * len(norm.weight) ** 0.5)[:, None]


def layer_weights(block: Block) -> Layer:
    attn, mlp = block.self_attn, block.mlp
    qkv = (attn.q_proj, attn.k_proj, attn.v_proj)
    weight = side_by_side([proj.weight for proj in qkv])
    bias = weight.new_zeros(len(weight)) if attn.q_proj.bias is None else side_by_side([proj.bias for proj in qkv])
    normed = isinstance(attn.q_norm, RMSNorm)
    return Layer(column(block.input_layernorm), weight, bias[:, None],
                 (column(attn.q_norm), column(attn.k_norm)) if normed else None, attn.o_proj.weight,
                 column(block.post_attention_layernorm), side_by_side([mlp.gate_proj.weight, mlp.up_proj.weight]),
                 mlp.down_proj.weight)


@torch.no_grad()
def side_by_side(parameters: list[nn.Parameter]) -> Tensor:
    """One tensor with these parameters under one another, sharing memory with them; they are moved if need be.

    A moved parameter keeps its identity and its values: optimizers and checkpoints see no difference.
    """
    first = parameters[0]
    shape = (sum(len(p) for p in parameters), *first.shape[1:])
    place = first.data_ptr()
    for p in parameters:
        if p.data_ptr() != place or not p.is_contiguous() or p.untyped_storage().data_ptr() != \
                first.untyped_storage().data_ptr():
            whole = torch.cat([p.data for p in parameters])
            for q, part in zip(parameters, whole.split([len(p) for p in parameters])):
                q.data = part
            return whole
        place += p.numel() * p.element_size()
    return first.data.as_strided(shape, first.stride())
