"""kill -9 at random instants of the whole recipe: `python bench/kills.py --trials 200 --out bench/results`.

A small run is made once in peace. Then, again and again, a run of the same configuration is killed with SIGKILL at a
random instant, every fourth time inside a save and every fifth time twice, and started again with the same command.
At the end every file of the run folder must have the bytes of the run that nobody killed; timings.jsonl (wall-clock
figures) and manifest.json (the date) are left out. Processes are forked, so that a trial costs no imports.

With --signal TERM or INT the run is asked to end: it must do so by itself with status 143 or 130; a checkpoint that
this leaves and the peaceful run does not have is no difference.
"""

import datetime
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

import train_grpo  # noqa: E402
from minifleming.run.checkpoint import write_text  # noqa: E402
from minifleming.run.errors import BadInput, Parser, RunFailed, run_cli  # noqa: E402

SMALL = {
    "run.threads": 1, "run.checkpoint_every": 2, "data.train": 150, "data.heldout": 40, "data.num_ood": 10,
    "cold_start.traces": 120, "cold_start.epochs": 2, "cold_start.batch": 16, "cold_start.num_evals": 2,
    "cold_start.checkpoint_every": 3, "rl.prompts_per_step": 8, "stage1.min_steps": 1, "stage1.max_steps": 5,
    "stage2.rounds": 2, "stage2.steps_per_round": 3, "mining.samples": 1, "mining.chunk": 40, "eval.max_new_tokens": 64}
QUICK = SMALL | {"data.train": 64, "data.heldout": 12, "data.num_ood": 4, "cold_start.traces": 60, "stage1.max_steps": 3,
                 "rl.prompts_per_step": 4, "stage2.rounds": 1, "eval.max_new_tokens": 16, "rl.max_new_tokens": 24}
STATUS = {"KILL": (signal.SIGKILL, -9), "TERM": (signal.SIGTERM, 143), "INT": (signal.SIGINT, 130)}
OUTSIDE = ("timings.jsonl", "manifest.json")  # wall-clock figures, and the date


def begin(home: Path, settings: dict) -> int:
    """Start a run in a process of its own, in ``home``/run. -> its number"""
    home.mkdir(exist_ok=True)
    child = os.fork()
    if child:
        return child
    os.chdir(home)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
    sys.stdout = sys.stderr = open("log", "a", buffering=1)
    pairs = {**settings, "run.out": "run"}
    words = [word for name, value in pairs.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    os._exit(run_cli(train_grpo.main, words))


def ended(child: int) -> int:
    """Wait for it. -> exit status, negative for a signal"""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def digest(out: Path) -> dict[str, str]:
    """sha256 of every file that counts."""
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(out.rglob("*")) if path.is_file() and path.name not in OUTSIDE}


def stage_of(out: Path) -> str:
    """How far a killed run had come."""
    metrics = (out / "metrics.jsonl").read_text() if (out / "metrics.jsonl").exists() else ""
    for stage, reached in (("evaluation", (out / "eval").exists()), ("mining", (out / "mining.part.jsonl").exists()),
                           ("RL stage 2", "rl_stage2" in metrics), ("RL stage 1", (out / "checkpoints").exists()),
                           ("cold start", (out / "traces.jsonl").exists())):
        if reached:
            return stage
    return "items"


def saving(out: Path) -> bool:
    """Is a folder or file being written that is not yet in its place?"""
    return any(name.name.startswith(".") for folder in (out, out / "checkpoints", out / "cold_start.checkpoints")
               if folder.exists() for name in os.scandir(folder))


def kill(child: int, out: Path, instant: float, in_save: bool, number: int) -> tuple[int, float]:
    """The signal after ``instant`` seconds, or at the first save after them. -> exit status, seconds until the end"""
    until = time.monotonic() + instant
    while time.monotonic() < until or in_save and not saving(out):
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        if time.monotonic() < until:
            time.sleep(min(0.005, max(0.0, until - time.monotonic())))
    os.kill(child, number)
    start = time.monotonic()
    return ended(child), time.monotonic() - start


