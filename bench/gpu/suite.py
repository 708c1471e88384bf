"""The GPU suite: `bench/gpu.sh --out DIR`. Every part in a process of its own, each with its share of the time left.

    machine       a copy and a matrix product: the ceilings of this card
    correctness   every kernel of kernels/ against fp64
    agreement     log-probabilities of sampler and trainer in bf16
    head, training, decode, kernels    shares of what the machine could do, and peers where they are installed
    grpo          a whole step of 0.5B, and a real run of train_grpo.py

Rows are in DIR/rows.jsonl as soon as they are measured. In the end, also after a time-out, an interruption or a part
that died, DIR/gpu.json and DIR/gpu.md hold them all. A part whose device answers no more, or that died, goes on in a
fresh process behind the measurement that did it. Exit status: 0 all parts ran; 1 something failed or was cut off
(results are written all the same); 2 bad arguments.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.gpu import rows
from minifleming.run.errors import BadInput, Parser, run_cli

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 570.0
MADE = ("rows.jsonl", "machine.json", "gpu.json", "gpu.md", "log.txt")
BROKEN, FAILED = 3, 4  # as in common.py, which imports torch
# In order of value; a part may take this many of LIMIT, and what those before it left, in proportion.
PARTS = {"machine": 15, "correctness": 90, "agreement": 40, "head": 45, "training": 60, "decode": 120, "grpo": 145,
         "kernels": 55}
AT_ONCE = {"correctness": 8}  # processes, where there are cores: most of its time is compilation, and it times nothing


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="gpu.sh", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--toy", action="store_true", help="toy sizes; without CUDA there are no others")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for everything")
    parser.add_argument("--model", type=Path, help="a folder of SmolLM2-135M (or another) for agreement and grpo")
    args = parser.parse_args(argv)
    end = time.monotonic() + args.limit
    if not 0 < args.limit < math.inf:
        raise BadInput("--limit: must be positive")
    if args.model and not (args.model / "config.json").exists():
        raise BadInput("--model: no model folder", args.model)
    if any((args.out / name).exists() for name in MADE):
        raise BadInput("--out: holds results already", args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    try:
        everything(args, end, notes)
    finally:
        rows.write_results(args.out, machine_of(args.out), notes)
        print((args.out / "gpu.md").read_text(encoding="utf-8"), flush=True)
    return 1 if notes or any(rows.bad(row) for row in rows.read(args.out)) else 0


def everything(args, end: float, notes: list[str]) -> None:
    for i, part in enumerate(args.parts):
        weights, start = [PARTS[name] for name in args.parts[i:]], time.monotonic()
        until = start + (end - start) * weights[0] / sum(weights)
        of = max(1, min(AT_ONCE.get(part, 1), (os.cpu_count() or 1) // 2))
        workers: list[Worker] = []
        try:
            for number in range(of):
                workers.append(Worker(part, args, until, f"{number}/{of}"))
            while [worker for worker in workers if worker.goes_on()]:
                time.sleep(0.02)
        finally:
            for worker in workers:
                worker.kill()
        notes += [f"{part}: {fault}" for worker in workers for fault in worker.faults]
        made = sum(line.get("part") == part and "what" in line for line in rows.read(args.out))
        print(f"{part}: {made} rows, {time.monotonic() - start:.0f} s", flush=True)


class Worker:
    """A process at work on a part, or on its share of one; started again behind a measurement that it died of."""

    def __init__(self, part: str, args, end: float, number: str):
        self.part, self.args, self.end, self.number = part, args, end, number
        self.faults: list[str] = []
        self.after: str | None = None
        self.child: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        left = self.end - time.monotonic()
        if left < 1:
            self.faults.append(f"not run{' to its end' if self.faults else ''}: no time was left")
            return
        self.child = started(command_of(self.part, self.args, self.end - 3, self.after, self.number), self.args.out)

    def goes_on(self) -> bool:
        if self.child is None:
            return False
        status, over = self.child.poll(), time.monotonic() > self.end
        if status is None and not over:
            return True
        self.kill()
        if status not in (0, FAILED):  # of a failed measurement there is a row
            self.died(status)
        return self.child is not None

    def died(self, status: int | None) -> None:
        begun = [line["begin"] for line in rows.read(self.args.out) if "begin" in line and
                 (line.get("part"), line.get("worker", self.number)) == (self.part, self.number)]
        fault = "timed out" if status is None else f"ended with status {status}" if status > 0 else \
            f"killed by signal {-status}"
        where = begun[-1] if begun else "its start"
        self.faults.append(f"{fault} in '{where}'")
        if status != BROKEN or not begun:
            rows.append(self.args.out, {"part": self.part, "what": where, "shape": "", "error": fault, "command":
                                        rows.command(self.part, self.args.toy, self.args.model)})
        if status is None or status == 2 or not begun or begun[-1] == self.after:
            return
        self.after = begun[-1]
        self.start()

    def kill(self) -> None:
        """The process, and whatever it started."""
        if self.child is not None:
            try:
                os.killpg(self.child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.child.wait()
            self.child = None


def command_of(part: str, args, until: float, after: str | None, number: str) -> list[str]:
    command = [sys.executable, "-P", "-m", f"bench.gpu.{part}", "--out", str(args.out), "--until", f"{until:.1f}"]
    command += ["--toy"] * args.toy + (["--model", str(args.model)] if args.model else []) + ["--worker", number]
    return command + (["--after", after] if after else [])


def started(command: list[str], out: Path) -> subprocess.Popen:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | {
        "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with (out / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                env=environment, start_new_session=True)


def machine_of(out: Path) -> dict:
    try:
        return json.loads((out / "machine.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"kind": "unknown", "toy": True}


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
