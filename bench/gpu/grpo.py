"""A whole GRPO step of the 0.5B shape, and a real run.

    step    64 prompts of 256 tokens, 8 completions of 1,024 each: rollout and update as train_grpo.py does them, with
            tokens as words of a tokenizer, so that what the host does counts. fp32 weights, products in bf16, Dr. GRPO,
            AdamW with learning rate 0. Weights are random and no token ends a completion. Seconds on the host's clock.
    TRL     one call of ``train`` for one step of the same prompts and lengths: transformers' generation, micro-batches
            of 8 rows, no gradient checkpointing. Its first step, in which nothing is compiled.
    run     train_grpo.py from items to its table, with few steps: the tiny recipe, or SmolLM2's with --model. It must
            end, and its sampler and trainer agree within rl.max_logprob_diff.

Aims: 45 % of the limit, and 12 times TRL.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch

from bench.gpu import limits
from bench.gpu.card import ROOT
from bench.gpu.common import Bench, free, main, random_model, theirs
from bench.words import Words, text
from minifleming.lm.fsdp import gathered_copy
from minifleming.lm.optimizer import adamw
from minifleming.rlvr.rollout import roll_out, set_advantages
from minifleming.rlvr.update import update
from minifleming.rods.item import Item
from minifleming.run.errors import RunFailed, run_cli
from minifleming.run.fields import RL

SMALL = "Qwen2.5-0.5B"
SAMPLES, BETAS = 8, (0.9, 0.95)
PEER = 80.0  # seconds that TRL's step may take
TOOK: dict[str, float] = {}  # our step's seconds, once they are measured


def sizes(b: Bench) -> tuple[int, int, int]:
    """Prompts, their tokens, new tokens."""
    return b.size((64, 256, 1024), (2, 9, 12))


def texts(b: Bench) -> list[str]:
    count, prompt, _ = sizes(b)
    drawn = torch.randint(1, b.shape(SMALL).vocab_size, (count, prompt), generator=torch.Generator().manual_seed(1))
    return [text(ids) for ids in drawn.tolist()]


def paid(ids: list[int], vocabulary: int) -> float:
    """The mean of the token ids: no group is constant, so every completion is trained."""
    return sum(ids) / len(ids) / vocabulary


class Ours:
    def __init__(self, b: Bench):
        self.b, self.c = b, b.shape(SMALL)
        self.words = Words(self.c.vocab_size)
        self.model = random_model(self.c, b.device, torch.float32)
        self.model.compute_dtype = torch.bfloat16
        count, prompt, new = sizes(b)
        self.cfg = RL(objective="dr_grpo", max_new_tokens=new, max_num_seqs=count * SAMPLES, lr=0.0,
                      micro_batch_tokens=2 * (prompt + SAMPLES * new))
        self.optimizer = adamw(self.model, 0.0, BETAS, 0.0)
        self.drawn = [(Item(str(i), text, {"A": "a", "B": "b"}, "A"), "") for i, text in enumerate(texts(b))]

    def step(self, number: int) -> tuple[float, float, dict]:
        """Seconds of rollout and update, and the update's figures."""
        start = self.clock()
        with gathered_copy(self.model) as model:
            groups = roll_out(model, self.words, self.drawn, self.cfg, samples=SAMPLES, seed=0, step=number)
        middle = self.clock()
        for r in (r for group in groups for r in group):
            r.reward = paid(r.completion_ids, self.c.vocab_size)
        set_advantages(groups, self.cfg, self.model.device)
        found = update(self.model, self.optimizer, groups, self.cfg, fused=True)
        return middle - start, self.clock() - middle, found

    def clock(self) -> float:
        if self.b.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def step(b: Bench) -> None:
    """The first step compiles; the mean of the next two counts, or the second where little time is left."""
    ours, (count, prompt, new) = Ours(b), sizes(b)
    ours.step(0)
    if b.cuda:
        torch.cuda.reset_peak_memory_stats()
    times = [ours.step(1)] + ([ours.step(2)] if b.left() > 30 or b.toy else [])
    (rollout, updating), found = (sum(t[i] for t in times) / len(times) for i in (0, 1)), times[-1][2]
    TOOK["step"] = rollout + updating
    rows = count * SAMPLES
    if found["samples_with_gradient"] != rows:
        raise RunFailed(f"{found['trained']} of {rows} completions were trained")
    shape = f"{b.size('0.5B', 'toy')}, {count} x {SAMPLES} of {new}, prompt {prompt}"
    best = [limits.rollout_seconds(ours.c, b.machine, rows, new, prompt, SAMPLES),
            limits.update_seconds(ours.c, b.machine, rows, new, prompt, SAMPLES)]
    memory = f"; peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if b.cuda else ""
    b.row("GRPO: rollout", shape, rollout, "s", limit=best[0])
    b.row("GRPO: update", shape, updating, "s", limit=best[1])
    b.row("GRPO: the whole step", shape, rollout + updating, "s", limit=sum(best), aim={"share": 0.45},
          note=f"{rows * new / (rollout + updating):,.0f} completion tokens/s{memory}")
    b.row("GRPO: sampler and trainer, largest |difference| of log π", shape, found["logprob_diff_max"], "",
          aim={"most": 3.0}, must=True, note=f"mean {found['logprob_diff_mean']:.2g}")


