"""Estimates memory per rank by arithmetic (`--dry-run`).

    all along    weights, gradients and two moments in fp32, divided by the ranks that share them
    rollout      the copy that samples, its cache, the logits of a decode step
    update       gathered weights and their gradients, activations of a micro-batch, the head
    cold start   the same for packed traces

The last three take turns, so the peak is all along + the largest of them. tests/extras/plan
compares the bytes with the tensors of real passes.

e bytes per element in computation (2 or 4), r bytes per element between blocks, p prompt and t
completion tokens, k samples per prompt.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from minifleming.extras.plan.model_shapes import shape_of
from minifleming.kernels.head import chunk_rows
from minifleming.lm.config import ARCHITECTURES, ModelConfig
from minifleming.lm.model import LanguageModel
from minifleming.lm.weights import compute_dtype_of
from minifleming.run import config as configuration
from minifleming.run.errors import BadInput
from minifleming.run.fields import Config

GPUS = {"a100": 80e9, "h100": 80e9, "h200": 141e9}  # bytes of memory
PROMPT = 512  # tokens of a prompt, assumed


@dataclass(frozen=True)
class Batch:
    """A micro-batch: ``rows`` completions of ``t`` tokens after ``prompts`` prompts of ``p``."""

    prompts: int
    p: int
    rows: int
    t: int

    @property
    def tokens(self) -> int:
        return self.prompts * self.p + self.rows * (self.t - 1)

    @property
    def learned(self) -> int:
        return self.rows * self.t


@dataclass
class Plan:
    lines: list[str]
    memory: dict[str, dict[str, float]]  # bytes of a rank by phase and name; the first one always

    @property
    def peak(self) -> float:
        """Bytes on the device."""
        always, *phases = [sum(part.values()) for part in self.memory.values()]
        return always + max(phases)


def block_activation_bytes(c: ModelConfig, batch: Batch, e: int, r: int,
                           last: bool = False) -> float:
    """Bytes that one block saves for the backward pass.

    These are its input and the sum between its halves (r bytes), the outputs of both norms,
    queries, keys, values, the attention's output, gate, up and their product. The last block
    computes its MLP only for positions that the head reads.
    """
    heads, groups = c.num_attention_heads, c.num_key_value_heads
    q, kv = heads * c.head_dim, groups * c.head_dim
    attention = (r + e) * c.hidden_size + e * (2 * q + 2 * kv) + 4 * (1 + heads)  # sums in fp32
    mlp = (r + e) * c.hidden_size + e * 3 * c.intermediate_size + 4
    if ARCHITECTURES[c.model_type]["qk_norm"]:
        attention += e * (q + kv) + 4 * (heads + groups)
    if last:
        return batch.tokens * attention + batch.learned * (mlp + e * q)
    return batch.tokens * (attention + mlp)


def activations(c: ModelConfig, batch: Batch, e: int, recompute: bool, r: int) -> float:
    """Bytes that the forward pass saves below the head; recomputation saves only block inputs."""
    blocks = c.num_hidden_layers * batch.tokens * c.hidden_size * r
    if not recompute:
        blocks = (c.num_hidden_layers - 1) * block_activation_bytes(c, batch, e, r)
        blocks += block_activation_bytes(c, batch, e, r, last=True)
    return blocks + batch.learned * c.hidden_size * r + batch.tokens * 8 * c.head_dim


def head(c: ModelConfig, learned: int, e: int, cuda: bool) -> float:
    """Bytes of kernels/head.py: gradients of states and weight, and a chunk of logits (three in
    PyTorch)."""
    rows = min(learned, chunk_rows(c.vocab_size, e, cuda))
    logits = rows * c.vocab_size * (e if cuda else 8 + 2 * (e == 2))
    return learned * (2 * c.hidden_size * e + 16) + 4 * c.vocab_size * c.hidden_size + logits


def peak_extra_bytes(c: ModelConfig, batch: Batch, e: int, recompute: bool, r: int,
                     cuda: bool) -> float:
    """The most bytes besides the activations: in the head, in a norm's backward, or in a block."""
    norm = batch.tokens * c.hidden_size * (16 if e == 4 else 20)
    block = 2 * batch.tokens * c.intermediate_size * e
    if recompute:
        block += block_activation_bytes(c, batch, e, r) - batch.tokens * c.hidden_size * r
    return max(head(c, batch.learned, e, cuda), norm, block)


def cache(c: ModelConfig, rows: int, slots: int, p: int, t: int, e: int) -> float:
    """Bytes of a KV cache (lm/kv_cache.py, lm/engines/cuda_graph.py)."""
    token = 2.0 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * e
    return token * (slots * p + rows * t)


def sizes(c: ModelConfig) -> tuple[int, int]:
    """Numbers of parameters: of the model, and of one block."""
    with torch.device("meta"):
        model = LanguageModel(c)
    block = sum(p.numel() for p in model.model.layers[0].parameters())
    return sum(p.numel() for p in model.parameters()), block


