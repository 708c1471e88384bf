"""Every field of the configuration: default, meaning, bounds, symbol or section in the paper.

`docs/decisions.md` gives the source of each default.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

OBJECTIVES = ("paper", "dr_grpo", "grpo", "dapo", "gspo", "cispo")
ADVANTAGES = ("", "mean_baseline", "group", "batch", "leave_one_out")
TIERS = ("easy", "moderate", "difficult", "fig2")
DTYPES = ("auto", "float32", "bfloat16")


def field(default, help: str, low=None, high=None, *, paper: str = "", choices: tuple = ()):
    """A dataclass field with its metadata. Bounds and choices of a list hold for each element."""
    meta = {"help": help, "paper": paper, "low": low, "high": high, "choices": choices}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


@dataclass
class Run:
    out: str = field("runs/tiny", "run folder; stages already finished in it are reused")
    seed: int = field(0, "seed of items, data order and sampling", 0)
    device: str = field("auto", "auto: a GPU if there is one", choices=("auto", "cpu", "cuda"))
    threads: int = field(0, "CPU threads; 0: PyTorch's default", 0)
    deterministic: bool = field(False, "batch-invariant products: same bits in any batch; slower")
    checkpoint_every: int = field(25, "RL steps between checkpoints", 1)
    keep_last: int = field(2, "newest checkpoints to keep (also kept: first, stage-1 end, best)", 1)
    fsdp_size: int = field(1, "ranks that share one copy of the weights; 0: all, 1: no FSDP", 0)
    dist_timeout_minutes: float = field(30.0, "longest wait for another rank", 0.01)


@dataclass
class Data:
    graph: str = field("embedded", "embedded, hpo or a path (README: graphs)", paper="§3.1")
    columns: str = field("", "columns of a triple file: head=NAME,relation=NAME,tail=NAME")
    support_graphs: list[str] = field([], "reject items with a distractor that one supports")
    train_file: str = field("", "training items (JSONL); empty: synthesize them from the graph")
    heldout_file: str = field("", "evaluation items (JSONL); empty: synthesize them from the graph")
    train: int = field(2000, "training items to synthesize", 1)
    heldout: int = field(600, "held-out items: unseen findings combinations and distractor sets", 1)
    num_ood: int = field(240, "held-out items with longer paths", 0)
    hops: list[int] = field([1, 2, 3], "path lengths of train and heldout", 1, 6, paper="§3.1")
    ood_hops: list[int] = field([4], "path lengths of the split longer_hops", 1, 6)
    options: int = field(4, "options per item", 2, 26)
    findings: list[int] = field([2, 4], "fewest and most findings stated per item", 1)
    num_diseases: int = field(0, "diseases that items start from; 0: all of the graph", 0)
    rarity: float = field(0.5, "exponent of (1 + degree) in the sampling weight", 0, paper="§3.1")
    rare_boost: float = field(2.0, "sampling weight of diseases marked rare", 0, paper="§3.1")
    evidence: list[str] = field([], "relations from disease to finding; empty: see rods/walk.py")
    qualifiers: bool = field(False, "walk to one of several nodes if a finding singles it out")
    two_targets: float = field(0.0, "fraction of items with two masked nodes", 0, 1, paper="§3.1")
    exclude_variants: bool = field(True, "reject variants of the answer and findings in its name")
    style: str = field("plain", "wording of the questions", choices=("plain", "varied", "vignette"))
    language: str = field("en", "language of the questions", choices=("en", "zh"))
    names: str = field("", "Chinese names (TSV: name, zh); empty: those of the embedded graph")


@dataclass
class Model:
    base: str = field("tiny", "tiny (shipped), or a folder in the Hugging Face layout")
    dtype: str = field("float32", "dtype of the weights", choices=("float32", "bfloat16"))
    compute_dtype: str = field("auto", "dtype of products; auto: bfloat16 on a GPU", choices=DTYPES)


@dataclass
class ColdStart:
    enabled: bool = field(True, "false: start RL from the base model (32B recipe)", paper="§3.2")
    traces_file: str = field("", "traces (JSONL); empty: the graph oracle writes them")
    traces: int = field(600, "traces that the oracle writes", 1)
    disease_fraction: float = field(0.3, "fraction of the diseases whose items get traces", 0, 1)
    detour_fraction: float = field(0.3, "fraction of traces with a detour", 0, 1, paper="§3.2")
    val_fraction: float = field(0.05, "fraction of traces that select the best model", 0, 0.9)
    num_evals: int = field(5, "evaluations on the held-out traces, the last one at the end", 1)
    epochs: float = field(3.0, "passes over the traces", 1e-3)
    batch: int = field(32, "sequences per optimizer step", 1)
    lr: float = field(1e-5, "peak learning rate; cosine decay to a tenth", 0)
    warmup: float = field(0.05, "fraction of the steps with linear warmup", 0, 1)
    weight_decay: float = field(0.1, "AdamW weight decay of matrices", 0)
    max_grad_norm: float = field(1.0, "gradient clipping; a large number: none", 1e-6)
    max_tokens: int = field(8192, "longest prompt + trace; longer ones are dropped and counted", 8)
    micro_batch_tokens: int = field(16384, "tokens per forward/backward; affects only memory", 1)
    activation_checkpointing: bool = field(False, "recompute activations in the backward pass")
    checkpoint_every: int = field(50, "steps between checkpoints; deleted after the cold start", 1)


@dataclass
class RL:
    lr: float = field(1e-6, "constant learning rate", 0)
    betas: list[float] = field([0.9, 0.95], "AdamW betas", 0)
    weight_decay: float = field(0.0, "AdamW weight decay", 0)
    max_grad_norm: float = field(1.0, "gradient clipping; a large number: none", 1e-6)
    prompts_per_step: int = field(128, "prompts x per step, averaged in Eq. 1", 1, paper="E_x")
    temperature: float = field(1.0, "sampling temperature, also of the log-probabilities", 1e-3)
    max_new_tokens: int = field(4096, "longest completion; a truncated one is wrong, and counts", 1)
    reward_correct: float = field(1.0, "reward of a correct, well-formed answer", paper="r(x, y)")
    reward_format: float = field(0.1, "reward of a well-formed answer", paper="r(x, y)")
    objective: str = field("paper", "a row of rlvr/objective.py", paper="Eq. 1", choices=OBJECTIVES)
    advantage: str = field("", "empty: the objective's own", paper="Eq. 2", choices=ADVANTAGES)
    clip_eps: list[float] = field([], "[low, high] of the ratio; empty: the objective's own", 0)
    num_iterations: int = field(1, "passes over the rollouts; > 1 needs a ratio", 1, paper="µ")
    minibatches: int = field(1, "optimizer steps per pass; > 1 needs a ratio", 1)
    kl_coef: float = field(0.0, "weight of KL(policy || start model); 0: no reference model", 0)
    kl_estimator: str = field("k3", "estimator of the KL", choices=("k1", "k2", "k3"))
    kl_importance_weighted: bool = field(True, "weight the KL estimate by the policy ratio")
    micro_batch_tokens: int = field(16384, "tokens per forward/backward; affects only memory", 1)
    activation_checkpointing: bool = field(False, "recompute activations in the backward pass")
    max_num_seqs: int = field(256, "sequences decoded at a time on each rank", 1)
    max_logprob_diff: float = field(0.0, "abort above it; 0: 1e-3, in bfloat16 3", 0)


@dataclass
class Stage1:
    samples_per_prompt: int = field(8, "completions per prompt", 2, paper="k")
    min_steps: int = field(20, "earliest step to switch to stage 2", 0)
    max_steps: int = field(200, "latest step to switch to stage 2", 0)
    mix: list[str] = field(["moderate", "easy"], "tiers sampled", paper="Fig. 2", choices=TIERS)
    plateau_threshold: float = field(0.5, "fraction of zero-variance groups", 0, 1, paper="§3.3")
    window: int = field(20, "steps over which that fraction is averaged", 1)


@dataclass
class Stage2:
    samples_per_prompt: int = field(16, "completions per prompt", 2, paper="k, §3.3")
    rounds: int = field(2, "mining rounds", 0, paper="§3.3")
    steps_per_round: int = field(50, "RL steps after each mining pass", 1)
    sampling: str = field("mined", "uniform: control without mining", choices=("mined", "uniform"))
    mastered_parts: int = field(1, "parts of mastered items per batch", 0, paper="Fig. 2")
    failed_parts: int = field(2, "parts of failed items per batch", 0, paper="Fig. 2")


@dataclass
class Mining:
    samples: int = field(8, "completions per training item", 1, paper="§3.3")
    chunk: int = field(1024, "items between two writes of the pass counts", 1)
    failed_below: float = field(0.25, "an item with at most this pass rate is failed", 0, 1)
    mastered_above: float = field(0.75, "an item with at least this pass rate is mastered", 0, 1)
    quarantine_after: int = field(2, "rounds without a correct sample until quarantine", 1)


@dataclass
class Alarms:
    truncated: float = field(0.9, "abort if this fraction of recent samples has no end token", 0, 1)
    samples: int = field(32, "minimum number of recent samples for that check", 1)
    max_zero_variance: float = field(0.9, "warn at this fraction of zero-variance groups", 0, 1)
    max_label_share: float = field(0.9, "warn if one label has this fraction of answers", 0, 1)
    format: float = field(0.98, "warn if the format rate is this high while accuracy is flat", 0, 1)
    min_gain: float = field(0.005, "accuracy is flat if the window's later half gains less", 0)
    window: int = field(40, "steps of that window", 2)


@dataclass
class Eval:
    max_new_tokens: int = field(32768, "longest greedy completion", 1)
    confidence: float = field(0.95, "confidence level of the Wilson intervals", 0.5, 0.999)


@dataclass
class Config:
    run: Run = dataclasses.field(default_factory=Run)
    data: Data = dataclasses.field(default_factory=Data)
    model: Model = dataclasses.field(default_factory=Model)
    cold_start: ColdStart = dataclasses.field(default_factory=ColdStart)
    rl: RL = dataclasses.field(default_factory=RL)
    stage1: Stage1 = dataclasses.field(default_factory=Stage1)
    stage2: Stage2 = dataclasses.field(default_factory=Stage2)
    mining: Mining = dataclasses.field(default_factory=Mining)
    alarms: Alarms = dataclasses.field(default_factory=Alarms)
    eval: Eval = dataclasses.field(default_factory=Eval)
