"""The tiny recipe and its control over several seeds: `python bench/tiny_seeds.py --seeds 5 --out bench/results`.

For each seed the main run, then two controls without mining (recipes/tiny-control.toml), both from the main run's own
stage-1 checkpoint, so that they differ in stage 2 alone:

    control        as many training rollouts as stage 2 of the main run
    control_total  as many rollouts as stage 2 of the main run *and its mining* drew together

Writes one JSON with every seed's accuracies, the differences between mining and the controls, and a bootstrap over
items and seeds jointly. Seeds are independent: two calls with --first can run side by side, --table-only joins them.
"""

import datetime
import json
import math
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from minifleming.evaluation.evaluate import is_correct, read_records
from minifleming.run import config as configuration
from minifleming.run.checkpoint import read_json, write_text
from minifleming.run.errors import BadInput, Parser, RunFailed, run_cli

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = ("base", "cold_start", "rl_stage1", "rl_stage2")
SPLITS = ("heldout", "longer_hops")
CONTROLS = ("control", "control_total")
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # Student's t, 0.975, 1..10 degrees


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="tiny_seeds.py", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "seeds")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--table-only", action="store_true", help="only make the table of runs that are finished")
    args = parser.parse_args(argv)
    if args.seeds < 2:
        raise BadInput("--seeds: must be at least 2")
    seeds = list(range(args.first, args.first + args.seeds))
    for seed in seeds if not args.table_only else []:
        run_seed(args.runs, seed)
    result = summary(args.runs, seeds)
    name = f"tiny_seeds_{datetime.date.today().isoformat()}.json"
    write_text(args.out / name, json.dumps(result, indent=1) + "\n")
    print(markdown(result))
    return 0


def run_seed(runs: Path, seed: int) -> None:
    """Main run and both controls of one seed; finished ones cost nothing."""
    main_run = runs / f"main-{seed}"
    train("tiny.toml", main_run, seed)
    cfg, drawn = configuration.load(main_run / "config.toml"), samples_drawn(main_run)
    steps = cfg.stage2.rounds * cfg.stage2.steps_per_round
    more = round(drawn["mining"] / (cfg.rl.prompts_per_step * cfg.stage2.samples_per_prompt))
    for kind, length in (("control", steps), ("control_total", steps + more)):
        control = runs / f"{kind}-{seed}"
        for name in ("items", "cold_start"):  # the same by construction: the seed decides them
            if not (control / name).exists():
                shutil.copytree(main_run / name, control / name)
        stage1 = main_run / "checkpoints" / f"step_{stage1_end(main_run):06d}"
        train("tiny-control.toml", control, seed, "--set", f"stage2.steps_per_round={length}", "--resume", str(stage1))


def train(recipe: str, out: Path, seed: int, *more: str) -> None:
    start = time.perf_counter()
    command = [sys.executable, str(ROOT / "train_grpo.py"), "--config", str(ROOT / "recipes" / recipe),
               "--set", f"run.seed={seed}", "--set", f"run.out={json.dumps(str(out))}", *more]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RunFailed(f"{out}: {done.stderr.strip().splitlines()[-1]}")
    print(f"{out.name}: {time.perf_counter() - start:.0f} s", flush=True)


def stage1_end(run: Path) -> int:
    newest = max((run / "checkpoints").glob("step_*"))
    return read_json(newest / "state.json")["stage1_end"]


def outcomes(run: Path, variant: str, split: str) -> list[int]:
    return [int(is_correct(record)) for record in read_records(run / "eval" / f"{variant}.{split}.jsonl")]


def samples_drawn(run: Path) -> dict[str, int]:
    """Completions sampled in stage 2: by training steps, and by mining."""
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    k = configuration.load(run / "config.toml").stage2.samples_per_prompt
    trained = sum(record["prompts"] for record in metrics if record["stage"] == "rl_stage2") * k
    ledger = run / "mining.jsonl"
    entries = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    mined = sum(entry["samples"] for entry in entries if entry["event"] == "mined")
    return {"training": trained, "mining": mined}


