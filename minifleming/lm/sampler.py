"""Sampling: one prefill per prompt for all its samples, finished rows leave, waiting prompts take their slots.

Keyed random numbers: the uniform number behind a token is a hash of (seed, step, prompt id, sample index,
position) and of nothing else. So a completion does not depend on what else is in the batch, on the order of
the prompts, or on the rank that samples it (up to the rounding of matrix products of different shapes).

Each token comes with its log-probability from the distribution that it was drawn from: softmax(logits / T),
over the whole vocabulary. There is no top-k or top-p: they would make the ratio of Eq. 1's on-policy sampling
untrue. At temperature 0 the token is the arg-max and its log-probability that of the untempered softmax.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from minifleming.kernels.reference import token_logprobs
from minifleming.lm.cache import Cache
from minifleming.lm.model import LanguageModel
from minifleming.run.errors import BadInput


@dataclass(slots=True)
class Completion:
    """The tokens after the prompt, the end token included, and the log-probability of each (natural log)."""

    prompt: int  # index into the prompts
    sample: int  # index within the prompt's group
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False  # ended with an end token; otherwise truncated


@torch.no_grad()
def sample(
    model: LanguageModel,
    prompts: list[list[int]],
    keys: list[str],
    *,
    samples: int = 1,
    temperature: float = 1.0,
    max_new_tokens: int,
    end_ids: list[int],
    seed: int = 0,
    step: int = 0,
    slots: int = 256,
    done: Callable[[int], None] = lambda finished: None,
) -> list[Completion]:
    """``samples`` completions of each prompt, in the order of the prompts.

    Args:
        prompts: token ids, each at least one long.
        keys: one id per prompt, the "prompt id" of the keyed random numbers.
        max_new_tokens: a completion ends here, or where prompt and completion fill the model's positions.
        slots: sequences decoded at a time; at least ``samples``.
        done: called with the number of completions that ended, for progress.
    """
    slots = max(slots, samples)
    waiting = deque(sorted(range(len(prompts)), key=lambda i: -len(prompts[i])))
    results = [[Completion(i, s) for s in range(samples)] for i in range(len(prompts))]
    c, weight = model.config, model.model.embed_tokens.weight
    budgets = _budgets([len(p) for p in prompts], max_new_tokens, c.max_position_embeddings)
    longest = max((len(p) + budget for p, budget in zip(prompts, budgets)), default=0)
    noise = None if temperature == 0 else [
        uniforms(seed, step, key, samples, budget) for key, budget in zip(keys, budgets)]
    slots = min(slots, len(prompts) * samples)
    cache = Cache(c.num_hidden_layers, slots, c.num_key_value_heads, longest, c.head_dim, weight.dtype, weight.device)
    ends = torch.tensor(end_ids, device=weight.device)
    rows: list[Completion] = []
    last = torch.zeros(0, dtype=torch.int64, device=weight.device)  # the newest token of each active slot
    while waiting or rows:
        hidden = []
        if rows:
            hidden.append(model(last[:, None], cache.lengths[: cache.active, None], cache)[:, 0])
            cache.advance()
        group = [waiting.popleft() for _ in range(min(len(waiting), (slots - len(rows)) // samples))]
        if group:
            hidden.append(_prefill(model, cache, [prompts[i] for i in group], samples))
            rows += [results[i][s] for i in group for s in range(samples)]
        logits = model.logits(torch.cat(hidden)).float()  # [rows, V]
        u = None if noise is None else [noise[r.prompt][r.sample, len(r.ids)] for r in rows]
        last, logprobs = draw(logits, u, temperature)
        ended = torch.isin(last, ends).tolist()
        for row, token, logprob, end in zip(rows, last.tolist(), logprobs.tolist(), ended):
            row.ids.append(token)
            row.logprobs.append(logprob)
            row.finished = end
        gone = [i for i, row in enumerate(rows) if row.finished or len(row.ids) == budgets[row.prompt]]
        if gone:
            done(len(gone))
            kept = cache.release(gone)
            rows, last = [rows[i] for i in kept], last[kept]
    return [completion for group in results for completion in group]


def draw(logits: Tensor, u: list[float] | None, temperature: float) -> tuple[Tensor, Tensor]:
    """One token per row by inverting the cumulative distribution at u, or the arg-max where u is None.

    logits [N, V] in fp32, u in [0, 1) -> ids [N], log-probabilities [N].
    """
    if u is None:
        ids = logits.argmax(-1)
        return ids, token_logprobs(logits, ids)
    scaled = logits / temperature
    mass = (scaled - scaled.amax(-1, keepdim=True)).exp().double().cumsum(-1)  # unnormalised, fp64
    target = torch.tensor(u, dtype=torch.float64, device=logits.device)[:, None] * mass[:, -1:]
    ids = torch.searchsorted(mass, target, right=True).squeeze(-1).clamp_(max=logits.shape[-1] - 1)
    return ids, token_logprobs(logits, ids, temperature)


def uniforms(seed: int, step: int, key: str, samples: int, positions: int) -> np.ndarray:
    """Keyed uniform numbers in [0, 1) with 53 random bits. -> [samples, positions] fp64

    The hash of (seed, step, key) starts a counter; (sample, position) selects the count; the finaliser of
    SplitMix64 (Steele, Lea, Flood 2014) turns a count into bits.
    """
    digest = hashlib.blake2b(f"{seed}\x1f{step}\x1f{key}".encode(), digest_size=8).digest()
    count = np.arange(samples, dtype=np.uint64)[:, None] << np.uint64(32)
    count = count + np.arange(1, positions + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(int.from_bytes(digest, "little")) + count * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * 2.0**-53


def _budgets(lengths: list[int], most: int, positions: int) -> list[int]:
    """How many tokens may follow each prompt: ``most``, or what its length leaves of the model's positions."""
    if max(lengths, default=0) >= positions:
        raise BadInput(f"a prompt of {max(lengths)} tokens leaves no room in the model's {positions} positions")
    return [min(most, positions - length) for length in lengths]


def _prefill(model: LanguageModel, cache: Cache, prompts: list[list[int]], samples: int) -> Tensor:
    """Run the prompts once and give each ``samples`` slots. -> last hidden states [prompts * samples, C]"""
    lengths = [len(p) for p in prompts]
    ids = torch.zeros(len(prompts), max(lengths), dtype=torch.int64)
    for row, prompt in zip(ids, prompts):
        row[: len(prompt)] = torch.tensor(prompt)
    cache.begin_prefill()
    hidden = model(ids.to(model.device), cache=cache)
    cache.admit(lengths, [samples] * len(prompts))
    ends = torch.tensor(lengths, device=hidden.device) - 1
    return hidden[torch.arange(len(prompts), device=hidden.device), ends].repeat_interleave(samples, 0)
