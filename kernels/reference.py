"""Plain PyTorch of every fused operation: the definition that a kernel is tested against.

Shapes: B batch, T tokens, H query heads, K key/value heads, D head width, V vocabulary, N = any
rows.
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
    """softmax(q kᵀ / √D) v over what each token may see. q [N, H, D]; k, v [N, K, D] -> [N, H,
    D]"""
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    scores = torch.einsum("nhd,mhd->hnm", q, k) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~segments.mask().to(q.device), float("-inf"))
    return torch.einsum("hnm,mhd->nhd", scores.softmax(-1), v)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(rms_norm(s), s) for s = x + residual."""
    s = x + residual
    return rms_norm(s, weight, eps), s


def decode_attention(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, prompt_keys: Tensor,
                     prompt_values: Tensor, prompt_lengths: Tensor, groups: Tensor) -> Tensor:
    """softmax(q kᵀ / √D) v of one token a row over its prompt and its own cache. q [n, H, D]; keys,
    values [n, K, T, D] of which lengths [n] count; prompts [G, K, L, D], lengths too; groups [G, R]
    their rows, -1: none -> [n, H, D]"""
    K, out = keys.shape[1], torch.zeros_like(q)
    prompt_of = {row: g for g, rows in enumerate(groups.tolist()) for row in rows if row >= 0}
    for row, length in enumerate(lengths.tolist()[: len(q)]):
        k, v = keys[row, :, :length], values[row, :, :length]
        if row in prompt_of:
            g = prompt_of[row]
            k = torch.cat((prompt_keys[g, :, : prompt_lengths[g]], k), dim=1)
            v = torch.cat((prompt_values[g, :, : prompt_lengths[g]], v), dim=1)
        if k.shape[1]:
            # [K, H/K, tokens]
            weights = (q[row].unflatten(0, (K, -1)) @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
            out[row] = (weights @ v).flatten(0, 1)
    return out


def logprob_loss_rows(logits: Tensor, ids: Tensor, found: list[Tensor], factor: Tensor | None,
                      old: Tensor | None, kind: str, low: float, high: float,
                      temperature: float) -> None:
    """Rows of the policy's head (head.py): fills ``found`` with log π(ids), entropy, and where
    there is a ``factor`` the coefficient c = dL/dlog π and the loss L; then dL/dlogits replaces the
    logits. logits [R, V], the others [R]."""
    top = logits.amax(-1, keepdim=True)
    top = top.to(torch.promote_types(top.dtype, torch.float32))
    picked = (logits.gather(-1, ids[:, None]) - top)[:, 0] / temperature
    in_place = factor is not None and logits.dtype == top.dtype
    # 0 · -inf is no number
    wide = (logits.sub_(top) if in_place else logits - top).clamp_(min=-1e30)
    if temperature != 1:
        wide.div_(temperature)
    e = wide.exp()
    total = e.sum(-1)
    found[0].copy_(picked - total.log())
    found[1].copy_(total.log() - wide.mul_(e).sum(-1) / total)
    if factor is None:
        return
    c, loss = token_loss_terms(found[0], factor, old, kind, low, high)
    found[2].copy_(c)
    found[3].copy_(loss)
    scale = (c / temperature).to(e.dtype)[:, None]
    dz = torch.mul(e, -scale / total[:, None], out=wide).scatter_add_(-1, ids[:, None], scale)
    dz.index_fill_(0, (c == 0).nonzero()[:, 0], 0.0)  # whatever the logits are
    if not in_place:
        logits.copy_(dz)


def token_loss_terms(logprobs: Tensor, factor: Tensor, old: Tensor | None, kind: str, low: float,
                 high: float) -> tuple[Tensor, Tensor]:
    """(dL/dlog π, L) of each token; see head.TokenLoss. Where ``factor`` is 0 both are."""
    c, loss = factor, factor * logprobs
    if kind != "weighted":
        ratio = (logprobs - old).exp()
        bounded = ratio.clamp(1 - low, 1 + high)
        if kind == "token":
            free = ratio * factor <= bounded * factor  # at a tie the gradient is that of ρ A
            c = torch.where(free, -ratio * factor, 0.0)
            loss = -torch.where(free, ratio * factor, bounded * factor)
        else:
            c = -bounded * factor
            loss = c * logprobs
    return c.where(factor != 0, 0.0), loss.where(factor != 0, 0.0)


def philox(counter: tuple, key: tuple, rounds: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox-4x32 (Salmon et al. 2011): counter of four and key of two 32-bit words, in int64 ->
    four words."""
    (c0, c1, c2, c3), (k0, k1), low = counter, key, 2**32 - 1
    for _ in range(rounds):
        # the 64 bits of the product, whatever their sign
        one = c0 * 0xD2511F53
        two = c2 * 0xCD9E8D57
        c0, c1, c2, c3 = two >> 32 & low ^ c1 ^ k0, two & low, one >> 32 & low ^ c3 ^ k1, one & low
        k0, k1 = k0 + 0x9E3779B9 & low, k1 + 0xBB67AE85 & low
    return c0, c1, c2, c3


def gumbel_sample(logits: Tensor, rng_keys: Tensor, positions: Tensor,
                  temperature: float) -> tuple[Tensor, Tensor]:
    """A token a row of softmax(logits / temperature), by keyed noise, and its log-probability; the
    arg-max at 0.

    logits [N, V]; rng_keys [N], positions [N]: the key and a part of the counter of the row's
    random numbers -> [N], [N]
    """
    if temperature == 0:
        ids = logits.argmax(-1)
        return ids, token_logprobs(logits, ids)
    low, zero = 2**32 - 1, torch.zeros_like(rng_keys)[:, None]
    quads = torch.arange(-(-logits.shape[1] // 4), device=logits.device).expand(len(logits), -1)
    key = rng_keys[:, None] & low, rng_keys[:, None] >> 32 & low
    words = philox((quads, positions.long()[:, None], zero, zero), key)
    u = (torch.stack(words, -1).flatten(1)[:, :logits.shape[1]].double() + 0.5) * 2.0**-32
    ids = (logits.double() / temperature - (-torch.log1p(-u)).log()).argmax(-1)
    return ids, token_logprobs(logits, ids, temperature)


def rotary_and_cache(qkv: Tensor, positions: Tensor, lengths: Tensor, cos_table: Tensor,
                     sin_table: Tensor, keys: Tensor, values: Tensor, q_out: Tensor,
                     q_norm: Tensor | None, k_norm: Tensor | None, eps: float) -> None:
    """One decoded token a row: see rotary.py. qkv [n, (H + 2K) D]; keys, values [slots, K, T, D];
    q_out [n, H, D]"""
    (_, H, D), (K, T) = q_out.shape, keys.shape[1:3]
    q, k, v = qkv.unflatten(1, (-1, D)).split([H, K, K], dim=1)
    q, k = (x if weight is None else rms_norm(x, weight, eps) for x,
            weight in ((q, q_norm), (k, k_norm)))
    at = positions.clamp(0, len(cos_table) - 1).long()
    cos = torch.cat((cos_table[at], cos_table[at]), dim=-1)[:, None].float()
    sin = torch.cat((sin_table[at], sin_table[at]), dim=-1)[:, None].float()
    q_out.copy_(torch.where((lengths >= 0)[:, None, None], rotary(q.float(), cos, sin), 0.0))
    rows = ((lengths >= 0) & (lengths < T)).nonzero()[:, 0]
    keys[rows, :, lengths[rows].long()] = rotary(k.float(), cos, sin)[rows].to(keys.dtype)
    values[rows, :, lengths[rows].long()] = v[rows].to(values.dtype)
