"""The two stages of reinforcement learning (arXiv:2509.15279 §3.3), resumable at any checkpoint.

curriculum.py decides what comes next and on which items; ``Training`` does it: sample, update, mine, save.

    checkpoints/step_000100/    model/  optimizer.safetensors  state.json  files.json

Every record is a link of one hash chain (log.py), in this order: the samples of a step, its lines of the
ledger, its line of the metrics.
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
from minifleming.lm.fsdp import gathered_copy
from minifleming.lm.model import LanguageModel
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_for_training, load_weights, save_model, weights_checksum
from minifleming.rlvr import alarms, curriculum, log
from minifleming.rlvr.curriculum import State
from minifleming.rlvr.mining import count_passes
from minifleming.rlvr.rollout import Groups, roll_out
from minifleming.rlvr.update import update
from minifleming.rods.item import Item
from minifleming.run import checkpoint, distributed
from minifleming.run.checkpoint import checkpoints
from minifleming.run.errors import BadInput, DeferSignals, RunFailed, Terminated
from minifleming.run.fields import Config
from minifleming.run.journal import Journal, bar


class Training:
    """A run: model, optimizer and curriculum state, the moves that change them, and their checkpoints."""

    def __init__(self, cfg: Config, model: LanguageModel, tokenizer: Tokenizer, items: list[Item],
                 folder: Path):
        self.cfg = cfg
        self.model = model
        self.tokenizer = tokenizer
        self.folder = folder
        self.origin = folder  # where the first checkpoint is; a replay writes to another folder
        self.items = {item.id: item for item in items}
        self.item_hashes = {item.id: log.item_sha256(item) for item in items}
        self.journal = Journal(folder)
        self.optimizer = optim.adamw(model, cfg.rl.lr, tuple(cfg.rl.betas), cfg.rl.weight_decay)
        self.reference: LanguageModel | None = None
        self.state = curriculum.begin(cfg, self.items)
        self.warned: set[tuple[int, str]] = set()  # (round, alarm)
        self.hold = DeferSignals()
        if not self.state.pools and cfg.stage1.max_steps > 0:
            raise BadInput(f"stage1.mix: no training item has a tier of {', '.join(cfg.stage1.mix)}")

    def run(self) -> State:
        """Continues to the end of stage 2. An interrupted run saves between two steps and leaves."""
        cfg = self.cfg
        begun = distributed.rank() == 0 and bool(self.journal.read("mining.jsonl"))
        if not distributed.any_rank(begun, self.model.device):
            self.write_genesis()
        total = cfg.stage1.max_steps + cfg.stage2.rounds * cfg.stage2.steps_per_round
        with self.hold, bar(total=total, desc="RL", initial=self.state.step) as progress:
            while self.state.stage != "done":
                self.run_one(progress)
                self.leave_if_interrupted(save=True)
        return self.state

    def write_genesis(self) -> None:
        """Writes the first links of the chain: what the run is made from and, at step 0, its pools."""
        state = self.state
        genesis = log.genesis_record(self.cfg, self.items, self.model, state.step, state.chain)
        self.append_log("mining.jsonl", [genesis])
        if state.step == 0:
            self.append_log("mining.jsonl", curriculum.initial_pool_log(state))
        self.save()

    def run_one(self, progress) -> None:
        """Does one unit of work: a training step with the mining before it, the switch, or the end."""
        cfg, state = self.cfg, self.state
        move = curriculum.next_move(state, cfg)
        if move == "mine":
            self.mine_pool()
        if move in ("mine", "step"):
            self.train_step(progress)
            return
        if move == "switch":
            self.append_log("metrics.jsonl", [curriculum.switch(state, cfg)])
            progress.total = state.step + cfg.stage2.rounds * cfg.stage2.steps_per_round
        else:
            state.stage = "done"
        self.save()

    def train_step(self, progress) -> None:
        """Samples, updates and logs one step."""
        cfg, state = self.cfg, self.state
        place = {"stage": state.stage, "step": state.step + 1, "round": state.round}
        samples = curriculum.stage_of(state, cfg).samples_per_prompt
        drawn = curriculum.sample_prompts(state, cfg, self.items)
        with self.journal.timed("rollout", step=state.step + 1), gathered_copy(self.model) as model:
            groups = roll_out(model, self.tokenizer, drawn, cfg.rl, samples=samples,
                              seed=cfg.run.seed, step=state.step)
        summaries = [[log.summary(r) for r in group] for group in groups]
        summaries = distributed.all_gather(summaries, self.model.device)
        metrics = log.step_metrics(summaries)
        result = self.update(groups, metrics)

        curriculum.after_step(state, cfg, metrics)
        records = self.records(groups, state.step)
        if distributed.rank() == 0:
            path = log.step_path(self.folder, state.step)
            state.chain = log.write_step(path, records, state.chain)
        passes = [sum(log.correctness(group)) for group in summaries]
        self.append_log("mining.jsonl", curriculum.training_log(place, drawn, passes, samples))
        checksum = weights_checksum(self.model)
        self.append_log("metrics.jsonl", [place | metrics | result | {"weights_checksum": checksum}])
        answers = [item.answer for item, _ in drawn]
        self.warn(alarms.warnings(metrics, answers, state.history, cfg.alarms))
        progress.set_postfix_str(
            f"{place['stage']} reward {metrics['reward']:.2f} acc {metrics['accuracy']:.2f} "
            f"zero-variance {metrics['zero_variance_groups']:.2f}", refresh=False)
        progress.update()
        if state.step % cfg.run.checkpoint_every == 0:
            self.save()

    def update(self, groups: Groups, metrics: dict) -> dict:
        """Trains on the groups; returns the metrics of the update. Refuses groups that must stop the run."""
        cfg, step = self.cfg, self.state.step
        eos_counts = alarms.recent_truncation(self.state.eos_counts, metrics, cfg.alarms)
        reason = alarms.should_abort(eos_counts, cfg.alarms, cfg.rl)
        if reason:
            self.refuse(groups, reason)
        with self.journal.timed("update", step=step + 1):
            try:
                return update(self.model, self.optimizer, groups, cfg.rl, fused=True,
                              reference=self.start_model(), key=(cfg.run.seed, step))
            except RunFailed as error:
                self.refuse(groups, str(error))

    def mine_pool(self) -> None:
        """Begins a round of stage 2: classifies the whole pool, or for the control takes it as it is."""
        cfg, state = self.cfg, self.state
        if cfg.stage2.sampling == "uniform":
            curriculum.next_round(state, cfg, self.items, None)
            return
        saved = log.checkpoint_path(self.folder, state.step).exists()
        if not distributed.broadcast_from_rank0(saved, self.model.device):
            self.save()  # an interrupted mining round resumes from here
        with self.journal.timed("mining", round=state.round + 1), gathered_copy(self.model) as model:
            passes = self.mine_passes(model)
        self.append_log("mining.jsonl", curriculum.next_round(state, cfg, self.items, passes))
        self.append_log("metrics.jsonl", [curriculum.mining_metrics(state)])

    def mine_passes(self, model: LanguageModel) -> dict[str, int]:
        """Returns the correct samples of every item, resuming from the chunks of a killed run."""
        chain, number = self.state.chain, self.state.round + 1  # the chain identifies the round
        parts = self.journal.read("mining.part.jsonl") if distributed.rank() == 0 else []
        passes: dict[str, int] = {}
        for part in distributed.broadcast_from_rank0(parts, self.model.device):
            if part["chain"] == chain:
                passes |= part["passes"]
        items = [item for item in self.items.values() if item.id not in passes]
        with bar(total=len(self.items), initial=len(passes), desc=f"mining {number}") as progress:
            for found in count_passes(model, self.tokenizer, items, self.cfg, number):
                self.journal.append("mining.part.jsonl", json.dumps({"chain": chain, "passes": found}))
                passes |= found
                progress.update(len(found))
                self.leave_if_interrupted()
        return passes

    def leave_if_interrupted(self, save: bool = False) -> None:
        """Ends the run on all ranks if one of them has received SIGINT or SIGTERM."""
        if distributed.any_rank(self.hold.received is not None, self.model.device):
            if save:
                self.save()
            raise self.hold.received or Terminated()

    def start_model(self) -> LanguageModel | None:
        """Returns the frozen model of the first checkpoint, the reference of the KL term, if there is one."""
        if self.cfg.rl.kl_coef > 0 and self.reference is None:
            first = checkpoints(self.origin / "checkpoints")[0] / "model"
            self.reference = load_for_training(first, self.cfg, self.model.device)
            self.reference.requires_grad_(False)
        return self.reference

    def records(self, groups: Groups, step: int) -> list[dict]:
        seed, device = self.cfg.run.seed, self.model.device
        return log.gather_records(groups, seed, step, self.item_hashes, device)

    def append_log(self, file: str, entries: list[dict]) -> None:
        """Appends links of the chain, which only rank 0 has."""
        if distributed.rank() == 0:
            for entry in entries:
                line, self.state.chain = log.append_hash(entry, self.state.chain)
                self.journal.append(file, line)

    def refuse(self, groups: Groups, reason: str) -> None:
        """Writes the samples outside the log, for inspection, and raises RunFailed on every rank."""
        step = self.state.step + 1
        records = self.records(groups, step)
        path = self.folder / "refused" / log.step_path(self.folder, step).name
        if distributed.rank() == 0:  # the numbers may be NaN, which the log does not allow
            log.write_lines(path, [json.dumps(r, ensure_ascii=False) for r in records])
        raise RunFailed(f"step {step}: {reason}; its samples are in {path}")

    def warn(self, found: dict[str, str]) -> None:
        """Prints each warning once a stage and round, and writes it to alarms.jsonl."""
        if distributed.rank() != 0:
            return
        place = {"step": self.state.step, "round": self.state.round}
        for name, message in found.items():
            if (self.state.round, name) not in self.warned:
                self.warned.add((self.state.round, name))
                tqdm.write(f"minifleming: warning: step {self.state.step}: {message}", file=sys.stderr)
                self.journal.append("alarms.jsonl", json.dumps(place | {"alarm": name, "words": message}))

    def save(self) -> None:
        """Writes a checkpoint and deletes those that are no longer needed."""
        if distributed.rank() == 0:
            home = self.folder / "checkpoints"
            with self.journal.timed("save", step=self.state.step):
                self.journal.sync()
                checkpoint.write_folder(log.checkpoint_path(self.folder, self.state.step), self.write_checkpoint)
                first = log.step_of(checkpoints(home)[0])
                needed = {first, log.first_step(self.folder) - 1, self.state.stage1_end}
                checkpoint.prune(home, self.cfg.run.keep_last, needed.union(self.state.best[:1]))
                (self.folder / "mining.part.jsonl").unlink(missing_ok=True)
        else:
            self.write_checkpoint(None)
        distributed.barrier()

    def write_checkpoint(self, folder: Path | None) -> None:
        """Writes model, optimizer and state. All ranks gather sharded tensors; rank 0 has the folder."""
        save_model(self.model, self.tokenizer, folder and folder / "model")
        optim.save_optimizer(self.optimizer, self.model, folder)
        if folder:
            text = json.dumps(dataclasses.asdict(self.state), sort_keys=True)
            (folder / "state.json").write_text(text + "\n")

    def restore(self, path: Path) -> None:
        """Continues from a checkpoint, and removes the records of later steps."""
        load_weights(self.model, path / "model")
        optim.load_optimizer(self.optimizer, self.model, path)
        self.state = curriculum.read_state(path / "state.json", self.items)
        log.truncate(self.journal, self.state)
        distributed.barrier()  # other ranks read only after rank 0 has truncated
        log.check_end(self.journal, self.state.chain, path)
        self.warned = {(r["round"], r["alarm"]) for r in self.journal.read("alarms.jsonl")}

    def import_checkpoint(self, start: Path) -> None:
        """Copies another run's checkpoint, and the earlier ones that are needed later, into this run."""
        kept = {self.state.step: start}
        if 0 <= self.state.stage1_end < self.state.step:
            kept[self.state.stage1_end] = start.parent / f"step_{self.state.stage1_end:06d}"
        if self.cfg.rl.kl_coef > 0:
            kept[0] = start.parent / "step_000000"
        for source in kept.values():
            reason = checkpoint.verify_folder(source)
            if reason:
                raise BadInput(f"{reason}: this checkpoint is needed as well, and must be complete", source)
        if self.state.stage == "done":
            raise BadInput("the end of a run: there is nothing to continue", start)
        if distributed.rank() == 0:
            ignore = shutil.ignore_patterns(checkpoint.MANIFEST)
            for step, source in kept.items():
                checkpoint.write_folder(log.checkpoint_path(self.folder, step), partial(
                    shutil.copytree, source, ignore=ignore, dirs_exist_ok=True))
        distributed.barrier()


def train(cfg: Config, model: LanguageModel, tokenizer: Tokenizer, items: list[Item], folder: Path,
          start: Path | None = None) -> State:
    """Trains both stages and returns the final state.

    Continues from the newest checkpoint of the folder, or else from ``start``, another run's checkpoint.
    """
    training = Training(cfg, model, tokenizer, items, folder)
    home = folder / "checkpoints"
    if checkpoints(home):
        if start is not None and distributed.rank() == 0:
            print(f"{folder} continues from its own checkpoints, not from {start}")
        newest = str(checkpoint.latest(home) or "") if distributed.rank() == 0 else ""
        newest = distributed.broadcast_from_rank0(newest, model.device)
        if not newest:
            raise BadInput("no checkpoint is complete; choose another run.out or delete this folder", home)
        training.restore(Path(newest))
    elif start is not None:
        training.restore(start)
        training.import_checkpoint(start)
    else:
        training.journal.truncate("mining.jsonl", lambda entry: False)  # no checkpoint was written
    with torch.inference_mode(False):
        return training.run()