def trial(number: int, seconds: float, expected: dict[str, str], scratch: Path, settings: dict, how: str) -> dict:
    """One run, killed and started again. -> when and where it was killed, and what differs in the end"""
    rng, home, kills = random.Random(number), scratch / f"trial-{number}", []
    out, in_save = home / "run", number % 4 == 0
    for _ in range(2 if number % 5 == 4 else 1):
        child = begin(home, settings)
        instant = rng.uniform(0, seconds * (0.7 if in_save else 0.95))  # the last part only evaluates
        status, wait = kill(child, out, instant, in_save, STATUS[how][0])
        late = status == 0
        kills.append({"seconds": round(instant, 3), "stage": "after the end" if late else stage_of(out),
                      "in_save": not late and saving(out), "status": status, "until_end": round(wait, 3)})
    status = ended(begin(home, settings))
    found = digest(out)
    names = expected.keys() | found.keys()
    if how != "KILL":  # keeps another newest but one
        names = {n for n in names if not n.startswith("checkpoints/")} | {n for n in expected if last_of(expected) in n}
    differs = sorted(name for name in names if expected.get(name) != found.get(name))
    if not status and not differs:
        shutil.rmtree(home)
    return {"trial": number, "kills": kills, "status": status, "differs": differs}


def last_of(expected: dict[str, str]) -> str:
    """The folder of the last checkpoint."""
    return max(name.split("/")[1] for name in expected if name.startswith("checkpoints/"))


def peaceful(scratch: Path, settings: dict) -> tuple[dict[str, str], float]:
    """The run that nobody kills: the digests of its files, and its seconds."""
    start = time.monotonic()
    home = scratch / "peaceful"
    if status := ended(begin(home, settings)):
        raise RunFailed(f"the run that nobody kills ended with {status}: see {home / 'log'}")
    return digest(home / "run"), time.monotonic() - start


def markdown(result: dict) -> str:
    """The table of docs/reliability.md."""
    stages = result["by_stage"]
    hit = sum(count for stage, count in stages.items() if stage != "after the end")
    cells = [f"{result['trials']}", f"{hit}", f"{result['in_a_save']}", f"{result['files']}",
             f"{result['not_bit_identical']}", f"{result['not_ended']}"]
    told = ", ".join(f"{stage} {count}" for stage, count in sorted(stages.items()))
    head = "| runs | kills of a living run | of them in a save | files compared | runs that differ | never ended |"
    return f"{head}\n|{'---|' * 6}\n| " + " | ".join(cells) + f" |\n\nKills by stage: {told}."


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="kills.py", description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number, and seed, of the first trial")
    parser.add_argument("--signal", choices=STATUS, default="KILL")
    parser.add_argument("--quick", action="store_true", help="a smaller run")
    parser.add_argument("--out", type=Path, help="folder for the JSON; without it only the summary is printed")
    args = parser.parse_args(argv)
    if args.trials < 1:
        raise BadInput("--trials: must be positive")
    torch.set_num_threads(1)
    scratch = Path(tempfile.mkdtemp(prefix="kills-"))
    settings = QUICK if args.quick else SMALL
    expected, seconds = peaceful(scratch, settings)
    trials = []
    for number in range(args.first, args.first + args.trials):
        trials.append(trial(number, seconds, expected, scratch, settings, args.signal))
        if trials[-1]["status"] or trials[-1]["differs"]:
            print(json.dumps(trials[-1]), flush=True)
    kills = [one for each in trials for one in each["kills"]]
    result = {
        "date": datetime.date.today().isoformat(), "cpu": platform.machine(), "torch": torch.__version__,
        "settings": settings, "seconds_of_a_run": round(seconds, 2), "files": len(expected), "trials": len(trials),
        "kills": len(kills), "in_a_save": sum(one["in_save"] for one in kills),
        "by_stage": dict(Counter(one["stage"] for one in kills)),
        "not_bit_identical": sum(bool(each["differs"]) for each in trials),
        "not_ended": sum(bool(each["status"]) for each in trials), "signal": args.signal,
        "other_status": sum(one["status"] not in (0, STATUS[args.signal][1]) for one in kills),
        "longest_until_end": max(one["until_end"] for one in kills), "each": trials}
    if args.out:
        name = "kills" if args.signal == "KILL" else f"sig{args.signal.lower()}"
        write_text(args.out / f"{name}_{result['date']}.json", json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name not in ("each", "settings")}))
    if result["not_bit_identical"] or result["not_ended"] or result["other_status"]:
        raise RunFailed(f"{result['not_bit_identical']} runs differ, {result['not_ended']} did not end, "
                        f"{result['other_status']} left with another status: see {scratch}")
    shutil.rmtree(scratch)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
