"""Where the time of our GRPO step goes: `python bench/shares.py`, for the workloads of bench/grpo_step.py.

PyTorch's profiler names every operation; here they are added up, for a rollout and for an update apart:

    weights     products with the weights, and the rate that they reached as a share of a 1024 x 1024 product's
    attention   products of queries, keys and values in a rollout, flash attention forward and backward in an update
    rest        everything else, what calling some 50 operations a layer costs included

The profiler itself adds some 5 to 10 % to the rest. Needs TRL's packages, as grpo_step.py does.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

from argparse import RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from grpo_step import AIMS, WORKLOADS, Ours
from side_by_side import KINDS, alone_and_quiet, gemm_rate, needed, write
from torch.profiler import ProfilerActivity, profile

from minifleming.rlvr.update import update
from minifleming.run.errors import Parser, run_cli

WEIGHTS = {"aten::mm", "aten::addmm", "aten::addmm_"}
ATTENTION = {"aten::bmm", "aten::baddbmm"}


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="shares.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="F", help="write the results to this file")
    parser.add_argument("--workloads", nargs="+", default=list(AIMS), choices=list(AIMS),
                        help="default: all of them")
    args = parser.parse_args(argv)
    needed("trl", "transformers", "trl", "datasets")
    alone_and_quiet()
    results = []
    for name in args.workloads:
        ours = Ours(WORKLOADS[name])
        groups = ours.sampled()
        for part, run in (("rollout", ours.sampled), ("update", lambda ours=ours, groups=groups: update(
                ours.model, ours.optimizer, groups, ours.cfg, fused=True))):
            before, (seconds, flop), after = gemm_rate(), shares(run), gemm_rate()
            results.append({"workload": name, "part": part, "seconds": sum(seconds.values()), **seconds,
                            "rate": flop / seconds["weights"] / max(before, after)})
            print(line(results[-1]), flush=True)
    write(args.json, results)
    return 0


def shares(run: Callable) -> tuple[Counter, int]:
    """Seconds by kind, and the operations (FLOP) of the products with weights, of a second call of ``run``."""
    run()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
        run()
    seconds, flop = Counter(), 0
    for event in found.key_averages(group_by_input_shape=True):
        kind = "weights" if event.key in WEIGHTS else "attention" if event.key in ATTENTION or "flash" in event.key \
            else "rest"
        seconds[kind] += event.self_cpu_time_total / 1e6
        if kind == "weights":
            (n, k), (_, m) = event.input_shapes[:2] if event.key == "aten::mm" else event.input_shapes[1:3]
            flop += 2 * n * k * m * event.count
    return seconds, flop


def line(r: dict) -> str:
    cells = ", ".join(f"{kind} {100 * r[kind] / r['seconds']:.0f} %" for kind in KINDS)
    return (f"{r['workload']:11s} {r['part']:8s} {r['seconds']:5.2f} s: {cells}; weights at {100 * r['rate']:.0f} % "
            "of the rate of a 1024 x 1024 product")


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
