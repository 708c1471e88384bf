"""Replay a step of a run: restore the nearest checkpoint before it, sample from the same keys, train, compare.

On one machine and thread count a CPU repeats itself bit for bit: the line of metrics must come out equal with its hash,
and with it everything before it in the log since the checkpoint: ids, log-probabilities, coefficients, the ledger,
gradient norm and the checksum of the weights. On CUDA (in the deterministic mode) the ids must be equal, and the
gradient norm within the tolerance that the run's manifest states; weights are not compared there. Steps between the
checkpoint and the one asked for are replayed, and compared, on the way. Nothing is written into the run folder.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

from minifleming.lm.load import load_for_training
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rlvr.log import read_lines, read_step, step_path
from minifleming.rlvr.rollout import Rollout
from minifleming.rlvr.saves import restore
from minifleming.rlvr.train import Training
from minifleming.rods.item import read_items
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.checkpoint import checkpoints, read_json, verify_folder
from minifleming.run.errors import BadInput, RunFailed
from minifleming.run.journal import bar


def replay(folder: Path, step: int) -> dict:
    """Take step ``step`` (from 1) of the run again. Returns what was compared; raises RunFailed at a difference."""
    try:
        return _replay(folder, step)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise RunFailed(f"{folder}: its log cannot be replayed: {type(error).__name__}: {error}") from None


def _replay(folder: Path, step: int) -> dict:
    cfg, manifest = configuration.load(folder / "config.toml"), read_manifest(folder)
    if not step_path(folder, step).exists():
        raise BadInput(f"--step: there is no step {step} in this run", folder / "rollouts")
    earlier = [p for p in checkpoints(folder / "checkpoints") if int(p.name[5:]) < step and verify_folder(p) is None]
    if not earlier:
        raise BadInput(f"no whole checkpoint before step {step}", folder / "checkpoints")
    if manifest["world_size"] != distributed.world_size():
        raise BadInput(f"the run had {manifest['world_size']} ranks, this has {distributed.world_size()}: use torchrun "
                       f"--nproc_per_node={manifest['world_size']} -m minifleming.rlvr.audit", folder / "manifest.json")
    device = distributed.pick_device(manifest["device"])
    if device.type == "cpu":
        torch.set_num_threads(manifest["threads"])
    model = load_for_training(earlier[-1] / "model", cfg, device)
    items = read_items(folder / "items" / "train.jsonl")
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode(False):
        training = Again(cfg, model, Tokenizer(earlier[-1] / "model"), items, Path(scratch))
        restore(training, earlier[-1])
        training.origin, before = folder, training.state.step
        with bar(total=step, desc="replay", initial=training.state.step) as progress:
            while training.state.step < step:
                if training.state.stage == "done":
                    raise RunFailed(f"the run ends at step {training.state.step}: there is no step {step}")
                known = training.state.step
                training.advance(progress)
                with distributed.raise_on_all_ranks(device):
                    if training.state.step > known and distributed.rank() == 0:
                        differ(folder, Path(scratch), training.state.step, manifest["replay_tolerance"])
    return {"from": earlier[-1].name, "steps": step - before, "exact": manifest["replay_tolerance"] == 0,
            **_line(folder, step)}


def read_manifest(folder: Path) -> dict:
    """Device, threads, ranks and tolerance of a run. A CPU has no tolerance, whatever the manifest says."""
    path = folder / "manifest.json"
    raw = read_json(path)
    raw = raw if isinstance(raw, dict) else {}
    found = {name: raw.get(name) for name in ("threads", "world_size", "device", "replay_tolerance")}
    whole = all(type(found[name]) is int and found[name] > 0 for name in ("threads", "world_size"))
    kind = str(found["device"]).split(":")[0]
    if not whole or kind not in ("cpu", "cuda") or type(found["replay_tolerance"]) is not float:
        raise BadInput("needs 'threads', 'world_size', 'device' and 'replay_tolerance' of a run", path)
    tolerance = 0.0 if kind == "cpu" else found["replay_tolerance"]
    if not 0 <= tolerance <= 0.01:
        raise BadInput(f"replay_tolerance {tolerance}: from 0 to 0.01 makes sense", path)
    return found | {"device": kind, "replay_tolerance": tolerance}


class Again(Training):
    """A run that is gone through again: it saves nothing and warns of nothing."""

    def save(self) -> None:
        pass

    def warn(self, found: dict[str, str]) -> None:
        pass

    def refuse(self, groups: list[list[Rollout]], reason: str) -> None:
        raise RunFailed(f"replayed, step {self.state.step + 1} is refused: {reason}")


def differ(folder: Path, again: Path, step: int, tolerance: float) -> None:
    """Raise RunFailed where the replayed step is not the logged one."""
    first, second = read_step(folder, step), read_step(again, step)
    place = step_path(folder, step)
    if len(first) != len(second):
        raise RunFailed(f"{place}: {len(first)} samples, replayed {len(second)}")
    for number, (a, b) in enumerate(zip(first, second), 1):
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
        raise RunFailed(f"step {step}: the weights after it have another checksum")
    if tolerance == 0 and a != b:
        names = ", ".join(sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name)))
        raise RunFailed(f"step {step}: replayed, its line of metrics is another ({names}); where only the hash is, so "
                        "is the ledger since the checkpoint")


def _line(folder: Path, step: int) -> dict:
    """The line of metrics of a step."""
    for line in read_lines(folder / "metrics.jsonl"):
        entry = json.loads(line)
        if entry["step"] == step and "grad_norm" in entry and entry["stage"] != "cold_start":
            return entry
    raise BadInput(f"no line of step {step}", folder / "metrics.jsonl")