def against(b: Bench) -> None:
    count, prompt, new = sizes(b)
    peer = b.peers({"TRL": lambda: trl_step(b)})
    shape = f"{b.size('0.5B', 'toy')}, {count} x {SAMPLES} of {new}, prompt {prompt}"
    b.row("GRPO: the whole step against TRL's", shape, TOOK.get("step"), "s", aim={"ratio": 12.0}, **peer)


def trl_step(b: Bench) -> float:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast, PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    if b.cuda and b.left() < PEER:
        raise TimeoutError("no time was left")
    warnings.simplefilter("ignore")
    for name in ("transformers", "trl", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    (count, _, new), c = sizes(b), b.shape(SMALL)
    words = PreTrainedTokenizerFast(tokenizer_object=Words(c.vocab_size).backend, eos_token=f"w{c.vocab_size}",
                                    pad_token="w0")
    with tempfile.TemporaryDirectory() as out:
        args = GRPOConfig(
            output_dir=out, per_device_train_batch_size=8, gradient_accumulation_steps=count * SAMPLES // 8,
            num_generations=SAMPLES, max_completion_length=new, loss_type="dr_grpo", scale_rewards="none", beta=0.0,
            learning_rate=0.0, adam_beta1=BETAS[0], adam_beta2=BETAS[1], weight_decay=0.0, max_grad_norm=1.0,
            max_steps=1, bf16=True, use_cpu=not b.cuda, gradient_checkpointing=False, shuffle_dataset=False,
            save_strategy="no", report_to="none", disable_tqdm=True, log_level="error")
        trainer = GRPOTrainer(
            theirs(c, b.device, torch.float32),
            lambda completion_ids, **_: [paid(ids, c.vocab_size) for ids in completion_ids],
            args, Dataset.from_list([{"prompt": text} for text in texts(b)]), processing_class=words)
        trainer.remove_callback(PrinterCallback)
        start = time.perf_counter()
        trainer.train()
        if b.cuda:
            torch.cuda.synchronize()
        took = time.perf_counter() - start
    del trainer
    free()
    return took


def run(b: Bench) -> None:
    """Every stage of the recipe, briefly, in a folder that is thrown away."""
    few = {"data.train": 400, "data.heldout": 60, "data.num_ood": 20, "cold_start.traces": 400, "stage2.rounds": 1,
           "stage1.max_steps": b.size(8, 2), "stage2.steps_per_round": b.size(3, 1), "mining.samples": 1,
           "rl.prompts_per_step": b.size(16, 4), "alarms.samples": 10**6}
    few |= {"model.base": b.model.resolve()} if b.model else {}
    recipe, path = "smollm2-135m" if b.model else "tiny", os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    with tempfile.TemporaryDirectory() as folder:
        few["run.out"] = out = Path(folder) / "run"
        command = [sys.executable, "-P", str(ROOT / "train_grpo.py"), "--device", b.device.type, "--config",
                   str(ROOT / "recipes" / f"{recipe}.toml"), *(f"--set={key}={value}" for key, value in few.items())]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(b.left(), 5), cwd=folder,
                              env=os.environ | {"PYTHONPATH": path})
        took = time.perf_counter() - start
        if done.returncode:
            raise RunFailed(f"train_grpo.py ended with {done.returncode}: {(done.stderr or done.stdout)[-250:]}")
        metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    gaps = [row["logprob_diff_max"] for row in metrics if "logprob_diff_max" in row]
    shape = f"recipes/{recipe}.toml, {len(gaps)} RL steps"
    b.row("a real run ends", shape, took, "s")
    bound = 3.0 if b.cuda else 1e-3
    b.row("a real run's sampler and trainer, largest |difference| of log π", shape, max(gaps, default=math.inf), "",
          aim={"most": bound}, must=True)


MEASUREMENTS = {"step": step, "run": run, "TRL": against}

if __name__ == "__main__":
    raise SystemExit(run_cli(lambda argv: main("grpo", MEASUREMENTS, argv)))
