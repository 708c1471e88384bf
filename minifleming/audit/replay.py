"""Replays a step of a run from the nearest checkpoint before it, and compares.

On one machine and thread count a CPU repeats itself bit for bit. So the line of the metrics must be
equal with its hash, and with it everything before it in the log since the checkpoint: ids,
log-probabilities, coefficients, the ledger, the gradient norm and the checksum of the weights. On
CUDA (in the deterministic mode) the ids must be equal and the gradient norm within the tolerance
that the manifest states; weights are not compared. Steps between the checkpoint and the requested
one are replayed and compared as well. Nothing is written to the run folder.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from minifleming.audit.reader import parse_record, read_lines, read_step
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_for_training
from minifleming.rlvr import log
from minifleming.rlvr.rollout import Groups
from minifleming.rlvr.train import Training
from minifleming.rods.item import read_items
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.checkpoint import checkpoints, read_json, verify_folder
from minifleming.run.errors import BadInput, RunFailed
from minifleming.run.run_folder import bar


def replay(folder: Path, step: int) -> dict:
    """Replays a step (from 1). Returns what was compared; raises RunFailed if it differs."""
    cfg = configuration.load(folder / "config.toml")
    manifest = read_manifest(folder)
    if not log.step_path(folder, step).exists():
        raise BadInput(f"--step: there is no step {step} in this run", folder / "rollouts")
    start = checkpoint_before(folder, step)
    ranks = manifest["world_size"]
    if ranks != distributed.world_size():
        raise BadInput(
            f"the run had {ranks} ranks, this has {distributed.world_size()}: use torchrun "
            f"--nproc_per_node={ranks} -m minifleming.audit", folder / "manifest.json")
    device = distributed.pick_device(manifest["device"])
    if device.type == "cpu":
        torch.set_num_threads(manifest["threads"])
    model = load_for_training(start / "model", cfg, device)
    items = read_items(folder / "items" / "train.jsonl")
    tolerance = manifest["replay_tolerance"]
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode(False):
        training = ReplayTraining(cfg, model, Tokenizer(start / "model"), items, Path(scratch))
        training.restore(start)
        training.origin = folder
        first = training.state.step
        with bar(total=step, desc="replay", initial=first) as progress:
            while training.state.step < step:
                if training.state.stage == "done":
                    raise RunFailed(f"the run ends at step {training.state.step}: "
                                    f"there is no step {step}")
                before = training.state.step
                training.run_one(progress)
                with distributed.raise_on_all_ranks(device):
                    if training.state.step > before and distributed.rank() == 0:
                        assert_same_step(folder, Path(scratch), training.state.step, tolerance)
    return {"from": start.name, "steps": step - first, "exact": tolerance == 0,
            **metrics_of(folder, step)}


def checkpoint_before(folder: Path, step: int) -> Path:
    """Returns the newest complete checkpoint before a step."""
    for path in reversed(checkpoints(folder / "checkpoints")):
        if log.step_of(path) < step and verify_folder(path) is None:
            return path
    raise BadInput(f"no complete checkpoint before step {step}", folder / "checkpoints")


def read_manifest(folder: Path) -> dict:
    """Returns device, threads, ranks and tolerance of a run. A CPU has no tolerance."""
    path = folder / "manifest.json"
    raw = read_json(path)
    device = str(raw.get("device")).split(":")[0]
    found = {"device": device, "replay_tolerance": raw.get("replay_tolerance")}
    valid = device in ("cpu", "cuda") and type(found["replay_tolerance"]) is float
    for name in ("threads", "world_size"):
        found[name] = raw.get(name)
        valid = valid and type(found[name]) is int and found[name] > 0
    if not valid:
        raise BadInput("not the manifest of a run (threads, world_size, device, "
                       "replay_tolerance)", path)
    if device == "cpu":
        found["replay_tolerance"] = 0.0
    if not 0 <= found["replay_tolerance"] <= 0.01:
        raise BadInput("replay_tolerance must be from 0 to 0.01", path)
    return found


class ReplayTraining(Training):
    """A run that neither saves nor warns."""

    def save(self) -> None:
        pass

    def warn(self, found: dict[str, str]) -> None:
        pass

    def refuse(self, groups: Groups, reason: str) -> None:
        raise RunFailed(f"replayed, step {self.state.step + 1} is refused: {reason}")


def assert_same_step(folder: Path, scratch: Path, step: int, tolerance: float) -> None:
    """Raises RunFailed if the replayed step in ``scratch`` differs from the logged one."""
    logged = read_step(folder, step)
    replayed = read_step(scratch, step)
    path = log.step_path(folder, step)
    if len(logged) != len(replayed):
        raise RunFailed(f"{path}: {len(logged)} samples, replayed {len(replayed)}")
    for number, (a, b) in enumerate(zip(logged, replayed), 1):
        changed = differing(a, b) - {"hash"}
        for name in ("item_id", "key", "prompt_ids", "completion_ids"):
            if name in changed:
                raise RunFailed(f"{path}:{number}: replayed, {name} is another")
        if tolerance == 0 and changed:
            raise RunFailed(f"{path}:{number}: replayed, {', '.join(sorted(changed))} differ")
    a = metrics_of(folder, step)
    b = metrics_of(scratch, step)
    if abs(a["grad_norm"] - b["grad_norm"]) > tolerance * abs(a["grad_norm"]):
        raise RunFailed(
            f"step {step}: gradient norm {a['grad_norm']!r}, replayed {b['grad_norm']!r}")
    changed = differing(a, b)
    if tolerance == 0 and "weights_checksum" in changed:
        raise RunFailed(f"step {step}: the weights after it have another checksum")
    if tolerance == 0 and changed:
        raise RunFailed(
            f"step {step}: replayed, its line of the metrics is another "
            f"({', '.join(sorted(changed))}); if only the hash is, so is the ledger")


def differing(a: dict, b: dict) -> set[str]:
    """Returns the names of the fields that differ."""
    return {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)}


def metrics_of(folder: Path, step: int) -> dict:
    """Returns the line of the metrics of a training step."""
    path = folder / "metrics.jsonl"
    for number, line in enumerate(read_lines(path), 1):
        entry = parse_record(line, path, number)
        if entry.get("stage") != "cold_start" and entry.get("step") == step \
                and type(entry.get("grad_norm")) is float:
            return entry
    raise RunFailed(f"{path}: no line of step {step}")
