"""The checkpoints of a run: model, optimizer and state, and the log cut back to where they stand.

    checkpoints/step_000100/    model/  optimizer.safetensors  state.json  files.json
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from minifleming.lm import optimizer as optim
from minifleming.lm.model import LanguageModel
from minifleming.lm.weights import load_weights, save_model, weights_checksum
from minifleming.rlvr.curriculum import State
from minifleming.rlvr.log import first_step, sha256_text
from minifleming.rods.item import Item
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.checkpoint import (
    MANIFEST,
    checkpoints,
    prune,
    read_json,
    verify_folder,
    write_folder,
)
from minifleming.run.errors import BadInput
from minifleming.run.fields import Config

if TYPE_CHECKING:
    from minifleming.rlvr.train import Training


def checkpoint_of(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step_{step:06d}"


def save(run: Training) -> None:
    """Write a checkpoint: the model as a folder that transformers loads, optimizer state, and State."""
    if distributed.rank() == 0:
        home = run.folder / "checkpoints"
        with run.journal.timed("save", step=run.state.step):
            run.journal.sync()
            write_folder(checkpoint_of(run.folder, run.state.step), partial(fill, run))
            begun = {int(checkpoints(home)[0].name[5:]), first_step(run.folder) - 1}
            prune(home, run.cfg.run.keep_last, begun | {run.state.stage1_end, *run.state.best[:1]})
            (run.folder / "mining.part.jsonl").unlink(missing_ok=True)
    else:
        fill(run, None)
    distributed.barrier()


def fill(run: Training, folder: Path | None) -> None:
    """All ranks gather what is sharded, the first one writes."""
    save_model(run.model, run.tokenizer, folder and folder / "model")
    optim.save_optimizer(run.optimizer, run.model, folder)
    if folder:
        (folder / "state.json").write_text(json.dumps(dataclasses.asdict(run.state), sort_keys=True) + "\n")


def restore(run: Training, path: Path) -> None:
    """Continue from a checkpoint, and drop the records of later steps."""
    load_weights(run.model, path / "model")
    optim.load_optimizer(run.optimizer, run.model, path)
    run.state = read_state(path / "state.json", run.items)
    step, done, switched = run.state.step, run.state.round, run.state.stage != "rl_stage1"
    run.journal.truncate("metrics.jsonl", lambda r: r["stage"] == "cold_start" or r["step"] < step or (
        r["step"] == step and (switched if r["stage"] == "switch" else r["round"] <= done)))
    run.journal.truncate("mining.jsonl", lambda r: r["step"] <= step and r["round"] <= done)
    run.journal.truncate("alarms.jsonl", lambda r: r["step"] <= step)
    distributed.barrier()  # nobody reads before it is done
    run.warned = {(r["round"], r["alarm"]) for r in run.journal.read("alarms.jsonl")}
    last = [r for name in ("metrics.jsonl", "mining.jsonl") for r in run.journal.read(name)[-1:]]
    ends = [r["hash"] for r in last if "hash" in r]
    if ends and run.state.chain not in ends:
        raise BadInput("the log ends before this checkpoint, or is not the one that led to it", path)
    if distributed.rank() == 0:
        for log in (run.folder / "rollouts").glob("step_*.jsonl.gz"):
            if int(log.name[5:11]) > step:
                log.unlink()


def adopt(run: Training, start: Path) -> None:
    """A run that goes on from another one's checkpoint keeps it as its own, and those that it will need again."""
    kept = {run.state.step: start}
    if 0 <= run.state.stage1_end < run.state.step:
        kept[run.state.stage1_end] = start.parent / f"step_{run.state.stage1_end:06d}"
    if run.cfg.rl.kl_coef > 0:
        kept[0] = start.parent / "step_000000"
    for source in kept.values():
        reason = verify_folder(source)
        if reason:
            raise BadInput(f"{reason}: this, the end of stage 1 and the start beside it must be whole", source)
    if run.state.stage == "done":
        raise BadInput("the end of a run: there is nothing to go on with", start)
    if distributed.rank() == 0:
        for step, source in kept.items():
            write_folder(checkpoint_of(run.folder, step), partial(copy, source))
    distributed.barrier()


def facts(cfg: Config, items: dict[str, Item], model: LanguageModel, step: int, chain: str) -> dict:
    """What a run is made from, as its first record: ``chain`` is the hash that it goes on from, if it does."""
    listed = json.dumps([dataclasses.asdict(item) for item in items.values()], sort_keys=True)
    return {"event": "begun", "round": 0, "step": step, "from": chain, "items": sha256_text(listed),
            "config": sha256_text(configuration.to_toml(cfg)), "weights": weights_checksum(model)}


def read_state(path: Path, items: dict[str, Item]) -> State:
    """The state of a checkpoint, which must be of these items."""
    raw = read_json(path)
    kinds = {field.name: type(getattr(State(), field.name)) for field in dataclasses.fields(State)}
    if not isinstance(raw, dict) or {name: type(value) for name, value in raw.items()} != kinds:
        raise BadInput("not the state of a run", path)
    unknown = {name for ids in raw["pools"].values() for name in ids} - items.keys()
    if unknown:
        raise BadInput(f"made from other items: '{min(unknown)}' is not among this run's", path)
    return State(**raw)


def copy(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(MANIFEST), dirs_exist_ok=True)
