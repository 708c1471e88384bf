"""Supervised fine-tuning on traces (arXiv:2509.15279 §3.2).

    L = - (1/N) Σ_(x,y) Σ_t log π(y_t | x, y_<t)        N = target tokens of the optimizer step, over all ranks

Targets are the completion's tokens and the end token; the prompt is masked. Documents are packed without padding, and
none sees another (lm/pack.py). AdamW, linear warm-up, cosine, clipping; on a GPU the products run in bf16 over fp32
weights. Held-out traces are measured along the way, and the model ends as the best of these times.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minifleming.cold_start.heldout import HeldOut
from minifleming.cold_start.saved import Saved
from minifleming.cold_start.trace import Trace
from minifleming.kernels.head import TokenLoss
from minifleming.lm import optimizer as optim
from minifleming.lm.batch import Batch, Example, drop_too_long, micro_batches
from minifleming.lm.checkpointing import activation_checkpointing
from minifleming.lm.fsdp import gathered_copy, pad_batches_across_ranks
from minifleming.lm.logprobs import completion_logprobs
from minifleming.lm.model import LanguageModel
from minifleming.lm.pack import Pack, pack_groups, packed_logprobs, packed_loss
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import weights_checksum
from minifleming.run import distributed
from minifleming.run.errors import BadInput, Hold, Terminated
from minifleming.run.fields import ColdStart
from minifleming.run.progress import Journal, bar

IDLE = Example([0], [0])  # what a rank runs to keep step with the others


def examples_of(traces: list[Trace], tokenizer: Tokenizer, longest: int) -> tuple[list[Example], int]:
    """Each trace as (prompt ids, completion ids + end token), and how many were too long and dropped."""
    return drop_too_long([example_of(trace, tokenizer) for trace in traces], longest)


def example_of(trace: Trace, tokenizer: Tokenizer) -> Example:
    return Example(tokenizer.encode(tokenizer.prompt(trace.question, trace.options)),
                   tokenizer.encode(trace.completion) + tokenizer.end_ids[:1])


def held_out(traces: list[Trace], tokenizer: Tokenizer, cfg: ColdStart) -> HeldOut | None:
    """What is measured while training; None if no held-out trace fits."""
    pairs = [(example_of(trace, tokenizer), trace) for trace in traces]
    pairs = [(example, trace) for example, trace in pairs if len(example) <= cfg.max_tokens]
    return HeldOut([example for example, _ in pairs], ["".join(trace.options) for _, trace in pairs],
                   [trace.answer for _, trace in pairs], tokenizer, cfg.micro_batch_tokens) if pairs else None


def train(model: LanguageModel, examples: list[Example], cfg: ColdStart, *, seed: int, journal: Journal,
          held: HeldOut | None = None, home: Path | None = None) -> None:
    """``cfg.epochs`` passes in seeded order, ``cfg.batch`` sequences a step.

    With ``held`` the model ends as it was at the measurement with the best accuracy (of equals, the lower loss).
    ``home`` is a folder for checkpoints: a killed run goes on from the newest, an interrupted one saves and leaves.
    It is to be removed when the model is written. Raises BadInput if an example is too long for the model, or if
    ``home`` is of another run.
    """
    longest, room = max(map(len, examples)), model.config.max_position_embeddings
    if longest > room:
        raise BadInput(f"cold_start.max_tokens: a trace has {longest} tokens, and the model {room} positions")
    steps = max(1, math.ceil(cfg.epochs * len(examples) / cfg.batch))
    order = epoch_order(len(examples), steps * cfg.batch, seed)
    optimizer = optim.adamw(model, cfg.lr, (0.9, 0.95), cfg.weight_decay)
    saved = Saved(model, optimizer, home, made_from(model, examples, cfg, seed) if home else "")
    first = saved.restore(journal)
    times = {round(steps * (i + 1) / cfg.num_evals) for i in range(cfg.num_evals)}
    with activation_checkpointing(model, cfg.activation_checkpointing), Hold() as hold:
        for step in bar(range(first, steps), total=steps, initial=first, desc="cold start"):
            drawn = [examples[i] for i in order[step * cfg.batch : (step + 1) * cfg.batch]]
            optim.set_lr(optimizer, cfg.lr * optim.cosine_schedule(step, steps, cfg.warmup))
            journal.metric(stage="cold_start", step=step + 1, **one_step(model, optimizer, drawn, cfg, step))
            if held and step + 1 in times:
                measure(model, held, saved, journal, step + 1)
            left = distributed.anyone(hold.came is not None, model.device)
            if home and (left or (step + 1) % cfg.checkpoint_every == 0 and step + 1 < steps):
                saved.save(step + 1, journal)
            if left:
                raise hold.came or Terminated()
    optimizer.zero_grad(set_to_none=True)
    saved.take_best(steps)


def measure(model: LanguageModel, held: HeldOut, saved: Saved, journal: Journal, step: int) -> None:
    """How the held-out traces fare, and the weights kept if never better."""
    with gathered_copy(model, model.compute_dtype or model.dtype) as copy:
        loss, accuracy = held.measure(copy)
    journal.metric(stage="cold_start", step=step, heldout_loss=loss, heldout_accuracy=accuracy,
                   heldout=len(held.examples))
    saved.measured(step, accuracy, loss)


def made_from(model: LanguageModel, examples: list[Example], cfg: ColdStart, seed: int) -> str:
    """What identifies a run: its weights, its examples in their order, its settings."""
    listed = json.dumps([[example.prompt, example.completion] for example in examples])
    text = json.dumps([weights_checksum(model), listed, dataclasses.asdict(cfg), seed, distributed.world_size()])
    return hashlib.sha256(text.encode()).hexdigest()


def one_step(model: LanguageModel, optimizer: torch.optim.Optimizer, drawn: list[Example], cfg: ColdStart,
             step: int) -> dict[str, float]:
    """Forward, backward, sums over ranks, clipping, update. Raises RunFailed before an update that is not finite."""
    total = sum(len(example.completion) for example in drawn)
    optimizer.zero_grad(set_to_none=True)
    loss = backward(model, distributed.share(drawn), total, cfg)
    loss = distributed.all_sum([loss], model.device)[0]
    norm = optim.optimizer_step(model, optimizer, cfg.max_grad_norm, loss, f"cold start, step {step + 1}: ")
    return {"loss": loss, "grad_norm": norm, "lr": optimizer.param_groups[0]["lr"], "target_tokens": total}


def backward(model: LanguageModel, examples: list[Example], total: int, cfg: ColdStart) -> float:
    """Add the gradient of these examples' share of the loss; ``total`` is the global target count."""
    loss, cut = 0.0, pack_groups if cfg.packing else micro_batches
    for batch in pad_batches_across_ranks(cut(examples, cfg.micro_batch_tokens), model):
        part = part_of(model, batch or cut([IDLE], 2)[0], total) * (1 if batch else 0)
        part.backward()
        loss += part.item()
    return loss


def part_of(model: LanguageModel, batch: Pack | Batch, total: int) -> Tensor:
    """What a micro-batch adds to the loss."""
    if isinstance(batch, Batch) or model.deterministic:
        logprobs, _ = (completion_logprobs if isinstance(batch, Batch) else packed_logprobs)(model, batch)
        return -logprobs.sum() / total
    weight = torch.full(batch.labels.shape, -1 / total, device=model.device)
    return packed_loss(model, batch, TokenLoss("weighted", weight))[0]


def epoch_order(count: int, length: int, seed: int) -> list[int]:
    """``length`` indices: one seeded permutation of range(count) after the other."""
    order: list[int] = []
    epoch = 0
    while len(order) < length:
        order += np.random.default_rng([seed, 0x5F7, epoch]).permutation(count).tolist()
        epoch += 1
    return order[:length]
