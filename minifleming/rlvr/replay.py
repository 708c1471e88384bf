"""Replay a step of a run: restore the nearest checkpoint before it, sample from the same keys, train, compare.

On one machine and thread count a CPU repeats itself bit for bit: equal ids, log-probabilities and coefficients, equal
gradient norm, equal hash of the weights after the step. On CUDA (in the deterministic mode) the ids must be equal, and
the gradient norm within the tolerance that the run's manifest states. Steps between the checkpoint and the one asked
for are replayed, and compared, on the way. Nothing is written into the run folder.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model
from minifleming.rlvr.record import read_lines, read_step, step_path
from minifleming.rlvr.stages import Training
from minifleming.rods.item import read_items
from minifleming.run import config as configuration
from minifleming.run import parallel
from minifleming.run.checkpoint import checkpoints, read_json, verify_folder
from minifleming.run.errors import BadInput, RunFailed
from minifleming.run.progress import bar


def replay(folder: Path, step: int) -> dict:
    """Take step ``step`` (from 1) of the run again. Returns what was compared; raises RunFailed at a difference."""
    cfg = configuration.load(folder / "config.toml")
    manifest = read_json(folder / "manifest.json")
    if not step_path(folder, step).exists():
        raise BadInput(f"--step: there is no step {step} in this run", folder / "rollouts")
    earlier = [p for p in checkpoints(folder / "checkpoints") if int(p.name[5:]) < step and verify_folder(p) is None]
    if not earlier:
        raise BadInput(f"no whole checkpoint before step {step}", folder / "checkpoints")
    if manifest.get("world_size", 1) != parallel.world_size():
        raise BadInput(f"the run had {manifest['world_size']} ranks, this has {parallel.world_size()}: use torchrun "
                       f"--nproc_per_node={manifest['world_size']} -m minifleming.rlvr.audit", folder / "manifest.json")
    device = device_of(folder)
    if device.type == "cpu" and manifest.get("threads"):
        torch.set_num_threads(manifest["threads"])
    model = load_model(earlier[-1] / "model", cfg.model.dtype, device, cfg.run.deterministic)
    items = read_items(folder / "items" / "train.jsonl")
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode(False):
        training = Again(cfg, model, Tokenizer(earlier[-1] / "model"), items, Path(scratch))
        training.restore(earlier[-1])
        training.origin, before = folder, training.state.step
        with bar(total=step, desc="replay", initial=training.state.step) as progress:
            while training.state.step < step:
                known = training.state.step
                training.advance(progress)
                if training.state.step > known and parallel.rank() == 0:
                    differ(folder, Path(scratch), training.state.step, manifest.get("replay_tolerance", 0.0))
    return {"step": step, "from": earlier[-1].name, "steps": step - before, **_line(folder, step)}


def device_of(folder: Path) -> torch.device:
    """The kind of device that the run had."""
    return parallel.pick_device(str(read_json(folder / "manifest.json").get("device", "cpu")).split(":")[0])


class Again(Training):
    """A run that is gone through again: it saves nothing."""

    def save(self) -> None:
        pass


def differ(folder: Path, again: Path, step: int, tolerance: float) -> None:
    """Raise RunFailed where the replayed step is not the logged one."""
    first, second = read_step(folder, step), read_step(again, step)
    place = step_path(folder, step)
    for number, (a, b) in enumerate(zip(first, second, strict=True), 1):
        for name in ("item_id", "key", "prompt_ids", "completion_ids"):
            if a[name] != b[name]:
                raise RunFailed(f"{place}:{number}: replayed, {name} is another")
        if tolerance == 0 and {**a, "hash": ""} != {**b, "hash": ""}:
            names = [name for name in a if a[name] != b.get(name) and name != "hash"]
            raise RunFailed(f"{place}:{number}: replayed, {', '.join(names)} differ")
    a, b = _line(folder, step), _line(again, step)
    if abs(a["grad_norm"] - b["grad_norm"]) > tolerance * abs(a["grad_norm"]):
        raise RunFailed(f"step {step}: gradient norm {a['grad_norm']!r}, replayed {b['grad_norm']!r}")
    if tolerance == 0 and a["weights"] != b["weights"]:
        raise RunFailed(f"step {step}: the weights after it have another hash")


def _line(folder: Path, step: int) -> dict:
    """Gradient norm and hash of the weights of a step, from the metrics."""
    for line in read_lines(folder / "metrics.jsonl"):
        entry = json.loads(line)
        if entry["step"] == step and "grad_norm" in entry and entry["stage"] != "cold_start":
            return {"grad_norm": entry["grad_norm"], "weights": entry["weights"]}
    raise BadInput(f"no line of step {step}", folder / "metrics.jsonl")
