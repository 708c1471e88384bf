"""Sampling: one prefill per prompt for all its samples, finished rows leave, waiting prompts take their places.

The random number behind a token is keyed (categorical.py), so a completion does not depend on what else is in the batch, on
the order of the prompts, or on the rank that samples it: up to the rounding of matrix products of different shapes,
and with ``model.deterministic`` not even that.

Each token comes with its log-probability from the distribution that it was drawn from: softmax(logits / T) over the
whole vocabulary, or what ``cut`` leaves of it. Training passes no cut: it would make the ratio of Eq. 1's on-policy
sampling untrue. At temperature 0 the token is the arg-max and its log-probability that of the untempered softmax.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from minifleming.kernels.reference import token_logprobs
from minifleming.lm.batch import last_places, padded
from minifleming.lm.categorical import Truncation, finite, rng_key, sample_inverse_cdf, uniform_at
from minifleming.lm.engines import cuda_graph
from minifleming.lm.engines.cuda_graph import CudaGraphDecoder
from minifleming.lm.engines.fused_cpu import FusedDecoder
from minifleming.lm.kv_cache import Cache
from minifleming.lm.model import LanguageModel
from minifleming.run.errors import BadInput

PREFILL_PER_ROW = 2  # tokens of prompts in one pass, padding included, for each row decoded: bounds its memory


@dataclass(slots=True)
class Completion:
    """The tokens after the prompt, the end token included, and the log-probability of each (natural log)."""

    prompt: int  # index into the prompts
    sample: int  # index within the prompt's group
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False  # ended with an end token
    truncated: bool = False  # ended because the limit was reached

    @property
    def ended(self) -> bool:
        return self.finished or self.truncated


def sample(model: LanguageModel, prompts: list[list[int]], keys: list[str], *, samples: int = 1,
           done: Callable[[int], None] = lambda count: None, **settings) -> list[Completion]:
    """``samples`` completions of each prompt, in the order of the prompts.

    ``done`` is called with the number of completions that ended, for progress; the rest is that of ``steps``.
    """
    found = []
    for rows in steps(model, prompts, keys, samples=samples, **settings):
        ended = [row for row in rows if row.ended]
        found += ended
        if ended:
            done(len(ended))
    return sorted(found, key=lambda c: (c.prompt, c.sample))


def steps(
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
    cut: Truncation | None = None,
    look: int = 16,
) -> Iterator[list[Completion]]:
    """Sample, and after every step yield the completions that got a token in it; those that ended come no more.

    Args:
        prompts: token ids, each at least one long.
        keys: one id per prompt, the "prompt id" of the keyed random numbers.
        max_new_tokens: a completion ends here, or where prompt and completion fill the model's positions.
        slots: sequences decoded at a time; at least ``samples``.
        cut: top-k, top-p, min-p; for serving only.
        look: on a GPU, steps between two yields: a completion has got up to as many tokens then, a new one one more.

    Raises BadInput for a prompt that leaves no room in the model's positions.
    """
    queue = Queue(prompts, _budgets([len(p) for p in prompts], max_new_tokens, model.config.max_position_embeddings),
                  set(end_ids), lambda i, s: rng_key(seed, step, keys[i], s))
    if not prompts:
        return
    rows = min(max(slots, samples), len(prompts) * samples)
    room = min(len(prompts), rows, -(-2 * rows // samples))  # prompts held at a time
    longest, most = max(map(len, prompts)), max(queue.budgets)
    if cuda_graph.is_supported(model, bool(cut)):
        yield from _looks(CudaGraphDecoder(model, rows, room, samples, longest, most, temperature, look), queue, look)
    else:
        cache = Cache(model.config, rows, room, longest, most, model.dtype, model.device, model.deterministic)
        yield from _one_by_one(FusedDecoder(model, longest + most), cache, queue, samples, rows, temperature, cut)


class Queue:
    """The prompts that wait, the longest first, and what ends a completion."""

    def __init__(self, prompts: list[list[int]], budgets: list[int], ends: set[int],
                 stream_of: Callable[[int, int], int]):
        """``stream_of`` (prompt, sample): where its random numbers start (categorical.py)."""
        self.prompts, self.budgets, self.ends, self.stream_of = prompts, budgets, ends, stream_of
        self.waiting = deque(sorted(range(len(prompts)), key=lambda i: -len(prompts[i])))

    def take(self, most: int, rows: int) -> list[int]:
        """The prompts of one pass: at most ``most``, and of at most PREFILL_PER_ROW padded tokens a row (or one)."""
        group: list[int] = []
        while self.waiting and len(group) < most:
            if group and (len(group) + 1) * len(self.prompts[group[0]]) > PREFILL_PER_ROW * rows:
                break
            group.append(self.waiting.popleft())
        return group

    def put(self, row: Completion, token: int, logprob: float) -> None:
        """One more token of a row that has not ended."""
        row.ids.append(token)
        row.logprobs.append(logprob)
        row.finished = token in self.ends
        row.truncated = not row.finished and len(row.ids) == self.budgets[row.prompt]


def _one_by_one(decode: FusedDecoder, cache: Cache, queue: Queue, samples: int, most: int, temperature: float,
                cut: Truncation | None) -> Iterator[list[Completion]]:
    """``steps`` on a CPU, and wherever captured.py does not serve: rows come and go after every token."""
    model, rows, changed = decode.model, [], False
    streams = np.zeros(0, np.uint64)
    last = torch.zeros(0, dtype=torch.int64, device=model.device)  # the newest token of each row
    while queue.waiting or rows:
        with torch.no_grad() if model.sharded else torch.inference_mode():  # gathered weights are trained with later
            hidden = [decode.step(last, cache)] if rows else []
            while group := queue.take(min((most - len(rows)) // samples, len(cache.free)), most):
                hidden.append(_prefill(model, cache, [queue.prompts[i] for i in group], samples))
                rows += [Completion(i, s) for i in group for s in range(samples)]
                changed = True
            if changed:
                streams = np.array([queue.stream_of(r.prompt, r.sample) for r in rows], np.uint64)
            u = None if temperature == 0 else uniform_at(streams, np.array([len(r.ids) for r in rows]))
            last, logprobs = _draw(model, torch.cat(hidden), u, temperature, cut)
            for row, token, logprob in zip(rows, last.tolist(), logprobs.tolist()):
                queue.put(row, token, logprob)
            fresh, gone = rows, [i for i, row in enumerate(rows) if row.ended]
            if changed := bool(gone):
                kept = cache.release(gone)
                rows, last = [rows[i] for i in kept], last[kept]
        yield fresh


def _looks(engine: CudaGraphDecoder, queue: Queue, look: int) -> Iterator[list[Completion]]:
    """``steps`` on a GPU: rows come and go every ``look`` steps."""
    rows: list[Completion] = []
    while queue.waiting or rows:
        with torch.inference_mode():
            old, k = len(rows), engine.samples
            while group := queue.take(min((engine.rows - len(rows)) // k, len(engine.free)), engine.rows):
                fresh = [Completion(i, s) for i in group for s in range(k)]
                engine.admit([queue.prompts[i] for i in group], [queue.stream_of(r.prompt, r.sample) for r in fresh])
                rows += fresh
            engine.run(look)
            ids, logprobs = engine.newest(look + 1)
            finite(logprobs)
            for n, row in enumerate(rows):
                first = 1 if n < old else 0  # a new row has one token more
                for token, logprob in zip(ids[n, first:].tolist(), logprobs[n, first:].tolist()):
                    queue.put(row, token, logprob)
                    if row.ended:
                        break
            shown = rows
            if gone := [n for n, row in enumerate(rows) if row.ended]:
                rows = [rows[n] for n in engine.release(gone)]
        yield shown


def _draw(model: LanguageModel, hidden: Tensor, u: np.ndarray | None, temperature: float,
          cut: Truncation | None) -> tuple[Tensor, Tensor]:
    logits = model.logits(hidden).float()
    u = None if u is None else torch.from_numpy(u).to(logits.device)
    if not model.deterministic:
        return sample_inverse_cdf(logits, u, temperature, cut)
    u = torch.zeros(len(logits)) if u is None else u

    def one_shape(logits: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        ids, logprobs = sample_inverse_cdf(logits, u[:, 0] if temperature else None, temperature, cut)
        return ids, logprobs if cut else token_logprobs(logits, ids, temperature or 1.0)  # as training computes them

    return model.by_rows(one_shape, logits, u[:, None])


def _budgets(lengths: list[int], most: int, positions: int) -> list[int]:
    """How many tokens may follow each prompt: ``most``, or what its length leaves of the model's positions."""
    if max(lengths, default=0) >= positions:
        raise BadInput(f"a prompt of {max(lengths)} tokens leaves no room in the model's {positions} positions")
    return [min(most, positions - length) for length in lengths]


def _prefill(model: LanguageModel, cache: Cache, prompts: list[list[int]], samples: int) -> Tensor:
    """Run the prompts once and give each ``samples`` rows. -> last hidden states [prompts * samples, C]"""
    ids, lengths = padded(prompts, model.device)
    cache.begin_prefill([len(prompt) for prompt in prompts])
    hidden = model(ids, cache=cache, output_positions=last_places(ids, lengths))
    cache.admit(samples)
    return hidden.repeat_interleave(samples, 0)