def plan(cfg: Config, c: ModelConfig, ranks: int, e: int, cuda: bool = False) -> Plan:
    """The plan for ``ranks`` ranks that compute with ``e`` bytes per element. Raises BadInput."""
    share = cfg.run.fsdp_size or ranks
    if ranks % share:
        raise BadInput(f"run.fsdp_size: {ranks} ranks are no whole number of groups of {share}")
    # the longest RL step of one rank
    rl, k = cfg.rl, max(cfg.stage1.samples_per_prompt, cfg.stage2.samples_per_prompt)
    prompts = -(-rl.prompts_per_step // ranks)
    p = min(PROMPT, c.max_position_embeddings // 2)
    t = min(rl.max_new_tokens, c.max_position_embeddings - p)
    seqs = max(rl.max_num_seqs, k)
    rows = k * min(prompts, max(1, rl.max_num_seqs // k))
    slots = min(prompts, seqs, -(-2 * seqs // k))
    batch = largest_microbatch(rl.micro_batch_tokens, prompts, p, k, t)
    n, block = sizes(c)
    root, sharded = n - c.num_hidden_layers * block, cfg.run.fsdp_size != 1
    r = e if sharded else 4
    always = {"weights": 4 * n / share, "gradients": 4 * n / share, "moments": 8 * n / share}
    if rl.kl_coef > 0:
        always["reference model"] = 4 * n / share
    gathered = {"gathered weights": (2 * block + root if sharded else n if e == 2 else 0) * e,
                "their gradients": max(root, block) * (e + 4) if sharded else 0}
    rollout = {"copy that samples": (n if sharded or e == 2 else 0) * e,
               "cache": cache(c, rows, slots, p, t, e), "on the way": rows * c.vocab_size * (e + 8)}
    memory = {"all along": always, "while it samples": rollout, "while it updates":
              gathered | training(c, batch, e, rl.activation_checkpointing, r, cuda)}
    if cfg.cold_start.enabled:
        pack = Batch(0, 0, 1, cfg.cold_start.micro_batch_tokens + 1)  # every token is a target
        memory["in the cold start"] = gathered | training(
            c, pack, e, cfg.cold_start.activation_checkpointing, r, cuda)
    return Plan([
        f"prompts a step: {rl.prompts_per_step} on {ranks} ranks, at most {prompts} each, "
        f"{k} samples of each",
        f"prompts of {p} tokens (assumed), completions of up to {t}",
        f"rollout: {rows} sequences at a time; update: micro-batches of up to {batch.rows} "
        f"completions, {batch.tokens} tokens",
    ], memory)


def training(c: ModelConfig, batch: Batch, e: int, recompute: bool, r: int,
             cuda: bool) -> dict[str, float]:
    return {"activations": activations(c, batch, e, recompute, r),
            "the head, or a block": peak_extra_bytes(c, batch, e, recompute, r, cuda)}


def largest_microbatch(tokens: int, prompts: int, p: int, k: int, t: int) -> Batch:
    """The micro-batch that rlvr/update.py makes of completions that all have ``t`` tokens."""
    rows = min(k, max(1, (tokens - p) // (t - 1)))
    several = max(1, tokens // (p + k * (t - 1))) if rows == k else 1
    return Batch(min(prompts, several), p, min(prompts, several) * rows, t)


def describe(plan: Plan, ranks: int, gpu: str, on_gpu: bool) -> str:
    """The tables of --dry-run."""
    title = f"Plan for {ranks} rank{'s' * (ranks > 1)}, by arithmetic"
    lines = [f"{title} (minifleming/extras/plan/plan.py)"]
    lines += [f"  {line}" for line in plan.lines]
    lines.append("Memory of a rank")
    for name, part in plan.memory.items():
        lines.append(f"  {name}")
        lines += [f"    {what:<22}{size / 1e9:>10.3f} GB" for what, size in part.items()]
    lines.append(f"  {'peak':<24}{plan.peak / 1e9:>10.3f} GB")
    if on_gpu:
        verdict = "fits" if plan.peak < 0.9 * GPUS[gpu] else "DOES NOT FIT"
        lines.append(f"  {'of one ' + gpu.upper():<24}{GPUS[gpu] / 1e9:>10.3f} GB: {verdict}, "
                     "a tenth left for the unplanned")
    return "\n".join(lines)


def dry_run(cfg: Config, ranks: int | None = None, gpu: str | None = None) -> str:
    """The configuration and its plan; the recipes' models need no weights. Raises BadInput."""
    ranks = int(os.environ.get("WORLD_SIZE", "1")) if ranks is None else ranks
    if ranks < 1:
        raise BadInput("--ranks: must be positive")
    if gpu and gpu not in GPUS:
        raise BadInput(f"--gpu: '{gpu}' is not one of {', '.join(GPUS)}")
    device = "cuda" if gpu else cfg.run.device
    on_gpu = device == "cuda" or device == "auto" and torch.cuda.is_available()
    e = compute_dtype_of(cfg, torch.device("cuda" if on_gpu else "cpu")).itemsize
    found = plan(cfg, shape_of(cfg.model.base), ranks, e, on_gpu)
    return f"{configuration.to_toml(cfg)}\n{describe(found, ranks, gpu or 'h100', on_gpu)}"
