"""What a run will need: bytes on each rank and the least time of a step, by arithmetic alone (`--dry-run`).

    all along    weights, gradients and two moments, fp32, divided by the ranks that share them
    rollout      the copy that samples, its cache, the logits of a decode step
    update       gathered weights and their gradients, saved activations of a micro-batch, what the head makes
    cold start   the same, of packed traces

They take turns, so the peak is all along + the largest of the three. The bytes are held against the tensors
of real runs (tests/extras/plan/test_plan.py); times are limits of the machine, not forecasts.

e bytes an element computed with (2 or 4), p prompt and t completion tokens, k samples, C width, I inner width,
H·D and K·D widths of queries and keys, V vocabulary, L layers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from minifleming.extras.plan.model_shapes import shape_of
from minifleming.kernels.head import chunk_rows
from minifleming.lm.config import ARCHITECTURES, ModelConfig
from minifleming.lm.load import compute_dtype_of
from minifleming.lm.model import LanguageModel
from minifleming.run import config as configuration
from minifleming.run.errors import BadInput
from minifleming.run.fields import Config

HOST = 8  # GPUs of a host; within one they talk over NVLink, between hosts each over a network card of its own
#       memory  read from it  bf16 products  NVLink  network    (datasheets: bytes, bytes/s, FLOP/s, bytes/s one way)
GPUS = {"a100": (80e9, 2.04e12, 312e12, 300e9, 25e9), "h100": (80e9, 3.35e12, 989e12, 450e9, 50e9),
        "h200": (141e9, 4.8e12, 989e12, 450e9, 50e9)}
PROMPT = 512  # tokens of a prompt, assumed


@dataclass(frozen=True)
class Batch:
    """The largest of a kind: ``rows`` completions of ``t`` tokens behind ``prompts`` prompts of ``p``, in one pack."""

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


@dataclass(frozen=True)
class Plan:
    """Bytes on each rank by name, in the three groups of the module's table, and seconds by name."""

    always: dict[str, float]
    rollout: dict[str, float]
    update: dict[str, float]
    cold_start: dict[str, float]
    seconds: dict[str, float]
    lines: list[str]

    @property
    def peak(self) -> float:
        """Bytes on the device."""
        always = sum(size for name, size in self.always.items() if not name.endswith("(CPU)"))
        return always + max(sum(part.values()) for part in (self.rollout, self.update, self.cold_start))


def layer(c: ModelConfig, batch: Batch, e: int, r: int, last: bool = False) -> float:
    """Bytes that one block keeps of a pack (lm/pack.py) for the way back: its input and the sum between (r bytes an
    element), both norms' outputs, queries, keys, values, what attention found, gate, up and their product. The last
    block goes on behind its attention with what the head will read alone."""
    H, K = c.num_attention_heads, c.num_key_value_heads
    HD, KD = H * c.head_dim, K * c.head_dim
    before = (r + e) * c.hidden_size + e * (2 * HD + 2 * KD) + 4 * (1 + H)  # sums in fp32
    behind = (r + e) * c.hidden_size + e * 3 * c.intermediate_size + 4
    if ARCHITECTURES[c.model_type]["qk_norm"]:
        before += e * (HD + KD) + 4 * (H + K)
    return batch.tokens * before + (batch.learned * (behind + e * HD) if last else batch.tokens * behind)


def activations(c: ModelConfig, batch: Batch, e: int, recompute: bool, r: int) -> float:
    """Bytes that the whole forward pass keeps below the head; recomputed: each block's input."""
    blocks = c.num_hidden_layers * batch.tokens * c.hidden_size * r if recompute else \
        (c.num_hidden_layers - 1) * layer(c, batch, e, r) + layer(c, batch, e, r, last=True)
    return blocks + batch.learned * c.hidden_size * r + batch.tokens * 8 * c.head_dim  # last norm's input; angles, fp32


def head(c: ModelConfig, learned: int, e: int, cuda: bool) -> float:
    """Bytes while kernels/head.py makes the gradients of so many tokens: theirs, the weight's in fp32, and a chunk of
    logits, which plain PyTorch holds three times over."""
    rows = min(learned, chunk_rows(c.vocab_size, e, cuda))
    logits = rows * c.vocab_size * (e if cuda else 8 + 2 * (e == 2))
    return learned * (2 * c.hidden_size * e + 16) + 4 * c.vocab_size * c.hidden_size + logits


