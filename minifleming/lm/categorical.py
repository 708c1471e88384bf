"""One token from its logits: keyed random numbers, the exact inverse of a distribution, and the cuts for serving.

Keyed random numbers: the uniform number behind a token is a hash of (seed, step, prompt id, sample index, position)
and of nothing else. So draws a CPU; on a GPU the noise of every token of the vocabulary is keyed by the same five
(kernels/gumbel.py), and the tokens of the two are other samples of the same distribution.

N rows, V vocabulary.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minifleming.kernels.reference import token_logprobs
from minifleming.run.errors import RunFailed

GAMMA = np.uint64(0x9E3779B97F4A7C15)
BLOCK = 64  # tokens whose mass is summed before the sums are searched


@dataclass(frozen=True)
class Truncation:
    """Which tokens may be drawn, applied in this order after the temperature. For serving: training refuses it."""

    top_k: int = 0  # the k most likely; 0: all
    top_p: float = 1.0  # the smallest set of the most likely whose mass reaches p (Holtzman et al. 2020)
    min_p: float = 0.0  # those of at least min_p times the mass of the most likely (Nguyen et al. 2024)

    def __bool__(self) -> bool:
        return self != Truncation()


def sample_inverse_cdf(logits: Tensor, u: Tensor | None, temperature: float, cut: Truncation | None = None) -> tuple[Tensor, Tensor]:
    """One token per row: where its cumulative distribution passes u, or the arg-max where u is None.

    logits [N, V] in fp32, u [N] in [0, 1) fp64 -> ids [N], log-probabilities [N] under the distribution drawn from:
    softmax(logits / temperature), after the cut if there is one; for the arg-max, softmax(logits).
    """
    if u is None:
        ids = arg_max(logits)
        return ids, finite(token_logprobs(logits, ids))
    scaled = logits if temperature == 1 else logits / temperature
    if cut:
        scaled = truncate(scaled, cut)
    most = finite(scaled.amax(-1, keepdim=True))
    mass = (scaled - most).exp_()  # [N, V], unnormalised
    if mass.shape[1] % BLOCK:
        mass = F.pad(mass, (0, -mass.shape[1] % BLOCK))
    blocks = mass.unflatten(1, (-1, BLOCK))
    sums = blocks.sum(-1).cumsum(-1, dtype=torch.float64)  # [N, V / BLOCK]
    total = sums[:, -1:]
    block = _first_above(sums, u[:, None] * total)  # [N, 1]
    before = torch.where(block > 0, sums.gather(1, (block - 1).clamp_(min=0)), 0.0)
    row = torch.arange(len(mass), device=mass.device) * sums.shape[1]
    inside = blocks.flatten(0, 1).index_select(0, block[:, 0] + row).cumsum(-1, dtype=torch.float64)  # [N, BLOCK]
    ids = (block * BLOCK + _first_above(inside, u[:, None] * total - before))[:, 0]
    return ids, (scaled.gather(1, ids[:, None]) - most - total.log().to(most.dtype))[:, 0]


def finite(values: Tensor) -> Tensor:
    if not values.isfinite().all():
        raise RunFailed("the model's logits are not finite: broken weights, or a dtype that is too narrow for them")
    return values


def _first_above(sums: Tensor, target: Tensor) -> Tensor:
    """The first place where a running sum exceeds the target: one that has mass, whatever the rounding. [N, 1]"""
    return torch.searchsorted(sums, torch.minimum(target, sums[:, -1:] * (1 - 2**-52)), right=True)


def arg_max(logits: Tensor) -> Tensor:
    """[N, V] -> [N]; of equal logits the first. On a CPU numpy's is the faster one."""
    if logits.device.type == "cpu":
        return torch.from_numpy(logits.numpy().argmax(-1))
    return logits.argmax(-1)


def truncate(logits: Tensor, cut: Truncation) -> Tensor:
    """-inf for the tokens that may not be drawn. Of the most likely, one always stays. [N, V] -> [N, V]"""
    gone = float("-inf")
    if 0 < cut.top_k < logits.shape[-1]:
        values, ids = logits.topk(cut.top_k)
        logits = torch.full_like(logits, gone).scatter(1, ids, values)
    if cut.top_p < 1:
        ordered, order = logits.sort(descending=True, stable=True)
        mass = ordered.softmax(-1)
        beyond = mass.cumsum(-1) - mass >= cut.top_p  # what stands before it reaches p already
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), gone)
    if cut.min_p > 0:
        probability = logits.softmax(-1)
        logits = logits.masked_fill(probability < cut.min_p * probability.amax(-1, keepdim=True), gone)
    return logits


def rng_key(seed: int, step: int, key: str, sample: int) -> int:
    """Where the random numbers of one completion start: a 64-bit number."""
    digest = hashlib.blake2b(f"{seed}\x1f{step}\x1f{key}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") + ((sample << 32) + 1) * int(GAMMA)) % 2**64


def uniform_at(streams: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The number of each stream at a position, in [0, 1) with 53 random bits. uint64, uint64 -> fp64

    SplitMix64 (Steele, Lea, Flood 2014): a counter in steps of GAMMA, and a finaliser that turns it into bits.
    """
    z = streams + positions.astype(np.uint64) * GAMMA
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * 2.0**-53
