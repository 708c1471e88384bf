"""A long run of small steps: `python bench/soak.py --steps 5000 --out bench/results`.

Cold start, then that many steps of stage 1 on a few prompts, each with rollout, update and log. Meanwhile the resident
memory, the open file descriptors and the bytes of the checkpoints are read every second from outside.
"""

import datetime
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from bench.kills import SMALL, begin, ended  # noqa: E402
from minifleming.run.checkpoint import write_text  # noqa: E402
from minifleming.run.errors import BadInput, Parser, RunFailed, run_cli  # noqa: E402

LONG = SMALL | {"run.checkpoint_every": 50, "cold_start.epochs": 6, "rl.prompts_per_step": 2, "rl.max_new_tokens": 32,
                "rl.lr": 1e-5, "stage1.samples_per_prompt": 4, "stage2.rounds": 0, "alarms.truncated": 1.0}


def size_of(folder: Path) -> int:
    """Bytes below it; files that go while one looks count nothing."""
    total = 0
    for path in folder.rglob("*") if folder.exists() else ():
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            pass
    return total


def look(child: int, out: Path) -> dict:
    """The process and its run folder, now."""
    status = Path(f"/proc/{child}/status").read_text()
    resident = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))
    metrics = out / "metrics.jsonl"
    steps = metrics.read_text().count('"stage": "rl_stage1"') if metrics.exists() else 0
    return {"step": steps, "resident": resident, "descriptors": len(os.listdir(f"/proc/{child}/fd")),
            "checkpoints": size_of(out / "checkpoints")}


def watch(child: int, out: Path) -> list[dict]:
    seen = []
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        try:
            seen.append(look(child, out))
        except (FileNotFoundError, StopIteration):  # it ends just now
            break
        time.sleep(1)
    return seen


def markdown(result: dict) -> str:
    """The sentence of docs/reliability.md."""
    return (f"`python bench/soak.py --steps {result['steps']}`: {result['steps']:,} steps of stage 1 in "
            f"{result['seconds']} seconds. Resident memory, mean of the first and the last tenth of "
            f"{result['readings']} readings: {result['resident_first'] / 1e6:.1f} and "
            f"{result['resident_last'] / 1e6:.1f} MB ({100 * result['growth']:+.2f} %); open file descriptors "
            f"{min(result['descriptors'])} to {max(result['descriptors'])}; checkpoints at most "
            f"{result['checkpoint_bytes_most'] / 1e6:.1f} MB; the log grows by "
            f"{result['log_bytes_a_step']:,} bytes a step.")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="soak.py", description=__doc__)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--out", type=Path, help="folder for the JSON; without it only the summary is printed")
    args = parser.parse_args(argv)
    if args.steps < 100:
        raise BadInput("--steps: must be at least 100")
    torch.set_num_threads(1)
    scratch = Path(tempfile.mkdtemp(prefix="soak-"))
    start = time.monotonic()
    child = begin(scratch, LONG | {"stage1.min_steps": args.steps, "stage1.max_steps": args.steps})
    seen = watch(child, scratch / "run")
    if status := ended(child):
        raise RunFailed(f"the run ended with {status}: see {scratch / 'log'}")
    steady = [s for s in seen if args.steps // 10 <= s["step"] < args.steps]
    tenth = max(1, len(steady) // 10)
    first, last = steady[:tenth], steady[-tenth:]

    def mean(part: list[dict]) -> float:
        return sum(s["resident"] for s in part) / len(part)

    result = {
        "date": datetime.date.today().isoformat(), "cpu": platform.machine(), "torch": torch.__version__,
        "settings": LONG, "steps": args.steps, "seconds": round(time.monotonic() - start), "readings": len(steady),
        "resident_first": round(mean(first)), "resident_last": round(mean(last)),
        "growth": round(mean(last) / mean(first) - 1, 4), "resident_most": max(s["resident"] for s in steady),
        "descriptors": sorted({s["descriptors"] for s in steady}),
        "checkpoint_bytes_most": max(s["checkpoints"] for s in steady),
        "log_bytes_a_step": round((size_of(scratch / "run") - size_of(scratch / "run" / "checkpoints")) / args.steps)}
    if args.out:
        write_text(args.out / f"soak_{result['date']}.json", json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "settings"}))
    shutil.rmtree(scratch)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
