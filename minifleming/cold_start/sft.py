"""Supervised fine-tuning on traces (arXiv:2509.15279 §3.2).

    L = - (1/N) Σ_(x,y) Σ_t log π(y_t | x, y_<t)     N = target tokens of the step, over all ranks

Targets are the completion's tokens and the end token; the prompt is masked. Sequences are packed
without padding and do not attend to each other (lm/pack.py). AdamW with linear warm-up, cosine
decay and gradient clipping; on a GPU matrix products run in bf16 over fp32 weights. Validation
traces are measured along the way, and the model ends with the weights of the best measurement.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minifleming.cold_start.sft_checkpoint import SftCheckpointer
from minifleming.cold_start.trace import Trace
from minifleming.kernels.head import TokenLoss
from minifleming.lm import optimizer as optim
from minifleming.lm import pack as packing
from minifleming.lm.fsdp import activation_checkpointing, gathered_copy, pad_batches_across_ranks
from minifleming.lm.model import LanguageModel
from minifleming.lm.pack import Example, Pack, pack_groups, packed_logprobs
from minifleming.lm.sampler import SamplingParams, generate
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_for_training, save_model, weights_checksum
from minifleming.rods.answer import parse_strict
from minifleming.run import distributed
from minifleming.run.checkpoint import write_folder_together
from minifleming.run.errors import BadInput, DeferSignals, Terminated
from minifleming.run.fields import ColdStart, Config
from minifleming.run.run_folder import Journal, bar

EPOCH_STREAM = 0x5F7  # separates the shuffles from other uses of the seed


def split_traces(traces: Sequence[Trace], fraction: float,
                 seed: int) -> tuple[list[Trace], list[Trace]]:
    """Returns training and validation traces, in order; a hash of the item id decides."""
    training, validation = [], []
    for trace in traces:
        digest = hashlib.sha256(f"{seed}\x1f{trace.item}".encode()).digest()
        is_validation = int.from_bytes(digest[:8], "big") < fraction * 2**64
        (validation if is_validation else training).append(trace)
    return training, validation


def examples_of(traces: list[Trace], tokenizer: Tokenizer,
                max_tokens: int) -> tuple[list[Trace], list[Example]]:
    """Returns the traces of at most ``max_tokens`` tokens, and their tokens."""
    fitting, examples = [], []
    for trace in traces:
        prompt = tokenizer.prompt(trace.question, trace.options)
        completion = tokenizer.encode(trace.completion) + tokenizer.end_ids[:1]
        example = Example(tokenizer.encode(prompt), completion)
        if len(example) <= max_tokens:
            fitting.append(trace)
            examples.append(example)
    return fitting, examples


def count_targets(examples: list[Example]) -> int:
    return sum(len(example.completion) for example in examples)


@dataclass(frozen=True)
class ValidationSet:
    """Held-out traces, on which loss and accuracy are measured during training."""

    traces: list[Trace]
    examples: list[Example]
    tokenizer: Tokenizer
    micro_batch_tokens: int

    def measure(self, model: LanguageModel) -> tuple[float, float]:
        """Returns the mean loss (nats per target token) and the strict greedy accuracy.

        An answer may be twice as long as the longest trace; a longer one is wrong.
        """
        mine = distributed.shard_list(list(range(len(self.examples))))
        sums = [self.sum_loss(model, mine), self.num_correct(model, mine)]
        loss, correct = distributed.all_sum(sums, model.device)
        return loss / count_targets(self.examples), correct / len(self.examples)

    @torch.inference_mode()
    def sum_loss(self, model: LanguageModel, rows: list[int]) -> float:
        total = 0.0
        for pack in pack_groups([self.examples[i] for i in rows], self.micro_batch_tokens):
            logprobs = packed_logprobs(model, pack)
            total += -logprobs.sum().item()
        return total

    def num_correct(self, model: LanguageModel, rows: list[int]) -> int:
        longest = max(len(example.completion) for example in self.examples)
        prompts = [self.examples[i].prompt for i in rows]
        params = SamplingParams(2 * longest, self.tokenizer.end_ids, temperature=0)
        completions = generate(model, prompts, [str(i) for i in rows], params)
        correct = 0
        for row in completions:
            text = self.tokenizer.decode(row.ids[:-1] if row.finished else row.ids)
            trace = self.traces[rows[row.prompt]]
            verdict = parse_strict(text, "".join(trace.options), row.finished)
            correct += verdict.label == trace.answer
        return correct


def fine_tune(base: Path, traces: list[Trace], out: Path, cfg: Config, device: torch.device,
              journal: Journal) -> dict[str, int]:
    """Trains the model folder ``base`` on the traces and writes the model folder ``out``.

    Returns the number of traces trained on, dropped as too long, and held out; the first two are
    the metrics of step 0. Checkpoints are in ``out``.checkpoints while it runs. Raises BadInput if
    no trace is left to train on.
    """
    settings = cfg.cold_start
    tokenizer = Tokenizer(base)
    training, held_out = split_traces(traces, settings.val_fraction, cfg.run.seed)
    if not training:
        raise BadInput("every trace is held out, none is left (cold_start.val_fraction)")
    _, examples = examples_of(training, tokenizer, settings.max_tokens)
    if not examples:
        raise BadInput(f"all {len(training)} traces are longer than cold_start.max_tokens")
    validation = None
    fitting, held_out_examples = examples_of(held_out, tokenizer, settings.max_tokens)
    if fitting:
        validation = ValidationSet(fitting, held_out_examples, tokenizer,
                                   settings.micro_batch_tokens)
    model = load_for_training(base, cfg, device)
    train(model, examples, settings, seed=cfg.run.seed, journal=journal, validation=validation,
          folder=checkpoints_of(out))
    dropped = len(training) - len(examples)
    # before the model folder: once that exists, a resumed run does not come here again
    journal.metric(stage="cold_start", step=0, traces=len(examples), dropped=dropped)
    journal.sync()
    write_folder_together(out, partial(save_model, model, tokenizer))
    remove_checkpoints(out)
    return {"traces": len(examples), "dropped": dropped, "held_out": len(held_out)}


def checkpoints_of(out: Path) -> Path:
    """Returns the folder of the checkpoints from which the training of ``out`` resumes."""
    return out.with_name(f"{out.name}.checkpoints")


def remove_checkpoints(out: Path) -> None:
    """Removes the checkpoints of the finished model folder ``out``."""
    if distributed.rank() == 0:
        shutil.rmtree(checkpoints_of(out), ignore_errors=True)


def train(model: LanguageModel, examples: list[Example], cfg: ColdStart, *, seed: int,
          journal: Journal, validation: ValidationSet | None = None,
          folder: Path | None = None) -> None:
    """Trains for ``cfg.epochs`` passes in seeded order, ``cfg.batch`` sequences per step.

    ``folder`` holds checkpoints: a killed run resumes from the newest, an interrupted run saves
    and exits, and with ``validation`` the model ends with the weights of the best accuracy (ties:
    lower loss). Remove it once the model is written. Raises BadInput if an example exceeds the
    model's positions, or if ``folder`` belongs to another run.
    """
    longest = max(map(len, examples))
    positions = model.config.max_position_embeddings
    if longest > positions:
        reason = f"a trace has {longest} tokens, and the model {positions} positions"
        raise BadInput(f"cold_start.max_tokens: {reason}")
    steps = max(1, math.ceil(cfg.epochs * len(examples) / cfg.batch))
    order = epoch_order(len(examples), steps * cfg.batch, seed)
    measured = {round(steps * (i + 1) / cfg.num_evals) for i in range(cfg.num_evals)}
    optimizer = optim.adamw(model, cfg.lr, (0.9, 0.95), cfg.weight_decay)
    checkpointer = None
    first = 0
    if folder:
        fingerprint = run_fingerprint(model, examples, cfg, seed)
        checkpointer = SftCheckpointer(model, optimizer, folder, fingerprint)
        first = checkpointer.restore(journal)
    with activation_checkpointing(model, cfg.activation_checkpointing), DeferSignals() as signals:
        for step in bar(range(first, steps), total=steps, initial=first, desc="cold start"):
            batch = [examples[i] for i in order[step * cfg.batch : (step + 1) * cfg.batch]]
            optim.set_lr(optimizer, cfg.lr * optim.cosine_schedule(step, steps, cfg.warmup))
            metrics = one_step(model, optimizer, batch, cfg, step)
            journal.metric(stage="cold_start", step=step + 1, **metrics)
            if validation and step + 1 in measured:
                with gathered_copy(model) as copy:
                    loss, accuracy = validation.measure(copy)
                journal.metric(stage="cold_start", step=step + 1, val_loss=loss,
                               val_accuracy=accuracy, val_traces=len(validation.examples))
                if checkpointer:
                    checkpointer.update_best(step + 1, accuracy, loss)
            interrupted = distributed.any_rank(signals.received is not None, model.device)
            is_due = (step + 1) % cfg.checkpoint_every == 0 and step + 1 < steps
            if checkpointer and (interrupted or is_due):
                checkpointer.save(step + 1, journal)
            if interrupted:
                raise signals.received or Terminated()
    optimizer.zero_grad(set_to_none=True)
    if checkpointer:
        checkpointer.load_best(steps)


def run_fingerprint(model: LanguageModel, examples: list[Example], cfg: ColdStart,
                    seed: int) -> str:
    """Returns a hash of the weights, the examples in order, the settings and the world size."""
    pairs = list(map(dataclasses.asdict, examples))
    settings = dataclasses.asdict(cfg)
    world_size = distributed.world_size()
    text = json.dumps([weights_checksum(model), pairs, settings, seed, world_size])
    return hashlib.sha256(text.encode()).hexdigest()


def one_step(model: LanguageModel, optimizer: torch.optim.Optimizer, batch: list[Example],
             cfg: ColdStart, step: int) -> dict[str, float]:
    """Takes one optimizer step on the global batch and returns its metrics.

    Raises RunFailed before the update if the loss or the gradient norm is not finite.
    """
    num_targets = count_targets(batch)
    optimizer.zero_grad(set_to_none=True)
    loss = backward(model, distributed.shard_list(batch), num_targets, cfg)
    loss = distributed.all_sum([loss], model.device)[0]
    where = f"cold start, step {step + 1}: "
    norm = optim.optimizer_step(model, optimizer, cfg.max_grad_norm, loss, where)
    lr = optimizer.param_groups[0]["lr"]
    return {"loss": loss, "grad_norm": norm, "lr": lr, "target_tokens": num_targets}


def backward(model: LanguageModel, examples: list[Example], num_targets: int,
             cfg: ColdStart) -> float:
    """Accumulates the gradient of these examples' share of the loss and returns that share.

    ``num_targets`` is the global number of target tokens.
    """
    packs = pack_groups(examples, cfg.micro_batch_tokens)
    total = 0.0
    for pack in pad_batches_across_ranks(packs, model):
        if pack is None:  # this rank has run out of packs; join the FSDP collectives of the others
            packing.dummy_forward(model).sum().mul(0).backward()
            continue
        loss = micro_batch_loss(model, pack, num_targets)
        loss.backward()
        total += loss.item()
    return total


def micro_batch_loss(model: LanguageModel, pack: Pack, num_targets: int) -> Tensor:
    """Returns what a pack adds to the loss, as a scalar with a gradient."""
    if model.batch_invariant:
        return -packed_logprobs(model, pack).sum() / num_targets
    weight = torch.full(pack.labels.shape, -1 / num_targets, device=model.device)
    loss, _ = packing.packed_loss(model, pack, TokenLoss("weighted", weight))
    return loss


def epoch_order(count: int, length: int, seed: int) -> list[int]:
    """Returns ``length`` indices: seeded permutations of range(count), one after the other."""
    order: list[int] = []
    epoch = 0
    while len(order) < length:
        rng = np.random.default_rng([seed, EPOCH_STREAM, epoch])
        order += rng.permutation(count).tolist()
        epoch += 1
    return order[:length]
