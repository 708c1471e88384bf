"""Fused decode step for small models: the arithmetic of ``LanguageModel.forward`` for one token per
row.

Three savings over the plain engine (kv_cache.py):

- The weights of q, k and v, and of gate and up, share one storage, so a layer has four matrix
products, not seven.
  They are the model's own parameters, not copies (``fuse_weights``).
- A product adds the residual to its result, and the rotary table holds the scale of the scores.
- All queries that read one prompt meet its keys in one product: a prompt's rows are gathered next
to each other.

n active rows, C width, H query heads, K key/value heads, D head width, I intermediate width, P
longest active prompt, T longest active completion, S prompt slots in use, R most rows of one
prompt.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minifleming.lm.kv_cache import Capacity, KVCache
from minifleming.lm.model import Block, LanguageModel, RMSNorm
from minifleming.lm.rope import cos_sin


class FusedLayer:
    """The weights of one block as a decode step multiplies by them."""

    def __init__(self, block: Block):
        attn, mlp = block.self_attn, block.mlp
        projections = (attn.q_proj, attn.k_proj, attn.v_proj)
        self.bias, self.qk_norm = None, None
        if attn.q_proj.bias is not None:
            self.bias = fuse_weights([proj.bias for proj in projections])  # [(H + 2K) · D]
        if isinstance(attn.q_norm, RMSNorm):
            q_norm = prescaled(attn.q_norm).expand(len(attn.q_proj.weight) // attn.D, -1)
            k_norm = prescaled(attn.k_norm).expand(len(attn.k_proj.weight) // attn.D, -1)
            self.qk_norm = torch.cat((q_norm, k_norm))  # [H + K, D], times √D
        self.norm = prescaled(block.input_layernorm)  # [C], times √C
        self.qkv = fuse_weights([proj.weight for proj in projections]).t()  # [C, (H + 2K) · D]
        self.out = attn.o_proj.weight.t()  # [H · D, C]
        self.mlp_norm = prescaled(block.post_attention_layernorm)  # [C], times √C
        self.gate_up = fuse_weights([mlp.gate_proj.weight, mlp.up_proj.weight]).t()  # [C, 2 · I]
        self.down = mlp.down_proj.weight.t()  # [I, C]


class FusedDecoder(KVCache):
    """A key/value cache with a fused decode step."""

    def __init__(self, model: LanguageModel, capacity: Capacity):
        super().__init__(model, capacity)
        c, device = model.config, model.device
        self.layers = [FusedLayer(block) for block in model.model.layers]
        self.embedding = model.model.embed_tokens.weight
        self.norm = prescaled(model.model.norm)
        positions = torch.arange(capacity.prompt_tokens + capacity.new_tokens, device=device)
        self.cos, sin = cos_sin(positions, c.rope_theta, c.head_dim, c.rope_scaling)
        self.sin = torch.stack((-sin, sin), dim=1)  # [positions, 2, D/2], fp32 as in the model
        scale = [c.head_dim**-0.5] * c.num_attention_heads + [1.0] * c.num_key_value_heads
        self.scale = torch.tensor(scale, device=device).view(-1, 1, 1)  # scales queries, not keys

    def new_keys(self) -> Tensor:
        if self.D > 32:
            return super().new_keys()
        # narrow heads meet their queries faster with the tokens contiguous
        shape = (self.capacity.rows, self.K, self.D, self.capacity.new_tokens)
        return self.zeros(*shape).transpose(2, 3)

    def forward_tokens(self, ids: Tensor) -> Tensor:
        """Feed one token per row, ids [n]. Returns hidden states after the last norm, [n, C]."""
        c = self.model.config
        n, H, K, D, eps = len(ids), c.num_attention_heads, self.K, self.D, c.rms_norm_eps
        positions = self.begin_step()
        cos = self.cos.index_select(0, positions)[:, None, None] * self.scale  # [n, H + K, 1, D/2]
        sin = self.sin.index_select(0, positions)[:, None] * self.scale  # [n, H + K, 2, D/2]
        x = F.embedding(ids, self.embedding)
        for i, layer in enumerate(self.layers):
            h = rms_norm_prescaled(x, layer.norm, eps)
            heads = project(h, layer.qkv, layer.bias).view(n, H + 2 * K, D)
            qk = heads[:, : H + K]
            if layer.qk_norm is not None:
                qk = rms_norm_prescaled(qk, layer.qk_norm, eps)
            qk = qk.unflatten(-1, (2, D // 2))
            qk = torch.addcmul(qk * cos, qk.flip(2), sin).view(n, H + K, D).to(x.dtype)
            self.write(i, qk[:, H:], heads[:, H + K :])
            y = self.read(i, qk[:, :H].reshape(n * K, H // K, D)).view(n, H * D)
            x = torch.addmm(x, y, layer.out)
            h = rms_norm_prescaled(x, layer.mlp_norm, eps)
            gate, up = torch.mm(h, layer.gate_up).chunk(2, dim=-1)
            x = torch.addmm(x, F.silu(gate).mul_(up), layer.down)
        return rms_norm_prescaled(x, self.norm, eps)

    def arrange(self) -> None:
        """Where the queries of each prompt's rows stand, and the way back."""
        super().arrange()
        groups = self.rows_by_slot(max(self.slots) + 1)
        most = max(map(len, groups))
        table = [rows + [0] * (most - len(rows)) for rows in groups]
        place = [groups[slot].index(row) for row, slot in enumerate(self.slots)]
        device = self.model.device
        heads = torch.arange(self.K, device=device)
        slots = torch.tensor(self.slots, device=device)[:, None]
        self.row_index = torch.tensor(table, device=device)  # [S, R]
        gather = self.row_index[:, None] * self.K + heads[:, None]  # [S, K, R]
        scatter = (slots * self.K + heads) * most + torch.tensor(place, device=device)[:, None]
        self.gather_index = gather.flatten()
        self.scatter_index = scatter.flatten()  # [n · K]

    def begin_step(self) -> Tensor:
        positions = super().begin_step()
        self.mask = None  # where all rows are equally long
        if min(self.lengths) == self.max_len and (self.prompt_len == self.max_prompt_len).all():
            return positions
        column = torch.arange(self.max_prompt_len + self.max_len, device=positions.device)
        own = column - self.max_prompt_len
        in_prompt, in_own = column < self.prompt_len[:, None], own <= self.own_len[:, None]
        mask = torch.where(torch.where(own < 0, in_prompt, in_own), 0.0, float("-inf"))
        self.mask = mask[self.row_index][:, None, :, None]  # [S, 1, R, 1, P + T]
        return positions

    def read(self, layer: int, q: Tensor) -> Tensor:
        """Attention of one scaled query per row and head. q [n · K, H/K, D] -> [n · K, H/K, D]"""
        rows, group, D = q.shape
        S, P, T = len(self.row_index), self.max_prompt_len, self.max_len
        prompts = self.prompts[layer][:, :S].flatten(1, 2)
        prompt_keys, prompt_values = prompts[:, :, :P]  # [S · K, P, D]
        keys = self.keys[layer].flatten(0, 1)[:rows, :T]
        values = self.values[layer].flatten(0, 1)[:rows, :T]
        by_prompt = q.index_select(0, self.gather_index).view(S * self.K, -1, D)  # R · H/K queries
        prompt_scores = torch.bmm(by_prompt, prompt_keys.transpose(1, 2))
        own_scores = torch.bmm(q, keys.transpose(1, 2)).index_select(0, self.gather_index)
        scores = torch.cat((prompt_scores, own_scores.view(S * self.K, -1, T)), dim=-1)
        if self.mask is not None:
            scores.view(S, self.K, -1, group, P + T).add_(self.mask)
        weights = scores.softmax(-1)
        found = torch.bmm(weights[:, :, :P], prompt_values).view(-1, group, D)
        found = found.index_select(0, self.scatter_index)
        own_weights = weights.view(-1, group, P + T)[:, :, P:].index_select(0, self.scatter_index)
        return torch.baddbmm(found, own_weights, values)


def project(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)


def rms_norm_prescaled(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``reference.rms_norm``: x / sqrt(|x|² + C·eps) times (√C · weight). x [..., C]"""
    scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = scale.square_().add_(x.shape[-1] * eps).rsqrt_()
    return (x * scale).mul_(weight).to(x.dtype)


def prescaled(norm: RMSNorm) -> Tensor:
    """The weight times √C, in fp32. -> [C]"""
    return norm.weight.detach().float() * len(norm.weight) ** 0.5


@torch.no_grad()
def fuse_weights(parameters: list[nn.Parameter]) -> Tensor:
    """One new tensor of all parameters' rows, to whose memory the parameters move.

    They keep their identity and values, so optimizers and checkpoints see no difference.
    """
    whole = torch.cat([p.data for p in parameters])
    for p, part in zip(parameters, whole.split([len(p) for p in parameters])):
        p.data = part
    return whole
