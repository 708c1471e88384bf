"""Every field of the configuration: its default, one-line meaning, the paper's symbol or section, and bounds.

Where the paper fixes a value the field says so; where it is silent, the default is the literature's or ours and
`docs/decisions.md` gives the source.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


def field(default, help: str, paper: str = "", low: float | None = None, high: float | None = None):
    """A configuration field: default, one-line meaning, the paper's symbol or section, bounds."""
    meta = {"help": help, "paper": paper, "low": low, "high": high}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


@dataclass
class Run:
    out: str = field("runs/tiny", "run folder; finished stages in it are reused")
    seed: int = field(0, "seed of everything random: items, order, sampling", low=0)
    device: str = field("auto", "auto, cpu or cuda")
    threads: int = field(0, "CPU threads; 0 leaves torch's choice", low=0)
    deterministic: bool = field(False, "products of one shape: equal bits in any batch and on any rank; slower")
    checkpoint_every: int = field(25, "RL steps between checkpoints", low=1)
    keep_last: int = field(2, "newest checkpoints kept, besides the first, the end of stage 1 and this round's best", low=1)
    fsdp_size: int = field(1, "ranks that one copy of the training weights is spread over (FSDP): 0 all, 1 none", low=0)
    offload: bool = field(False, "with run.fsdp_size: weights and moments rest in the memory of the CPU")
    dist_timeout_minutes: float = field(30.0, "minutes that a rank waits for the others before it gives up", low=0.01)


@dataclass
class Data:
    graph: str = field("embedded", "embedded, hpo, or a path: a triple file, PrimeKG's kg.csv, Hetionet's", "§3.1")
    columns: str = field("", "columns of a triple file: head=NAME,relation=NAME,tail=NAME; empty: by their names")
    support_graphs: list[str] = field([], "graphs that may know more: an item with a distractor that one supports is dropped")
    train_file: str = field("", "items to train on (JSONL); empty: synthesise them from the graph")
    heldout_file: str = field("", "items to evaluate on (JSONL); empty: synthesise them")
    train: int = field(2000, "synthesised training items", low=1)
    heldout: int = field(600, "held-out items: unseen combinations of findings, unseen distractor sets", low=1)
    num_ood: int = field(240, "held-out items with longer paths", low=0)
    hops: list[int] = field([1, 2, 3], "path lengths of training and held-out items, equally often", "§3.1")
    ood_hops: list[int] = field([4], "path lengths of the longer_hops split")
    options: int = field(4, "options per synthesised item", low=2, high=26)
    findings: list[int] = field([2, 4], "fewest and most visible findings per item")
    num_diseases: int = field(0, "root diseases that items ask about; 0: all of the graph", low=0)
    rarity: float = field(0.5, "exponent of (1 + degree) in the sampling weight; 0 is uniform", "§3.1", low=0)
    rare_boost: float = field(2.0, "weight of diseases marked rare, relative to the others", "§3.1", low=0)
    evidence: list[str] = field([], "relations from a disease to its findings; empty: those of rods/walk.py")
    qualifiers: bool = field(False, "also walk to one of several nodes, singled out by a finding of its own")
    two_targets: float = field(0.0, "share of items that mask and ask for two nodes: the disease and the end of the chain",
                        "§3.1", low=0, high=1)
    exclude_variants: bool = field(True, "no wrong option is a variety of the answer, and no finding is part of its name")
    style: str = field("plain", "plain, varied or vignette: how questions are worded")
    language: str = field("en", "en or zh")
    names: str = field("", "Chinese names, a TSV with the columns name and zh; empty: those of the embedded graph")


@dataclass
class Model:
    base: str = field("tiny", "tiny (shipped), or a folder in the Hugging Face layout")
    dtype: str = field("float32", "of the weights: float32, or bfloat16 to evaluate and generate")
    compute_dtype: str = field("auto", "of products in training and rollouts: float32, bfloat16, or auto (bfloat16 on a GPU)")


@dataclass
class ColdStart:
    enabled: bool = field(True, "false: reinforcement learning straight from the base (the 32B recipe)", "§3.2")
    traces_file: str = field("", "traces (JSONL); empty: the graph oracle tells the items' paths")
    traces: int = field(600, "traces the oracle writes", low=1)
    disease_fraction: float = field(0.3, "share of the root diseases whose items get traces", low=0, high=1)
    detour_fraction: float = field(0.3, "share of traces that backtrack, explore or correct themselves", "§3.2", 0, 1)
    val_fraction: float = field(0.05, "share of the traces held out: their loss and greedy accuracy choose the best model",
                           low=0, high=0.9)
    num_evals: int = field(5, "times that the held-out traces are measured, the last at the end", low=1)
    epochs: float = field(3.0, "passes over the traces", low=1e-3)
    batch: int = field(32, "sequences per optimizer step", low=1)
    lr: float = field(1e-5, "peak learning rate; cosine to a tenth", low=0)
    warmup: float = field(0.05, "share of the steps with rising learning rate", low=0, high=1)
    weight_decay: float = field(0.1, "AdamW weight decay, on matrices only", low=0)
    max_grad_norm: float = field(1.0, "gradient clipping; a large number for none", low=1e-6)
    max_tokens: int = field(8192, "longest prompt + trace; longer ones are dropped and counted", low=8)
    micro_batch_tokens: int = field(16384, "tokens per forward/backward: memory, not mathematics", low=1)
    activation_checkpointing: bool = field(False, "compute activations again on the way back: less memory, slower")
    checkpoint_every: int = field(50, "steps between checkpoints, which are gone when the cold start is done", low=1)


