"""Two programs timed against each other: one thread, process-CPU seconds, interleaved rounds, both orders.

A ratio is taken within a round, so what else the machine does in that minute is in both halves of it; the figure
reported is the median of the rounds, with the lowest and the highest beside it. Each round also measures a plain
matrix product: the ceiling that a share of the limit refers to.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import torch

from minifleming.run.errors import BadInput


def alone_and_quiet() -> None:
    """One thread; and the peers' warnings and progress bars are kept from the output."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    for name in ("transformers", "trl", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)


def needed(extra: str, *packages: str) -> None:
    """Raises BadInput for a peer that is not installed."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise BadInput(f"needs {', '.join(missing)}: pip install -e '.[{extra}]'")


def cpu_seconds(run: Callable[[], object]) -> float:
    gc.collect()
    start = time.process_time()
    run()
    return time.process_time() - start


def gemm_rate(size: int = 1024, repeats: int = 6) -> float:
    """Floating-point operations a second of a square fp32 matrix product on this thread, now."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    torch.mm(a, b)
    return 2 * size**3 * repeats / cpu_seconds(lambda: [torch.mm(a, b) for _ in range(repeats)])


def rounds(programs: dict[str, Callable[[], object]], count: int, warm: bool = True) -> list[dict[str, float]]:
    """Seconds of every program in each round, in one order and then in the other, and the GEMM rate ("gemm").

    First calls allocate and warm the caches: with ``warm`` every program runs once before.
    """
    for run in programs.values() if warm else ():
        run()
    found = []
    for i in range(count):
        names = list(programs) if i % 2 == 0 else list(programs)[::-1]
        found.append({"gemm": gemm_rate()} | {name: cpu_seconds(programs[name]) for name in names})
    return found


def against(times: list[dict[str, float]], peers: list[str], flop: float, ours: str = "ours") -> dict:
    """Our seconds against those of the peer with the lowest median, and both as a share of the GEMM limit."""
    medians = {name: statistics.median(t[name] for t in times) for name in (ours, *peers)}
    best = min(peers, key=medians.get)
    ratios = sorted(t[best] / t[ours] for t in times)
    return {
        "ratio": statistics.median(ratios), "ratio_low": ratios[0], "ratio_high": ratios[-1],
        "ours": medians[ours], "peer": medians[best], "peer_name": best,
        "share_of_limit": statistics.median(flop / t["gemm"] / t[ours] for t in times),
        "peer_share_of_limit": statistics.median(flop / t["gemm"] / t[best] for t in times),
        "all_peers": {name: medians[name] for name in peers}, "rounds": len(times),
    }


def markdown(results: list[dict]) -> str:
    """The table of docs/performance.md: rollout results."""
    def ratio(r: dict) -> str:
        return f"{r['ratio']:.2f} [{r['ratio_low']:.2f}, {r['ratio_high']:.2f}]"

    rows = ["| workload | sampled | greedy | seconds: ours, theirs | share of the GEMM limit | memory over its floor |",
            "|---|---|---|---|---|---|"]
    rows += [f"| {r['workload']} | **{ratio(r)}** | {ratio(r['greedy'])} | {r['ours']:.2f}, {r['peer']:.2f} "
             f"({r['peer_name']} cache) | {100 * r['share_of_limit']:.0f} %, {100 * r['peer_share_of_limit']:.0f} % | "
             f"{r['memory']['ratio']:.2f} |" for r in results]
    return "\n".join(rows) + "\n"


def grpo_markdown(results: list[dict]) -> str:
    """The table of docs/performance.md: results of whole GRPO steps."""
    rows = ["| workload | step | aim | seconds: ours, TRL's | of these the rollout | share of the GEMM limit | "
            "largest difference: gradient, loss |", "|---|---|---|---|---|---|---|"]
    rows += [f"| {r['workload']} | **{r['ratio']:.2f} [{r['ratio_low']:.2f}, {r['ratio_high']:.2f}]** | {r['aim']:g} | "
             f"{r['ours']:.2f}, {r['peer']:.2f} ({r['peer_name']}) | "
             f"{r['ours_rollout']:.2f}, {r['peer_rollout']:.2f} | "
             f"{100 * r['share_of_limit']:.0f} %, {100 * r['peer_share_of_limit']:.0f} % | "
             f"{r['gradient_difference']:.0e}, {r['loss_difference']:.0e} |" for r in results]
    return "\n".join(rows) + "\n"


