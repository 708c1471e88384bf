"""One decode step: the newest token of every row through all layers, with nothing done twice.

The same arithmetic as ``LanguageModel.forward`` with a cache, written for one token a row:

- the weights of q, k and v (and of gate and up) stand side by side in one storage, so a layer has four products
  instead of seven; they are the model's own parameters (``fuse_weights``), not copies;
- a residual is added by the product that makes it, and the scale of the scores is in the table of angles.

n rows, C width, H query heads, K key/value heads, D head width, I intermediate width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minifleming.lm.kv_cache import Cache
from minifleming.lm.model import Block, LanguageModel, RMSNorm
from minifleming.lm.rope import cos_sin


@dataclass(slots=True)
class Layer:
    """The weights of one block, as a decode step multiplies by them."""

    norm: Tensor  # [C], times √C: see ``rms_norm``
    qkv: Tensor  # [C, (H + 2K) · D]
    bias: Tensor | None  # [(H + 2K) · D]
    qk_norm: Tensor | None  # [H + K, D], times √D
    out: Tensor  # [H · D, C]
    mlp_norm: Tensor  # [C], times √C
    gate_up: Tensor  # [C, 2 · I]
    down: Tensor  # [I, C]


class FusedDecoder:
    def __init__(self, model: LanguageModel, longest: int):
        """``longest``: positions that a sequence can reach."""
        self.model = model
        if model.deterministic or model.sharded:  # through the model's own forward, which gathers its weights
            return
        self.layers = [layer_weights(block) for block in model.model.layers]
        self.embedding, self.norm = model.model.embed_tokens.weight, scaled(model.model.norm)
        c, device = model.config, model.device
        cos, sin = cos_sin(torch.arange(longest, device=device), c.rope_theta, c.head_dim, c.rope_scaling)
        self.cos, self.sin = cos, torch.stack((-sin, sin), dim=1)  # [longest, (2,) D/2], fp32 as in the model
        self.scale = torch.tensor([c.head_dim**-0.5] * c.num_attention_heads + [1.0] * c.num_key_value_heads,
                                  device=device).view(-1, 1, 1)  # queries are scaled, keys are not

    def step(self, ids: Tensor, cache: Cache) -> Tensor:
        """ids [n], one token for each active row -> hidden states after the last norm [n, C]"""
        if self.model.deterministic or self.model.sharded:
            return self.reference_step(ids, cache)
        c = self.model.config
        n, H, K, D, eps = len(cache), c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.rms_norm_eps
        positions = cache.begin_step()
        cos = self.cos.index_select(0, positions)[:, None, None] * self.scale  # [n, H + K, 1, D/2]
        sin = self.sin.index_select(0, positions)[:, None] * self.scale  # [n, H + K, 2, D/2]
        x = F.embedding(ids, self.embedding)
        for i, layer in enumerate(self.layers):
            h = rms_norm(x, layer.norm, eps)
            heads = torch.mm(h, layer.qkv) if layer.bias is None else torch.addmm(layer.bias, h, layer.qkv)
            heads = heads.view(n, H + 2 * K, D)
            qk = heads[:, : H + K]
            if layer.qk_norm is not None:
                qk = rms_norm(qk, layer.qk_norm, eps)
            qk = qk.unflatten(-1, (2, D // 2))
            turned = torch.addcmul(qk * cos, qk.flip(2), sin).view(n, H + K, D).to(x.dtype)
            cache.write(i, turned[:, H:], heads[:, H + K :])
            y = cache.read(i, turned[:, :H].reshape(n * K, H // K, D)).view(n, H * D)
            x = torch.addmm(x, y, layer.out)
            gate, up = torch.mm(rms_norm(x, layer.mlp_norm, eps), layer.gate_up).chunk(2, dim=-1)
            x = torch.addmm(x, F.silu(gate).mul_(up), layer.down)
        cache.end_step()
        return rms_norm(x, self.norm, eps)

    def reference_step(self, ids: Tensor, cache: Cache) -> Tensor:
        """The same through the model's own forward: the law of ``step``, and the deterministic mode."""
        positions = cache.begin_step()
        hidden = self.model(ids[:, None], positions[:, None], cache)[:, 0]
        cache.end_step()
        return hidden


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``reference.rms_norm``: x / sqrt(|x|² + C·eps) times (√C · weight). x [..., C]"""
    scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return (x * scale.square_().add_(x.shape[-1] * eps).rsqrt_()).mul_(weight).to(x.dtype)


def scaled(norm: RMSNorm) -> Tensor:
    """[C] in fp32, times √C"""
    return norm.weight.detach().float() * len(norm.weight) ** 0.5


def layer_weights(block: Block) -> Layer:
    attn, mlp = block.self_attn, block.mlp
    qkv = (attn.q_proj, attn.k_proj, attn.v_proj)
    weight = fuse_weights([proj.weight for proj in qkv])
    bias = None if attn.q_proj.bias is None else fuse_weights([proj.bias for proj in qkv])
    normed = None
    if isinstance(attn.q_norm, RMSNorm):
        heads = [len(proj.weight) // attn.D for proj in qkv[:2]]
        normed = torch.cat([scaled(norm).expand(n, -1) for norm, n in zip((attn.q_norm, attn.k_norm), heads)])
    return Layer(scaled(block.input_layernorm), weight.t(), bias, normed, attn.o_proj.weight.t(),
                 scaled(block.post_attention_layernorm),
                 fuse_weights([mlp.gate_proj.weight, mlp.up_proj.weight]).t(), mlp.down_proj.weight.t())


@torch.no_grad()
def fuse_weights(parameters: list[nn.Parameter]) -> Tensor:
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
