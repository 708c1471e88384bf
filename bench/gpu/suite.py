"""The GPU suite: `bench/gpu.sh --out DIR`. Every part in a process of its own, each with its share of the time left.

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
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.gpu import rows
from minifleming.run.errors import BadInput, Parser, guarded

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 570.0
BROKEN, FAILED = 3, 4  # as in common.py, which imports torch
# In order of value; a part may take this many of LIMIT, and what those before it left, in proportion.
PARTS = {"correctness": 105, "agreement": 40, "head": 45, "training": 60, "decode": 120, "grpo": 145, "kernels": 55}


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="gpu.sh", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--toy", action="store_true", help="toy sizes; without CUDA there are no others")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for everything")
    parser.add_argument("--model", type=Path, help="a folder of SmolLM2-135M (or another) for agreement and grpo")
    args = parser.parse_args(argv)
    end = time.monotonic() + args.limit
    if args.limit <= 0:
        raise BadInput("--limit: must be positive")
    if args.model and not (args.model / "config.json").exists():
        raise BadInput("--model: no model folder", args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in ("rows.jsonl", "machine.json", "gpu.json", "gpu.md", "log.txt"):
        (args.out / name).unlink(missing_ok=True)
    notes: list[str] = []
    try:
        everything(args, end, notes)
    finally:
        rows.write_results(args.out, machine_of(args.out), notes)
        print((args.out / "gpu.md").read_text(encoding="utf-8"), flush=True)
    return 1 if notes or any(rows.bad(row) for row in rows.read(args.out)) else 0


def everything(args, end: float, notes: list[str]) -> None:
    for i, part in enumerate(args.parts):
        weights = [PARTS[name] for name in args.parts[i:]]
        share = (end - time.monotonic()) * weights[0] / sum(weights)
        start = time.monotonic()
        notes += [f"{part}: {fault}" for fault in run_part(part, args, start + share)]
        made = sum(line.get("part") == part and "what" in line for line in rows.read(args.out))
        print(f"{part}: {made} rows, {time.monotonic() - start:.0f} s", flush=True)


def run_part(part: str, args, end: float) -> list[str]:
    """What went wrong; a part that died is started again behind the measurement in work."""
    faults: list[str] = []
    after: str | None = None
    while True:
        left = end - time.monotonic()
        if left < 1:
            return [*faults, f"not run{' to its end' if faults else ''}: no time was left"]
        status = run(command_of(part, args, left, after), args.out, left)
        if status in (0, FAILED):
            return faults  # a failed measurement has its row
        begun = [line["begin"] for line in rows.read(args.out) if line.get("part") == part and "begin" in line]
        fault = "timed out" if status is None else f"ended with status {status}" if status > 0 else \
            f"killed by signal {-status}"
        where = begun[-1] if begun else "its start"
        faults.append(f"{fault} in '{where}'")
        if status != BROKEN or not begun:
            rows.append(args.out, {"part": part, "what": where, "shape": "", "error": fault, "toy": args.toy,
                                   "command": f"bench/gpu.sh --out DIR --parts {part}"})
        if status is None or status == 2 or not begun or begun[-1] == after:
            return faults
        after = begun[-1]


def command_of(part: str, args, left: float, after: str | None) -> list[str]:
    command = [sys.executable, "-P", "-m", f"bench.gpu.{part}", "--out", str(args.out), "--seconds", f"{left - 3:.1f}"]
    command += ["--toy"] * args.toy + (["--model", str(args.model)] if args.model else [])
    return command + (["--after", after] if after else [])


def run(command: list[str], out: Path, left: float) -> int | None:
    """Its exit status; None if it took too long. Whatever it started ends with it."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false",
                                "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with (out / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                 env=environment, start_new_session=True)
        try:
            return child.wait(timeout=left)
        except subprocess.TimeoutExpired:
            return None
        finally:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()


def machine_of(out: Path) -> dict:
    try:
        return json.loads((out / "machine.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"kind": "unknown", "toy": True}


if __name__ == "__main__":
    raise SystemExit(guarded(main))