SUMMARY = [  # what, workload, peer, aim
    ("grpo_step", "GRPO step, prompt 64", "prompt_64", "TRL's `GRPOTrainer`", 2),
    ("grpo_step", "GRPO step, prompt 256", "prompt_256", "the same", 3.5),
    ("grpo_step", "GRPO step, ragged completions", "ragged", "the same", 6),
    ("sft", "supervised step, equal lengths", "equal", "TRL's `SFTTrainer`", 1.15),
    ("sft", "supervised step, ragged", "ragged", "the same, padded", 2),
    ("sft", "supervised step, ragged", "ragged_packed", "the same, its packing", 3),
    ("rollout", "rollout, prompt 64", "prompt_64", "transformers' `generate`", 2.5),
    ("rollout", "rollout, prompt 256", "prompt_256", "the same", 4),
    ("rollout", "rollout, tiny", "tiny", "the same", 3.5),
    ("rollout", "rollout, ragged", "ragged", "the same", 5.5)]


def summary(results: dict[str, list[dict]]) -> str:
    """The first table of docs/performance.md, from the results of each command."""
    rows = ["| what | peer | ratio of CPU seconds | aim | | ours: share of the GEMM limit | peer's | command |",
            "|---|---|---|---|---|---|---|---|"]
    for command, what, workload, peer, aim in SUMMARY:
        r = next(r for r in results[command] if r["workload"] == workload)
        met = "met" if r["ratio"] >= aim else "in some rounds" if r["ratio_high"] >= aim else "missed"
        ratio = f"**{r['ratio']:.2f} [{r['ratio_low']:.2f}, {r['ratio_high']:.2f}]**"
        rows.append(f"| {what} | {peer} | {ratio} | {aim:g} | "
                    f"{met} | {100 * r['share_of_limit']:.0f} % | {100 * r['peer_share_of_limit']:.0f} % | "
                    f"`bench/{command}.py` |")
    return "\n".join(rows) + "\n"


def machine() -> dict:
    """Where and with what a result was measured."""
    import transformers

    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")] if Path("/proc/cpuinfo").exists() else []
    return {"date": date.today().isoformat(), "cpu": (names or [platform.processor()])[0], "threads": 1,
            "torch": torch.__version__, "transformers": transformers.__version__}


def made(results: list[dict]) -> str:
    """The line below a table of docs/performance.md: when, where, with what, how often."""
    r = results[0]
    return (f"{r['date']}, {r['cpu']}, {r['threads']} thread, torch {r['torch']}, transformers {r['transformers']}, "
            f"{r['rounds']} rounds")


def write(path: Path | None, results: list[dict]) -> None:
    if path:
        path.write_text(json.dumps([result | machine() for result in results], indent=1) + "\n")


def sft_markdown(results: list[dict]) -> str:
    """The table of docs/performance.md: supervised steps."""
    rows = ["| workload | step | aim | tokens a CPU second: ours, TRL's | share of the GEMM limit | "
            "largest difference: gradient, loss |", "|---|---|---|---|---|---|"]
    rows += [f"| {r['workload']} | **{r['ratio']:.2f} [{r['ratio_low']:.2f}, {r['ratio_high']:.2f}]** | {r['aim']} | "
             f"{r['tokens'] / r['ours']:,.0f}, {r['tokens'] / r['peer']:,.0f} ({r['peer_name']}) | "
             f"{100 * r['share_of_limit']:.0f} %, {100 * r['peer_share_of_limit']:.0f} % | "
             f"{r['gradient_difference']:.0e}, {r['loss_difference']:.0e} |" for r in results]
    return "\n".join(rows) + "\n"


KINDS = ("weights", "attention", "rest")  # of operations


def shares_markdown(results: list[dict]) -> str:
    """The table of docs/performance.md: where a step's time goes (bench/shares.py)."""
    rows = ["| workload | part | seconds | products by weights | attention | rest | their rate, of a large one's |",
            "|---|---|---|---|---|---|---|"]
    rows += [f"| {r['workload']} | {r['part']} | {r['seconds']:.2f} | "
             + " | ".join(f"{100 * r[kind] / r['seconds']:.0f} %" for kind in KINDS) + f" | {100 * r['rate']:.0f} % |"
             for r in results]
    return "\n".join(rows) + "\n"
