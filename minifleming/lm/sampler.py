"""[6/10] Sampling: prefill each prompt once for its k samples, then decode until all have ended.

The loop in ``generate_stream`` is continuous batching: finished rows leave, and waiting prompts
take their places. Each round of it

    decode     feeds the newest token of every active row to the model (kv_cache.py)
    prefill    reads prompts that fit now, each once for all its samples
    sample     draws one token per row from its last hidden state (categorical.py)
    release    frees the rows that have ended

``Engine`` is the plain engine. Two fast ones do the same in other operations: engines/fused_cpu.py
replaces the decode step, engines/cuda_graph.py all four parts; ``make_engine`` chooses.

The random number behind a token is keyed, so a completion does not depend on the rest of the batch,
on the order of the prompts, or on the rank that samples it: exactly so in batch-invariant mode,
otherwise up to the rounding of matrix products of different shapes.

Each token is recorded with its log-probability under the distribution that it was drawn from,
softmax(logits / T) over the whole vocabulary. That distribution is never truncated (top-k, top-p):
the recorded log-probability would not be the policy's, and the ratio of on-policy sampling in Eq. 1
would not be 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

from minifleming.kernels.reference import token_logprobs
from minifleming.lm.batch_invariant import in_fixed_blocks
from minifleming.lm.categorical import rng_key, sample_inverse_cdf, uniform_at
from minifleming.lm.engines import cuda_graph
from minifleming.lm.engines.cuda_graph import CudaGraphDecoder
from minifleming.lm.engines.fused_cpu import FusedDecoder
from minifleming.lm.kv_cache import Capacity, KVCache
from minifleming.lm.model import LanguageModel
from minifleming.run.errors import BadInput

PREFILL_PER_ROW = 2  # padded prompt tokens of one prefill per row of the batch: bounds its memory


@dataclass(frozen=True)
class SamplingParams:
    max_new_tokens: int  # a completion also ends where the model's positions do
    end_ids: list[int]
    samples: int = 1  # completions of each prompt
    temperature: float = 1.0  # 0: greedy
    seed: int = 0
    step: int = 0  # of training: part of the random numbers' key
    max_num_seqs: int = 256  # rows decoded at a time; at least ``samples``
    sync_every: int = 16  # steps between two yields of the CUDA graph engine


@dataclass(slots=True)
class Completion:
    """The sampled tokens, including the end token, and the log-probability of each (natural
    log)."""

    prompt: int  # index into the prompts
    sample: int  # index within the prompt's group
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False  # ended with an end token
    truncated: bool = False  # ended at the limit

    @property
    def ended(self) -> bool:
        return self.finished or self.truncated


def generate(model: LanguageModel, prompts: list[list[int]], keys: list[str],
             params: SamplingParams,
             on_done: Callable[[int], None] = lambda count: None) -> list[Completion]:
    """All completions, ordered by prompt and sample; arguments as in ``generate_stream``.

    ``on_done`` is called after each round with the number of completions that ended in it.
    """
    completions = []
    for rows in generate_stream(model, prompts, keys, params):
        ended = [row for row in rows if row.ended]
        completions += ended
        on_done(len(ended))
    return sorted(completions, key=lambda c: (c.prompt, c.sample))


def generate_stream(model: LanguageModel, prompts: list[list[int]], keys: list[str],
                    params: SamplingParams) -> Iterator[list[Completion]]:
    """Yields, after each round, the completions that got tokens; an ended one is not yielded again.

    Args:
        prompts: token ids, at least one for each prompt.
        keys: one id per prompt, the "prompt id" of the keyed random numbers.

    Raises BadInput for a prompt that fills the model's positions.
    """
    if not prompts:
        return
    longest, positions = max(map(len, prompts)), model.config.max_position_embeddings
    if longest >= positions:
        raise BadInput(f"a prompt of {longest} tokens leaves no room "
                       f"in the model's {positions} positions")
    limits = [min(params.max_new_tokens, positions - len(prompt)) for prompt in prompts]
    capacity = capacity_for(prompts, max(limits), params)
    engine = make_engine(model, capacity, params)
    end_ids = set(params.end_ids)
    waiting = deque(sorted(range(len(prompts)), key=lambda i: -len(prompts[i])))  # longest first
    rows: list[Completion] = []
    while waiting or rows:
        with torch.inference_mode():
            engine.decode()
            while waiting:
                batch = next_prefill(waiting, prompts, rows, capacity, params.samples)
                if not batch:
                    break
                new = [Completion(i, s) for i, s in product(batch, range(params.samples))]
                rows += new
                engine.prefill([prompts[i] for i in batch], [
                    rng_key(params.seed, params.step, keys[row.prompt], row.sample) for row in new])
            for row, drawn in zip(rows, engine.sample()):
                append_tokens(row, drawn, end_ids, limits[row.prompt])
            updated = rows
            ended = [i for i, row in enumerate(rows) if row.ended]
            if ended:
                rows = [rows[i] for i in engine.release(ended)]
        yield updated


def append_tokens(row: Completion, drawn: list[tuple[int, float]], end_ids: set[int],
                  limit: int) -> None:
    """Append (token, log-probability) pairs until the row ends."""
    for token, logprob in drawn:
        row.ids.append(token)
        row.logprobs.append(logprob)
        row.finished = token in end_ids
        row.truncated = not row.finished and len(row.ids) == limit
        if row.ended:
            break


def capacity_for(prompts: list[list[int]], new_tokens: int, params: SamplingParams) -> Capacity:
    rows = min(max(params.max_num_seqs, params.samples), len(prompts) * params.samples)
    # twice the prompts of a full batch, since the rows of a group end at different times
    slots = -(-2 * rows // params.samples)
    return Capacity(rows, min(len(prompts), rows, slots), max(map(len, prompts)), new_tokens)


def next_prefill(waiting: deque[int], prompts: list[list[int]], rows: list[Completion],
                 capacity: Capacity, samples: int) -> list[int]:
    """Take the prompts of the next prefill from ``waiting``: those that fit, up to a size limit."""
    free_rows = capacity.rows - len(rows)
    free_slots = capacity.prompts - len({row.prompt for row in rows})
    batch: list[int] = []
    while waiting and len(batch) < min(free_rows // samples, free_slots):
        padded_tokens = (len(batch) + 1) * len(prompts[batch[0]]) if batch else 0
        if padded_tokens > PREFILL_PER_ROW * capacity.rows:
            break
        batch.append(waiting.popleft())
    return batch


def make_engine(model: LanguageModel, capacity: Capacity,
                params: SamplingParams) -> Engine | CudaGraphDecoder:
    if cuda_graph.is_supported(model):
        return CudaGraphDecoder(model, capacity, params.samples, params.temperature,
                                params.sync_every)
    cache = KVCache(model, capacity) if model.batch_invariant else FusedDecoder(model, capacity)
    return Engine(cache, params)


class Engine:
    """Draws one token per row and round. Rows are numbered as in the cache."""

    def __init__(self, cache: KVCache, params: SamplingParams):
        self.cache, self.model, self.params = cache, cache.model, params
        self.rng_keys = np.zeros(0, np.uint64)  # [n]
        self.ids = torch.zeros(0, dtype=torch.int64, device=cache.model.device)  # [n], newest
        self.hidden: list[Tensor] = []  # last hidden states of all rows, in parts [., C]

    def decode(self) -> None:
        """Feed the newest token of every row."""
        if len(self.ids):
            self.hidden.append(self.cache.forward_tokens(self.ids))

    def prefill(self, prompts: list[list[int]], rng_keys: list[int]) -> None:
        """Read each prompt once and add its rows, which share it."""
        hidden = self.cache.forward_prompts(prompts, self.params.samples)
        self.hidden.append(hidden.repeat_interleave(self.params.samples, 0))
        self.rng_keys = np.append(self.rng_keys, np.array(rng_keys, np.uint64))

    def sample(self) -> list[list[tuple[int, float]]]:
        """Draw a token for every row. Returns a list of (token, log-probability) pairs per row."""
        logits = self.model.logits(torch.cat(self.hidden)).float()  # [n, V]
        self.hidden = []
        u = uniform_at(self.rng_keys, np.array(self.cache.lengths))
        u = torch.from_numpy(u).to(logits.device)[:, None]
        draw = partial(in_fixed_blocks, self.draw) if self.model.batch_invariant else self.draw
        self.ids, logprobs = draw(logits, u)
        return [[pair] for pair in zip(self.ids.tolist(), logprobs.tolist())]

    def draw(self, logits: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        ids, logprobs = sample_inverse_cdf(logits, u[:, 0], self.params.temperature)
        if self.model.batch_invariant:  # bit-equal to the trainer's
            logprobs = token_logprobs(logits, ids, self.params.temperature or 1.0)
        return ids, logprobs

    def release(self, finished: list[int]) -> list[int]:
        """Remove rows. Returns the old index of every row that remains."""
        kept = self.cache.release(finished)
        self.rng_keys = self.rng_keys[kept]
        self.ids = self.ids[kept]
        return kept