def summary(runs: Path, seeds: list[int]) -> dict:
    rows = []
    for seed in seeds:
        row = {"seed": seed}
        for split in SPLITS:
            for variant in VARIANTS:
                row[f"{variant}.{split}"] = float(np.mean(outcomes(runs / f"main-{seed}", variant, split)))
            for kind in CONTROLS:
                row[f"{kind}.{split}"] = float(np.mean(outcomes(runs / f"{kind}-{seed}", "rl_stage2", split)))
        row["threads"] = read_json(runs / f"main-{seed}" / "manifest.json")["threads"]
        row["stage1_steps"] = stage1_end(runs / f"main-{seed}")
        row["main_samples"] = samples_drawn(runs / f"main-{seed}")
        for kind in CONTROLS:
            row[f"{kind}_samples"] = samples_drawn(runs / f"{kind}-{seed}")
        rows.append(row)

    def compare(first: tuple[str, str], second: tuple[str, str], split: str) -> dict:
        a, b = (np.array([outcomes(runs / f"{kind}-{seed}", variant, split) for seed in seeds])
                for kind, variant in (first, second))
        mean, low, high = bootstrap_difference(a, b)
        by_seed = (b - a).mean(1).tolist()
        found = {"mean": mean, "ci_low": low, "ci_high": high, "by_seed": by_seed}
        return found | ({"t_low": t_interval(by_seed)[1], "t_high": t_interval(by_seed)[2]} if len(seeds) > 1 else {})

    pairs = {
        "stage1_minus_cold_start": (("main", "cold_start"), ("main", "rl_stage1")),
        "stage2_minus_stage1": (("main", "rl_stage1"), ("main", "rl_stage2")),
        "control_minus_stage1": (("main", "rl_stage1"), ("control", "rl_stage2")),
        "mining_minus_control": (("control", "rl_stage2"), ("main", "rl_stage2")),
        "mining_minus_control_total": (("control_total", "rl_stage2"), ("main", "rl_stage2")),
    }
    return {
        "date": datetime.date.today().isoformat(), "torch": torch.__version__, "python": platform.python_version(),
        "processor": processor(),
        "bootstrap": "10,000 draws over seeds and, within each, its items; percentile interval of 95 %",
        "seeds": rows,
        "means": {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if "." in key},
        **{name: {split: compare(*pair, split) for split in SPLITS} for name, pair in pairs.items()},
    }


def markdown(result: dict) -> str:
    """The tables of docs/results.md: accuracy by seed, then the differences with their intervals. In %."""
    columns = ("cold_start", "rl_stage1", "rl_stage2", "control", "control_total")
    lines = []
    for split in SPLITS:
        lines += [f"| {split}, seed | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for row in [*result["seeds"], {"seed": "mean"} | result["means"]]:
            cells = [f"{100 * row[f'{column}.{split}']:.1f}" for column in columns]
            lines.append(" | ".join([f"| {row['seed']}", *cells]) + " |")
        lines.append("")
    lines += ["| difference, in points | split | by seed | mean [95 %, bootstrap] | [95 %, t over seeds] |",
              "|---|---|---|---|---|"]
    for name, by_split in result.items():
        if "_minus_" in name:
            for split in SPLITS:
                found = by_split[split]
                seeds = ", ".join(f"{100 * d:+.1f}" for d in found["by_seed"])
                mean, low, high, *t = (100 * found[key] for key in ("mean", "ci_low", "ci_high", "t_low", "t_high"))
                cells = [name.replace("_", " "), split, seeds, f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]",
                         f"[{t[0]:+.1f}, {t[1]:+.1f}]"]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def bootstrap_difference(first: np.ndarray, second: np.ndarray, *, draws: int = 10_000, seed: int = 0,
                         confidence: float = 0.95) -> tuple[float, float, float]:
    """Returns the mean of second - first with a bootstrap interval over seeds and items jointly.

    Seeds are drawn, then items within each drawn seed, because every seed was tested on its own items.
    With few seeds the interval is too narrow: it has no factor n / (n - 1) and not Student's heavier tails.
    ``t_interval`` over the differences of the seeds is the cautious one.

    Args:
        first, second: right (1) or wrong (0) of each item under each seed, paired. [seeds, items]
    Returns:
        mean difference, lower and upper percentile bound.
    """
    delta = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    seeds, items = delta.shape
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for i in range(draws):
        drawn = rng.integers(items, size=(seeds, items))
        means[i] = np.take_along_axis(delta[rng.integers(seeds, size=seeds)], drawn, axis=1).mean()
    tail = (1 - confidence) / 2
    return float(delta.mean()), *(float(q) for q in np.quantile(means, [tail, 1 - tail]))


def t_interval(differences: list[float]) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval of one figure per seed, for 2 to 11 seeds."""
    n = len(differences)
    if not 2 <= n <= len(T95) + 1:
        raise ValueError(f"t_interval needs 2 to {len(T95) + 1} figures, not {n}")
    mean, deviation = float(np.mean(differences)), float(np.std(differences, ddof=1))
    half = T95[n - 2] * deviation / math.sqrt(n)
    return mean, mean - half, mean + half


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