def at_once(c: ModelConfig, batch: Batch, e: int, recompute: bool, r: int, cuda: bool) -> float:
    """The most bytes beside the activations: in the head; in a norm on the way back, which works in fp32; or in a
    block, at the gradients of gate and up, which with recomputation holds all that ``layer`` counts but its input."""
    norm = batch.tokens * c.hidden_size * (16 if e == 4 else 20)
    block = 2 * batch.tokens * c.intermediate_size * e
    if recompute:
        block += layer(c, batch, e, r) - batch.tokens * c.hidden_size * r
    return max(head(c, batch.learned, e, cuda), norm, block)


def cache(c: ModelConfig, rows: int, slots: int, p: int, t: int, e: int) -> float:
    """Bytes of lm/kv_cache.py, or of lm/engines/cuda_graph.py, when it is full."""
    return 2.0 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * e * (slots * p + rows * t)


def sizes(c: ModelConfig) -> tuple[int, int]:
    """Parameters: all, and of one block."""
    with torch.device("meta"):
        model = LanguageModel(c)
    return sum(p.numel() for p in model.parameters()), sum(p.numel() for p in model.model.layers[0].parameters())


def plan(cfg: Config, c: ModelConfig, ranks: int, e: int, gpu: str = "h100", p: int = PROMPT,
         cuda: bool = False) -> Plan:
    """For ``ranks`` ranks that compute in ``e`` bytes. Raises BadInput for groups that do not divide the ranks."""
    share = cfg.run.fsdp_size or ranks
    if ranks % share:
        raise BadInput(f"run.fsdp_size: {ranks} ranks are no whole number of groups of {share}")
    n, block = sizes(c)
    k, prompts = max(cfg.stage1.samples_per_prompt, cfg.stage2.samples_per_prompt), -(-cfg.rl.prompts_per_step // ranks)
    p = min(p, c.max_position_embeddings // 2)
    t = min(cfg.rl.max_new_tokens, c.max_position_embeddings - p)
    root, spread = n - c.num_hidden_layers * block, cfg.run.fsdp_size != 1
    r = e if spread else 4  # bytes of an element between the blocks: those of the weights that it comes from
    always = {"weights": 4 * n / share, "gradients": 4 * n / share, "moments": 8 * n / share}
    if cfg.rl.kl_coef > 0:
        always["reference model"] = 4 * n / share
    groups = min(prompts, max(1, cfg.rl.max_num_seqs // k))
    rows, slots = groups * k, min(prompts, max(cfg.rl.max_num_seqs, k), -(-2 * max(cfg.rl.max_num_seqs, k) // k))
    rollout = {"copy that samples": (n if spread or e == 2 else 0) * e,
               "cache": cache(c, rows, slots, p, t, e), "on the way": rows * c.vocab_size * (e + 8.0)}
    batch = largest(cfg.rl.micro_batch_tokens, prompts, p, k, t)
    update = {"gathered weights": (2 * block + root if spread else n if e == 2 else 0) * e,
              "their gradients": max(root, block) * (e + 4) if spread else 0,
              "activations": activations(c, batch, e, cfg.rl.activation_checkpointing, r),
              "the head, or a block": at_once(c, batch, e, cfg.rl.activation_checkpointing, r, cuda)}
    if spread and cfg.run.offload:
        always = {f"{name} (CPU)": size for name, size in always.items()}
    parts = {name: update[name] for name in ("gathered weights", "their gradients")}
    packed = cold_start(cfg, c, e, r, cuda) if cfg.cold_start.enabled else {}
    seconds = times(cfg, c, n, share, prompts, k, rows, batch, gpu)
    lines = [f"prompts a step: {cfg.rl.prompts_per_step} on {ranks} ranks, at most {prompts} each, {k} samples of each",
             f"prompts of {p} tokens (assumed), completions of up to {t}",
             f"rollout: {rows} sequences at a time; update: micro-batches of up to {batch.rows} completions, "
             f"{batch.tokens} tokens"]
    return Plan(always, rollout, update, packed and parts | packed, seconds, lines)


def cold_start(cfg: Config, c: ModelConfig, e: int, r: int, cuda: bool) -> dict[str, float]:
    """A pack as full as it may be, all of it targets."""
    pack, recompute = Batch(0, 0, 1, cfg.cold_start.micro_batch_tokens + 1), cfg.cold_start.activation_checkpointing
    return {"activations": activations(c, pack, e, recompute, r),
            "the head, or a block": at_once(c, pack, e, recompute, r, cuda)}


def largest(tokens: int, prompts: int, p: int, k: int, t: int) -> Batch:
    """As update.micro_batches cuts completions that are all of ``t`` tokens."""
    rows = min(k, max(1, (tokens - p) // (t - 1)))
    several = max(1, tokens // (p + k * (t - 1))) if rows == k else 1
    return Batch(min(prompts, several), p, min(prompts, several) * rows, t)


def times(cfg: Config, c: ModelConfig, n: int, share: int, prompts: int, k: int, rows: int, batch: Batch,
          gpu: str) -> dict[str, float]:
    """Seconds of the longest step, at the limit of the machine: bytes read by decoding, products of training, and
    weights gathered over the links among the ``share`` ranks that hold them together."""
    _, read, flops, near, far = GPUS[gpu]
    p, t = batch.p, batch.t
    active = n - (0 if c.tie_word_embeddings else c.vocab_size * c.hidden_size)  # what is multiplied by
    kv = 4 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim  # bytes a token, bf16
    step = max(2 * active / read, 2 * active * rows / flops) + kv * rows * (p / k + t / 2) / read
    waves = -(-prompts * k // rows)
    rollout = step * t * waves
    tokens, head = prompts * (p + k * t), c.vocab_size * c.hidden_size
    attention = 6 * c.num_hidden_layers * c.num_attention_heads * c.head_dim * (p + t) * tokens
    passes = 4 / 3 if cfg.rl.activation_checkpointing else 1
    update = (6 * ((active - head) * tokens + head * prompts * k * t) + attention) * passes / flops
    found = {"rollout": rollout, "update": update}
    if share > 1:
        once = 2 * n / (near if share <= HOST else far)
        found |= {"gathers to sample": once, "gathers to update": 4 * once * -(-prompts * k // batch.rows)}
    return found


def describe(plan: Plan, ranks: int, gpu: str, on_gpu: bool) -> str:
    """The tables of --dry-run."""
    def table(name: str, part: dict[str, float]) -> list[str]:
        return [f"  {name}", *(f"    {what:<22}{size / 1e9:>10.3f} GB" for what, size in part.items())]

    lines = [f"Plan for {ranks} rank{'s' * (ranks > 1)}, by arithmetic (minifleming/extras/plan/plan.py)",
             *(f"  {line}" for line in plan.lines), "Memory of a rank"]
    for name, part in (("all along", plan.always), ("while it samples", plan.rollout),
                       ("while it updates", plan.update), ("in the cold start", plan.cold_start)):
        lines += table(name, part) if part else []
    lines.append(f"  {'peak':<24}{plan.peak / 1e9:>10.3f} GB")
    if on_gpu:
        room = GPUS[gpu][0]
        verdict = "fits" if plan.peak < 0.9 * room else "DOES NOT FIT"
        lines += [f"  {'of one ' + gpu.upper():<24}{room / 1e9:>10.3f} GB: {verdict}, a tenth left for the unplanned",
                  f"Least time of a step, all completions at their longest, at the limit of {ranks} {gpu.upper()}",
                  *(f"    {what:<22}{value:>10.1f} s" for what, value in plan.seconds.items()),
                  "  (gathers may hide behind the rest; real runs take several times this; nothing of it is measured)"]
    return "\n".join(lines)


def add_arguments(parser) -> None:
    parser.add_argument("--ranks", type=int, metavar="N", help="with --dry-run: plan for N ranks, one GPU each")
    parser.add_argument("--gpu", choices=sorted(GPUS), help="with --dry-run: plan for this GPU")


def check_arguments(args) -> None:
    """Raises BadInput for a plan's arguments where none is asked for: the run would start without them."""
    for name in ("ranks", "gpu"):
        if getattr(args, name) is not None and not args.dry_run:
            raise BadInput(f"--{name}: only with --dry-run")


def dry_run(cfg: Config, args) -> str:
    """The resolved configuration and the plan; no weights are needed for the recipes' models."""
    ranks = int(os.environ.get("WORLD_SIZE", "1")) if args.ranks is None else args.ranks
    if ranks < 1:
        raise BadInput("--ranks: must be positive")
    on_gpu = bool(args.gpu) or cfg.run.device == "cuda" or (cfg.run.device == "auto" and torch.cuda.is_available())
    e, gpu = compute_dtype_of(cfg, torch.device("cuda" if on_gpu else "cpu")).itemsize, args.gpu or "h100"
    found = plan(cfg, shape_of(cfg.model.base), ranks, e, gpu, cuda=on_gpu)
    return f"{configuration.to_toml(cfg)}\n{describe(found, ranks, gpu, on_gpu)}"