@dataclass
class RL:
    lr: float = field(1e-6, "learning rate, constant", low=0)
    betas: list[float] = field([0.9, 0.95], "AdamW betas")
    weight_decay: float = field(0.0, "AdamW weight decay", low=0)
    max_grad_norm: float = field(1.0, "gradient clipping; a large number for none", low=1e-6)
    prompts_per_step: int = field(128, "prompts x per step; the mean of Eq. 1 is over these", "E_x", low=1)
    temperature: float = field(1.0, "sampling temperature; log-probabilities use the same", low=1e-3)
    max_new_tokens: int = field(4096, "longest completion; a truncated one is wrong and stays in the loss", low=1)
    reward_correct: float = field(1.0, "reward of the right label in the strict format", "r(x, y)")
    reward_format: float = field(0.1, "reward of the strict format", "r(x, y)")
    objective: str = field("paper", "paper, dr_grpo, grpo, dapo, gspo or cispo: a row of rlvr/objective.py", "Eq. 1")
    advantage: str = field("", "mean_baseline, group, batch or leave_one_out; empty: the objective's own", "Eq. 2")
    clip_eps: list[float] = field([], "[low, high]: ratios are kept in [1 - low, 1 + high]; empty: the objective's own",
                              low=0)
    num_iterations: int = field(1, "passes over the rollouts of a step; more than one needs an objective with a ratio", low=1)
    minibatches: int = field(1, "optimizer steps per pass; more than one needs an objective with a ratio", low=1)
    kl_coef: float = field(0.0, "weight of KL(policy || start); above 0 the start is loaded as reference model", low=0)
    kl_estimator: str = field("k3", "k1, k2 or k3")
    kl_importance_weighted: bool = field(True, "weigh the estimate by the policy's ratio, whose gradient is then that of the KL")
    micro_batch_tokens: int = field(16384, "tokens a forward/backward (or one completion): memory, not results", low=1)
    activation_checkpointing: bool = field(False, "compute activations again on the way back: less memory, slower")
    max_num_seqs: int = field(256, "sequences decoded at a time on each rank", low=1)
    max_logprob_diff: float = field(0.0, "stop when sampler and trainer differ by more in a log-probability; 0: 1e-3 in "
                                  "float32, 3 in bfloat16", low=0)


@dataclass
class Stage1:
    samples_per_prompt: int = field(8, "completions per prompt", "k", low=2)
    min_steps: int = field(20, "no switch to stage 2 before this step", low=0)
    max_steps: int = field(200, "switch at this step at the latest", low=0)
    mix: list[str] = field(["moderate", "easy"], "tiers, equally often, or fig2 (Hard : Simple)", "Fig. 2, §3.3")
    plateau_threshold: float = field(0.5, "switch when the mean share of constant groups reaches this", "§3.3", 0, 1)
    window: int = field(20, "steps of that mean", low=1)


@dataclass
class Stage2:
    samples_per_prompt: int = field(16, "completions per prompt; more than in stage 1", "k, §3.3", low=2)
    rounds: int = field(2, "mining rounds", "§3.3", low=0)
    steps_per_round: int = field(50, "RL steps after each mining", low=1)
    sampling: str = field("mined", "mined, or uniform (the control: same steps, no mining)")
    mastered_parts: int = field(1, "parts of mastered items per batch", "Fig. 2", low=0)
    failed_parts: int = field(2, "parts of failed items per batch", "Fig. 2", low=0)


@dataclass
class Mining:
    samples: int = field(8, "completions per item of the whole training pool", "§3.3", low=1)
    chunk: int = field(1024, "items sampled before their passes are put on the disk", low=1)
    failed_below: float = field(0.25, "pass rate up to which an item counts as wrong", low=0, high=1)
    mastered_above: float = field(0.75, "pass rate from which an item counts as right", low=0, high=1)
    quarantine_after: int = field(2, "rounds with no right sample after which an item is a label suspect", low=1)


@dataclass
class Alarms:
    truncated: float = field(0.9, "stop when this share of the samples has no end token", low=0, high=1)
    samples: int = field(32, "newest samples that this takes at the least", low=1)
    max_zero_variance: float = field(0.9, "warn when this share of a step's groups has constant reward", low=0, high=1)
    max_label_share: float = field(0.9, "warn when one label has this share of the answers and not of the right ones", low=0,
                          high=1)
    format: float = field(0.98, "warn when the format is kept this often while accuracy is flat", low=0, high=1)
    min_gain: float = field(0.005, "accuracy is flat when the later half of the window is better by less than this", low=0)
    window: int = field(40, "steps of that window", low=2)


@dataclass
class Eval:
    max_new_tokens: int = field(32768, "longest greedy completion", low=1)
    confidence: float = field(0.95, "confidence of the Wilson intervals", low=0.5, high=0.999)


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
