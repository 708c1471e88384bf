"""Audits a run folder, also a copy of it elsewhere.

    python -m minifleming.audit verify RUN            recompute all that follows from the log
    python -m minifleming.audit replay RUN --step 37  sample and train step 37 again, and compare

Exit status 0: everything is as logged. 1: a difference, or a log that was changed. 2: not a run
folder.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from minifleming.audit.reader import check_format, parse_record, read_lines, read_step
from minifleming.audit.verify import verify
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_for_training
from minifleming.rlvr import log
from minifleming.rlvr.rollout import Groups
from minifleming.rlvr.train import Training
from minifleming.rods.item import read_items
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.checkpoint import checkpoints, read_json, verify_folder
from minifleming.run.errors import BadInput, Parser, RunFailed, run_cli
from minifleming.run.run_folder import bar


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="audit", description=__doc__, allow_abbrev=False)
    parser.add_argument("what", choices=["verify", "replay"])
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--step", type=int, help="replay: the optimizer step, from 1")
    args = parser.parse_args(argv)
    if not (args.run / "config.toml").is_file():
        raise BadInput("not a run folder: no config.toml", args.run)
    if args.what == "verify":
        run_verify(args.run)
    elif args.step is None or args.step < 1:
        raise BadInput("--step: give a step of the run, from 1")
    else:
        run_replay(args.run, args.step)
    return 0


def run_verify(folder: Path) -> None:
    findings = verify(folder)
    print(findings)
    differences = findings.differences
    for difference in differences[1:10]:
        print(f"  {difference}")
    if differences:
        raise RunFailed(f"{differences[0]} (the first of {len(differences)} differences)")


def run_replay(folder: Path, step: int) -> None:
    check_format(folder)
    cfg = configuration.load(folder / "config.toml")
    device = distributed.pick_device(read_manifest(folder)["device"])
    minutes, sharded = cfg.run.dist_timeout_minutes, cfg.run.fsdp_size != 1
    with distributed.process_group(device, minutes, single_rank=sharded):
        found = replay(folder, step)
        if distributed.rank() == 0:
            weights = found["weights_checksum"][:16] if found["exact"] else "not compared"
            print(f"step {step}, replayed from {found['from']} ({found['steps']} steps): "
                  f"equal ids, gradient norm {found['grad_norm']:.9g}, weights {weights}")


def replay(folder: Path, step: int) -> dict:
    """Replays a step (from 1). Returns what was compared; raises RunFailed if it differs.

    Begins at the nearest checkpoint before the step and compares every step from there. On one
    machine and thread count a CPU repeats itself bit for bit, so the line of the metrics must be
    equal with its hash, and with it everything before it in the log since the checkpoint. On CUDA
    (in the deterministic mode) the ids must be equal and the gradient norm within the tolerance
    that the manifest states; weights are not compared. Nothing is written to the run folder.
    """
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


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
