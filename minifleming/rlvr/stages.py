"""The two stages of reinforcement learning (arXiv:2509.15279 §3.3), step by step, resumable at any checkpoint.

What is to be done next, and on which items, is decided in curriculum.py; here it is done: sample, update, mine, save.
Every record is a link of one chain of hashes (record.py), in this order: the samples of a step, its lines of the
ledger, its line of metrics.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from minifleming.lm import optimizer as optim
from minifleming.lm.model import LanguageModel
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import fingerprint, load_model, load_weights, save_model
from minifleming.rlvr import alarms, curriculum
from minifleming.rlvr.curriculum import State
from minifleming.rlvr.mining import CLASSES
from minifleming.rlvr.record import (
    brief,
    figures,
    first_step,
    record,
    seal,
    sha256_text,
    step_path,
    write_lines,
    write_step,
)
from minifleming.rlvr.rollout import Rollout, roll_out
from minifleming.rlvr.update import update
from minifleming.rods.item import Item
from minifleming.run import config as configuration
from minifleming.run import parallel
from minifleming.run.checkpoint import MANIFEST, checkpoints, latest, prune, read_json, verify_folder, write_folder
from minifleming.run.errors import BadInput, Hold, RunFailed, Terminated
from minifleming.run.fields import Config
from minifleming.run.progress import Journal, bar

MINING_STEP = 1_000_000_000  # steps from here on key the random numbers of mining rounds


class Training:
    """Model, optimizer and state of a run, and its moves: ``train_step``, ``mine_pool``, ``switch``."""

    def __init__(self, cfg: Config, model: LanguageModel, tokenizer: Tokenizer, items: list[Item], folder: Path):
        self.cfg, self.model, self.tokenizer, self.folder = cfg, model, tokenizer, folder
        self.items = {item.id: item for item in items}
        self.journal, self.origin = Journal(folder), folder
        self.optimizer = optim.adamw(model, cfg.rl.lr, tuple(cfg.rl.betas), cfg.rl.weight_decay)
        self.reference: LanguageModel | None = None
        self.state = curriculum.begin(cfg, self.items)
        self.warned: set[tuple[int, str]] = set()  # (round, alarm)
        if not self.state.pools and cfg.stage1.max_steps > 0:
            raise BadInput(f"stage1.mix: no training item has a tier of {', '.join(cfg.stage1.mix)}")

    def run(self) -> State:
        """Go on from the present state to the end of stage 2; when interrupted, save between two steps and leave."""
        cfg, state = self.cfg, self.state
        begun = parallel.rank() == 0 and bool(self.journal.read("mining.jsonl"))
        if not parallel.all_sum([begun], self.model.device)[0]:
            self.begin()
        total = cfg.stage1.max_steps + cfg.stage2.rounds * cfg.stage2.steps_per_round
        with Hold() as hold, bar(total=total, desc="RL", initial=state.step) as progress:
            while state.stage != "done":
                self.advance(progress)
                if parallel.all_sum([hold.came is not None], self.model.device)[0]:  # all ranks leave at one step
                    self.save()
                    raise hold.came or Terminated()
        return state

    def begin(self) -> None:
        """The first links of this run's chain: what it is made from, and, at step 0, who is in the pools of stage 1."""
        if parallel.rank() == 0:
            self.write("mining.jsonl", [facts(self.cfg, self.items, self.model, self.state.step, self.state.chain)])
        if self.state.step == 0:
            self.write("mining.jsonl", curriculum.entered(self.state))
        self.save()

    def advance(self, progress) -> None:
        """One unit of work: a training step with the mining before it, the switch to stage 2, or the end."""
        cfg, state = self.cfg, self.state
        move = curriculum.next_move(state, cfg)
        if move == "mine":
            self.mine_pool()
        if move in ("mine", "step"):
            return self.train_step(progress)
        if move == "switch":
            self.write("metrics.jsonl", [curriculum.switch(state, cfg)])
            progress.total = state.step + cfg.stage2.rounds * cfg.stage2.steps_per_round
        else:
            state.stage = "done"
        return self.save()

    def train_step(self, progress) -> None:
        cfg, state = self.cfg, self.state
        samples = curriculum.stage_of(state, cfg).samples_per_prompt
        drawn = curriculum.draw(state, cfg, self.items)
        with self.journal.timed("rollout", step=state.step + 1):
            groups = roll_out(self.model, self.tokenizer, drawn, cfg.rl, samples=samples, seed=cfg.run.seed,
                              step=state.step)
        briefs = [[brief(r) for r in group] for group in self.records(groups, state.step + 1)]
        briefs = [b for group in parallel.all_gather(briefs, self.model.device) for b in group]
        found = figures(briefs, samples)
        if reason := alarms.stops(alarms.evidence(state.ended, found, cfg.alarms), cfg.alarms, cfg.rl):
            self.refuse(groups, reason)
        with self.journal.timed("update", step=state.step + 1):
            try:
                result = update(self.model, self.optimizer, groups, cfg.rl, samples=samples, prompts=len(drawn),
                                reference=self.start_model(), key=(cfg.run.seed, state.step))
            except RunFailed as error:
                self.refuse(groups, str(error))
        curriculum.stepped(state, cfg, found)
        records = [r for g in parallel.all_gather(self.records(groups, state.step), self.model.device) for r in g]
        if parallel.rank() == 0:
            state.chain = write_step(step_path(self.folder, state.step), records, state.chain)
        passes = [{"event": "trained", "round": state.round, "step": state.step, "item": item.id, "now": why,
                   "passes": sum(b["label"] == b["answer"] for b in briefs[i * samples : (i + 1) * samples]),
                   "samples": samples} for i, (item, why) in enumerate(drawn)]
        self.write("mining.jsonl", passes)
        if parallel.rank() == 0:
            self.write("metrics.jsonl", [{"stage": state.stage, "step": state.step, "round": state.round, **found,
                                          **result, "weights": fingerprint(self.model)}])
        self.warn(alarms.warnings(found, [item.answer for item, _ in drawn], state.history, cfg.alarms))
        progress.set_postfix_str(f"{state.stage} reward {found['reward']:.2f} acc {found['accuracy']:.2f} "
                                 f"sparsity {found['sparsity']:.2f}", refresh=False)
        progress.update()
        if state.step % cfg.run.checkpoint_every == 0:
            self.save()

    def mine_pool(self) -> None:
        """Start a round of stage 2: sort the whole pool by pass rate, or, for the control, take it as it is."""
        cfg, state = self.cfg, self.state
        if cfg.stage2.source == "uniform":
            curriculum.next_round(state, cfg, self.items, None)
            return
        n, number = cfg.mining.samples, state.round + 1
        with bar(total=len(self.items) * n, desc=f"mining {number}") as progress, \
                self.journal.timed("mining", round=number):
            groups = roll_out(self.model, self.tokenizer, [(item, "mining") for item in self.items.values()],
                              cfg.rl, samples=n, seed=cfg.run.seed, step=MINING_STEP + number,
                              done=lambda ended: progress.update(ended * parallel.world_size()))
        passes = [[group[0].item.id, sum(r.right for r in group)] for group in groups]
        passes = dict(parallel.all_gather(passes, self.model.device))
        self.write("mining.jsonl", curriculum.next_round(state, cfg, self.items, passes))
        self.write("metrics.jsonl", [{"stage": "mining", "step": state.step, "round": state.round,
                                      **{kind: len(state.pools[kind]) for kind in CLASSES}}])

    def records(self, groups: list[list[Rollout]], step: int) -> list[list[dict]]:
        """This rank's records of step ``step`` (from 1)."""
        return [[record(r, self.cfg.run.seed, step) for r in group] for group in groups]

    def write(self, file: str, entries: list[dict]) -> None:
        """Links of the chain; only rank 0 has it."""
        if parallel.rank() == 0:
            for entry in entries:
                line, self.state.chain = seal(entry, self.state.chain)
                self.journal.line(file, line)

    def refuse(self, groups: list[list[Rollout]], reason: str) -> None:
        """Leave the samples behind for whoever wants to look, outside the log, and stop the run on every rank."""
        step = self.state.step + 1
        records = [r for g in parallel.all_gather(self.records(groups, step), self.model.device) for r in g]
        path = self.folder / "refused" / step_path(self.folder, step).name
        if parallel.rank() == 0:
            write_lines(path, [json.dumps(r, ensure_ascii=False) for r in records])  # NaN and all
        raise RunFailed(f"step {step}: {reason}; its samples are in {path}")

    def warn(self, found: dict[str, str]) -> None:
        """Say what has gone wrong, once a stage and round, and note it in alarms.jsonl."""
        if parallel.rank() == 0:
            for name, words in found.items():
                if (self.state.round, name) not in self.warned:
                    tqdm.write(f"minifleming: warning: step {self.state.step}: {words}", file=sys.stderr)
                    self.journal.line("alarms.jsonl", json.dumps(
                        {"step": self.state.step, "round": self.state.round, "alarm": name, "words": words}))
                self.warned.add((self.state.round, name))

    def start_model(self) -> LanguageModel | None:
        """The frozen model of the first checkpoint, which the KL term is taken to; loaded if there is such a term."""
        if self.cfg.rl.kl > 0 and self.reference is None:
            first = checkpoints(self.origin / "checkpoints")[0] / "model"
            self.reference = load_model(first, self.cfg.model.dtype, self.model.device, self.model.deterministic)
            self.reference.requires_grad_(False)
        return self.reference

    def save(self) -> None:
        """Write a checkpoint: the model as a folder that transformers loads, optimizer state, and State."""
        if parallel.rank() == 0:
            home = self.folder / "checkpoints"
            with self.journal.timed("save", step=self.state.step):
                self.journal.sync()
                write_folder(home / f"step_{self.state.step:06d}", self._fill)
                first = int(checkpoints(home)[0].name[5:])
                prune(home, self.cfg.run.keep, {first, first_step(self.folder) - 1, self.state.stage1_end})
        parallel.barrier()

    def _fill(self, folder: Path) -> None:
        save_model(self.model, self.tokenizer, folder / "model")
        optim.save_state(self.optimizer, self.model, folder)
        (folder / "state.json").write_text(json.dumps(dataclasses.asdict(self.state), sort_keys=True) + "\n")

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint, and drop the records of later steps."""
        load_weights(self.model, path / "model")
        optim.load_state(self.optimizer, self.model, path)
        self.state = read_state(path / "state.json", self.items)
        step, done, switched = self.state.step, self.state.round, self.state.stage != "rl_stage1"
        self.journal.truncate("metrics.jsonl", lambda r: r["stage"] == "cold_start" or r["step"] < step or (
            r["step"] == step and (switched if r["stage"] == "switch" else r["round"] <= done)))
        self.journal.truncate("mining.jsonl", lambda r: r["step"] <= step and r["round"] <= done)
        self.journal.truncate("alarms.jsonl", lambda r: r["step"] <= step)
        self.warned = {(r["round"], r["alarm"]) for r in self.journal.read("alarms.jsonl")}
        last = [r for name in ("metrics.jsonl", "mining.jsonl") for r in self.journal.read(name)[-1:]]
        ends = [r["hash"] for r in last if "hash" in r]
        if ends and self.state.chain not in ends:
            raise BadInput("the log ends before this checkpoint, or is not the one that led to it", path)
        if parallel.rank() == 0:
            for log in (self.folder / "rollouts").glob("step_*.jsonl.gz"):
                if int(log.name[5:11]) > step:
                    log.unlink()

    def adopt(self, start: Path) -> None:
        """A run that goes on from another one's checkpoint keeps it as its own, and those that it will need again."""
        kept = {self.state.step: start}
        if 0 <= self.state.stage1_end < self.state.step:
            kept[self.state.stage1_end] = start.parent / f"step_{self.state.stage1_end:06d}"
        if self.cfg.rl.kl > 0:
            kept[0] = start.parent / "step_000000"
        for source in kept.values():
            reason = verify_folder(source)
            if reason:
                raise BadInput(f"{reason}: this, the end of stage 1 and the start beside it must be whole", source)
        if self.state.stage == "done":
            raise BadInput("the end of a run: there is nothing to go on with", start)
        if parallel.rank() == 0:
            for step, source in kept.items():
                write_folder(self.folder / "checkpoints" / f"step_{step:06d}", partial(_copy, source))
        parallel.barrier()


