"""Plain PyTorch of every fused operation: the definition that a kernel is tested against.

Shapes: B batch, T tokens, H query heads, K key/value heads, D head width, V vocabulary, N = any rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def decode_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
    """One query per row against its cached keys. q [B, H, D]; k, v [B, K, T, D]; lengths [B] -> [B, H, D].

    Row b attends to the first ``lengths[b]`` positions. Two batched products: for one query they are
    faster on a CPU than the fused attention of PyTorch.
    """
    B, H, D = q.shape
    K, T = k.shape[1:3]
    scores = torch.matmul(q.view(B, K, H // K, D), k.transpose(-1, -2)).float() * D**-0.5  # [B, K, H/K, T]
    beyond = torch.arange(T, device=q.device) >= lengths[:, None]  # [B, T]
    weights = scores.masked_fill(beyond[:, None, None], float("-inf")).softmax(-1).to(q.dtype)
    return torch.matmul(weights, v).view(B, H, D)


def token_logprobs(logits: Tensor, ids: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature) at ``ids``, in fp32. logits [N, V], ids [N] -> [N]."""
    logits = logits.float() if temperature == 1 else logits.float() / temperature
    return logits.gather(-1, ids[:, None]).squeeze(-1) - logits.logsumexp(-1)
