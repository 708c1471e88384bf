"""Draw one token per row from its logits: exact inversion of the distribution at a keyed random
number.

The uniform number behind a token is a hash of (seed, step, prompt id, sample index, position) and
of nothing else, so a token does not depend on its batch. On a GPU the CUDA graph engine draws with
other numbers of the same key (kernels/gumbel.py): the tokens of a GPU and of a CPU are different
samples of the same distribution.

N rows, V vocabulary.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minifleming.kernels.reference import token_logprobs
from minifleming.run.errors import RunFailed

GAMMA = np.uint64(0x9E3779B97F4A7C15)
BLOCK = 64  # tokens whose probability mass is summed before the sums are searched


def rng_key(seed: int, step: int, prompt_id: str, sample: int) -> int:
    """The 64-bit key of one completion's random numbers."""
    digest = hashlib.blake2b(f"{seed}\x1f{step}\x1f{prompt_id}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") + ((sample << 32) + 1) * int(GAMMA)) % 2**64


def uniform_at(keys: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The random number of each key at a position, in [0, 1) with 53 random bits. uint64 [N], [N]
    -> fp64 [N]

    SplitMix64 (Steele, Lea, Flood 2014): a counter in steps of GAMMA, and a finalizer that mixes
    its bits.
    """
    z = keys + positions.astype(np.uint64) * GAMMA
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * 2.0**-53


def sample_inverse_cdf(logits: Tensor, u: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """One token per row, where its cumulative distribution passes u; the arg-max at temperature 0.

    Args:
        logits: [N, V] in fp32.
        u: [N] in [0, 1), fp64; not read at temperature 0.

    Returns:
        The ids [N], and their log-probabilities [N] under the distribution drawn from:
        softmax(logits / temperature). At temperature 0 the log-probability is that of
        softmax(logits).
    """
    if temperature == 0:
        ids = torch.from_numpy(logits.numpy(force=True).argmax(-1)).to(logits.device)
        return ids, check_finite(token_logprobs(logits, ids))
    scaled = logits if temperature == 1 else logits / temperature
    top = check_finite(scaled.amax(-1, keepdim=True))
    mass = (scaled - top).exp_()  # [N, V], unnormalized
    blocks = F.pad(mass, (0, -mass.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    block_sums = blocks.sum(-1).cumsum(-1, dtype=torch.float64)  # [N, V / BLOCK]
    total = block_sums[:, -1:]
    block = first_above(block_sums, u[:, None] * total)  # [N, 1]
    before = torch.where(block > 0, block_sums.gather(1, (block - 1).clamp_(min=0)), 0.0)
    row = torch.arange(len(mass), device=mass.device) * block_sums.shape[1]
    chosen = blocks.flatten(0, 1).index_select(0, block[:, 0] + row)  # [N, BLOCK]
    offset = first_above(chosen.cumsum(-1, dtype=torch.float64), u[:, None] * total - before)
    ids = (block * BLOCK + offset)[:, 0]
    logprobs = scaled.gather(1, ids[:, None]) - top - total.log().to(top.dtype)
    return ids, logprobs[:, 0]


def first_above(sums: Tensor, target: Tensor) -> Tensor:
    """Index of the first running sum above the target. [N, M], [N, 1] -> [N, 1]

    Its token has mass whatever the rounding.
    """
    below_total = torch.minimum(target, sums[:, -1:] * (1 - 2**-52))
    return torch.searchsorted(sums, below_total, right=True)


def check_finite(values: Tensor) -> Tensor:
    """The values. Raises RunFailed if one is not finite."""
    if not values.isfinite().all():
        raise RunFailed("the model's logits are not finite: broken weights or a narrow dtype")
    return values