def facts(cfg: Config, items: dict[str, Item], model: LanguageModel, step: int, chain: str) -> dict:
    """What a run is made from, as its first record: ``chain`` is the hash that it goes on from, if it does."""
    listed = json.dumps([dataclasses.asdict(item) for item in items.values()], sort_keys=True)
    return {"event": "begun", "round": 0, "step": step, "from": chain, "items": sha256_text(listed),
            "config": sha256_text(configuration.to_toml(cfg)), "weights": fingerprint(model)}


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


def _copy(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(MANIFEST), dirs_exist_ok=True)


def train(cfg: Config, model: LanguageModel, tokenizer: Tokenizer, items: list[Item], folder: Path,
          start: Path | None = None) -> State:
    """Both stages: from the newest checkpoint of the run folder; where it has none, from ``start`` (another run's
    checkpoint), or from the beginning."""
    training = Training(cfg, model, tokenizer, items, folder)
    home = folder / "checkpoints"
    if checkpoints(home):
        if start is not None and parallel.rank() == 0:
            print(f"{folder} goes on from its own checkpoints, not from {start}")
        newest = latest(home)
        if newest is None:
            raise BadInput("no checkpoint is whole; choose another run.out, or delete this folder to begin again", home)
        training.restore(newest)
    elif start is not None:
        training.restore(start)
        training.adopt(start)
    else:
        training.journal.truncate("mining.jsonl", lambda entry: False)  # it ended before a checkpoint
    with torch.inference_mode(False):
        return training.run()
