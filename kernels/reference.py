"""Plain PyTorch of every fused operation: the definition that a kernel is tested against.

Shapes: B batch, T tokens, H query heads, K key/value heads, D head width, V vocabulary, N = any rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from minifleming.kernels.segments import Segments


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """y = x / sqrt(mean(x²) + eps) · weight, the mean in fp32. x [..., C], weight [C]."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the two halves of each head as pairs. x [B, heads, T, D]; cos, sin [B, 1, T, D]."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up."""
    return F.silu(gate) * up


def token_logprobs(logits: Tensor, ids: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature) at ``ids``, in fp32. logits [N, V], ids [N] -> [N]."""
    logits = logits.float() if temperature == 1 else logits.float() / temperature
    return logits.gather(-1, ids[:, None]).squeeze(-1) - logits.logsumexp(-1)


def segment_attention(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """softmax(q kᵀ / √D) v over what each token may see. q [N, H, D]; k, v [N, K, D] -> [N, H, D]"""
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    scores = torch.einsum("nhd,mhd->hnm", q, k) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~segments.mask().to(q.device), float("-inf"))
    return torch.einsum("hnm,mhd->nhd", scores.softmax(-1), v)
