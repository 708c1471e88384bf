"""How the cost of a GRPO step grows with the work: `python bench/growth.py --json F`.

From one base (hidden 256, 4 layers, vocabulary 2,048; 8 prompts of 64, 8 samples of 64 tokens each) one thing is made
larger at a time: the model's width, the completions, the samples of a prompt, and the pool that mining samples once.
One thread, fp32, random weights, no end token, so that every completion has its full length; micro-batches of 2,048
tokens. Every point is timed ``--rounds`` times in turn with the others, in process-CPU seconds; the median is told,
beside the floating-point operations of the matrix products and of attention:

    sampling   each prompt once, each token once              2 N_b a token below the head, 2 V C in it
    update     the same tokens, forward and backward          three times that
    attention  4 L H D a token and key, three times that in the update

``exponent`` is the slope of log seconds over log operations along a line of points: 1 is linear in the formula, less is
cost that does not grow. Memory is the peak of resident memory during a step above what was there before it (Linux).
"""

from __future__ import annotations

import os

if __name__ == "__main__":  # before torch is there
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import ctypes
import gc
import json
import math
import statistics
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch

from minifleming.lm.model import LanguageModel, ModelConfig
from minifleming.lm.optimizer import adamw
from minifleming.lm.sampler import SamplingParams, generate
from minifleming.rlvr.rollout import Rollout
from minifleming.rlvr.update import update
from minifleming.rods.answer import Verdict
from minifleming.rods.item import Item
from minifleming.run.errors import BadInput, Parser, run_cli
from minifleming.run.fields import RL

LAYERS, HEADS, KV_HEADS, VOCABULARY, PROMPT = 4, 4, 2, 2048, 64


@dataclass(frozen=True)
class Work:
    hidden: int = 256
    completion: int = 64
    samples: int = 8
    prompts: int = 8
    train: bool = True  # False: mining, which only samples

    @property
    def flop(self) -> float:
        """Of one step's matrix products and attention."""
        h, kv, inner = self.hidden, self.hidden // 2, 11 * self.hidden // 4
        body = 2 * LAYERS * (2 * h * h + 2 * h * kv + 3 * h * inner)
        rows, t = self.prompts * self.samples, self.completion
        once = body * (self.prompts * PROMPT + rows * t) + 2 * h * VOCABULARY * rows * t
        keys = self.prompts * PROMPT**2 / 2 + rows * t * (PROMPT + t / 2)
        once += 4 * LAYERS * h * keys
        return once * (4 if self.train else 1)


LINES = {
    "model width": [Work(hidden=h) for h in (64, 128, 256, 512)],
    "completion length": [Work(completion=t) for t in (32, 64, 128, 256)],
    "group size": [Work(samples=k) for k in (2, 4, 8, 16)],
    "pool size (mining)": [Work(samples=2, prompts=n, train=False) for n in (32, 64, 128, 256)],
}


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="growth.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    if args.rounds < 1:
        raise BadInput("--rounds: must be positive")
    torch.set_num_threads(1)
    results = []
    for name, works in LINES.items():
        steps = [Step(work) for work in works]
        seconds = [[step.seconds() for step in steps] for _ in range(args.rounds + 1)][1:]  # the first round warms up
        medians = [statistics.median(column) for column in zip(*seconds)]
        slope = exponent([w.flop for w in works], medians)
        results.append({"line": name, "exponent": slope, "rounds": args.rounds, "points": [
            asdict(work) | {"flop": work.flop, "seconds": s, "memory": step.memory()}
            for work, s, step in zip(works, medians, steps)]})
        print(table(results[-1]), flush=True)
    if args.json:
        about = {"date": date.today().isoformat(), "cpu": cpu(), "threads": 1, "torch": torch.__version__}
        args.json.write_text(json.dumps([r | about for r in results], indent=1) + "\n")
    return 0


def exponent(flop: list[float], seconds: list[float]) -> float:
    """Least squares of log seconds over log operations."""
    x, y = [math.log(f) for f in flop], [math.log(s) for s in seconds]
    a, b = statistics.fmean(x), statistics.fmean(y)
    return sum((u - a) * (v - b) for u, v in zip(x, y)) / sum((u - a) ** 2 for u in x)


def table(r: dict) -> str:
    rows = [f"{r['line']}: exponent {r['exponent']:.2f}"]
    rows += [f"  hidden {p['hidden']:4d}, {p['prompts']:3d} prompts x {p['samples']:2d} samples x {p['completion']:3d} "
             f"tokens: {p['flop'] / 1e9:7.1f} GFLOP, {p['seconds']:6.2f} s, {p['memory'] / 2**20:5.0f} MiB"
             for p in r["points"]]
    return "\n".join(rows)


def markdown(results: list[dict]) -> str:
    """The table of docs/performance.md."""
    rows = ["| what grows | points | GFLOP | seconds | peak memory, MiB | exponent |", "|---|---|---|---|---|---|"]
    told = {"model width": "hidden", "completion length": "completion", "group size": "samples",
            "pool size (mining)": "prompts"}
    for r in results:
        points = r["points"]
        columns = [[f"{p[told[r['line']]]}" for p in points], [f"{p['flop'] / 1e9:.0f}" for p in points],
                   [f"{p['seconds']:.2f}" for p in points], [f"{p['memory'] / 2**20:.0f}" for p in points]]
        rows.append(f"| {r['line']} | " + " | ".join(", ".join(c) for c in columns) + f" | {r['exponent']:.2f} |")
    return "\n".join(rows) + "\n"


class Step:
    """One GRPO step, or one pass of mining, on a model of its own."""

    def __init__(self, work: Work):
        self.work = work
        h = work.hidden
        self.model = LanguageModel(ModelConfig("qwen2", VOCABULARY, h, 11 * h // 4, LAYERS, HEADS, KV_HEADS, h // HEADS,
                                               1e-6, 1e4, False, 1024))
        self.model.init_weights(0)
        self.cfg = RL(max_new_tokens=work.completion, lr=0.0, micro_batch_tokens=2048)
        self.optimizer = adamw(self.model, 0.0, (0.9, 0.95), 0.0)
        rng = torch.Generator().manual_seed(1)
        self.prompts = torch.randint(VOCABULARY, (work.prompts, PROMPT), generator=rng).tolist()

    def run(self) -> None:
        w = self.work
        params = SamplingParams(w.completion, [], samples=w.samples)
        drawn = generate(self.model, self.prompts, [str(i) for i in range(w.prompts)], params)
        if not w.train:
            return
        groups: list[list[Rollout]] = [[] for _ in self.prompts]
        for c in drawn:
            advantage = (c.sample - (w.samples - 1) / 2) / w.samples  # none is zero, and a group's sum is
            groups[c.prompt].append(Rollout(ITEM, "", c.sample, self.prompts[c.prompt], c.ids, c.logprobs, False,
                                            Verdict("", "", ""), {}, 0.0, advantage=advantage))
        update(self.model, self.optimizer, groups, self.cfg, fused=True)

    def seconds(self) -> float:
        gc.collect()
        start = time.process_time()
        self.run()
        return time.process_time() - start

    def memory(self) -> int:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        self.run()
        return status("VmHWM") - before


ITEM = Item("0", "?", {"A": "a", "B": "b"}, "A")


def status(name: str) -> int:
    return next(int(row.split()[1]) * 1024 for row in Path("/proc/self/status").read_text().splitlines()
                if row.startswith(name + ":"))


def cpu() -> str:
    return next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                 if line.startswith("model name")), "")


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
