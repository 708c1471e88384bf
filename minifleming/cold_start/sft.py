"""Supervised fine-tuning on traces (arXiv:2509.15279 §3.2).

    L = - (1/N) Σ_(x,y) Σ_t log π(y_t | x, y_<t)        N = target tokens of the optimizer step, over all ranks

Targets are the completion's tokens and the end token; the prompt is masked. AdamW, linear warm-up, cosine.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from minifleming.cold_start.teacher import Trace
from minifleming.lm import optimizer as optim
from minifleming.lm.batch import Example, fits, micro_batches
from minifleming.lm.model import LanguageModel
from minifleming.lm.score import completion_logprobs
from minifleming.lm.tokenizer import Tokenizer
from minifleming.run import parallel
from minifleming.run.errors import RunFailed
from minifleming.run.fields import ColdStart
from minifleming.run.progress import Journal, bar


def examples_of(traces: list[Trace], tokenizer: Tokenizer, longest: int) -> tuple[list[Example], int]:
    """Each trace as (prompt ids, completion ids + end token), and how many were too long and dropped."""
    return fits([
        Example(tokenizer.encode(tokenizer.prompt(trace.question, trace.options)),
                tokenizer.encode(trace.completion) + tokenizer.end_ids[:1])
        for trace in traces
    ], longest)


def train(model: LanguageModel, examples: list[Example], cfg: ColdStart, *, seed: int, tokens: int,
          journal: Journal) -> None:
    """``cfg.epochs`` passes in seeded order, ``cfg.batch`` sequences a step."""
    steps = max(1, math.ceil(cfg.epochs * len(examples) / cfg.batch))
    order = epoch_order(len(examples), steps * cfg.batch, seed)
    optimizer = optim.adamw(model, cfg.lr, (0.9, 0.95), cfg.weight_decay)
    for step in bar(range(steps), desc="cold start"):
        drawn = [examples[i] for i in order[step * cfg.batch : (step + 1) * cfg.batch]]
        total = sum(len(example.completion) for example in drawn)
        lr = cfg.lr * optim.cosine(step, steps, cfg.warmup)
        optim.set_lr(optimizer, lr)
        optimizer.zero_grad(set_to_none=True)
        loss = backward(model, parallel.share(drawn), total, tokens)
        loss = parallel.all_sum([loss], model.device)[0]
        parameters = list(model.parameters())
        parallel.sum_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, cfg.max_grad_norm).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise RunFailed(f"cold start, step {step + 1}: loss {loss}, gradient norm {norm}")
        optimizer.step()
        journal.metric(stage="cold_start", step=step + 1, loss=loss, grad_norm=norm, lr=lr, target_tokens=total)
    optimizer.zero_grad(set_to_none=True)


def backward(model: LanguageModel, examples: list[Example], total: int, tokens: int) -> float:
    """Add the gradient of these examples' share of the loss; ``total`` is the global target count."""
    loss = 0.0
    for batch in micro_batches(examples, tokens):
        logprobs, _ = completion_logprobs(model, batch)
        part = -logprobs.sum() / total
        part.backward()
        loss += part.item()
    return loss


def epoch_order(count: int, length: int, seed: int) -> list[int]:
    """``length`` indices: one seeded permutation of range(count) after the other."""
    order: list[int] = []
    epoch = 0
    while len(order) < length:
        order += np.random.default_rng([seed, 0x5F7, epoch]).permutation(count).tolist()
        epoch += 1
    return order[:length]
