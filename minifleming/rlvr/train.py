"""The two stages of reinforcement learning (arXiv:2509.15279 §3.3), resumable at any checkpoint.

curriculum.py decides what comes next; ``Training`` does it: sample, update, mine, save.

    checkpoints/step_000100/    model/  optimizer.safetensors  state.json  files.json

Records are links of a hash chain (log.py): a step's samples, its ledger lines, its metrics line.
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
from minifleming.rlvr import curriculum, log
from minifleming.rlvr.curriculum import State
from minifleming.rlvr.mining import count_passes
from minifleming.rlvr.rollout import Groups, roll_out
from minifleming.rlvr.update import update
from minifleming.rods.item import Item
from minifleming.run import checkpoint, distributed
from minifleming.run.checkpoint import checkpoints
from minifleming.run.errors import BadInput, DeferSignals, RunFailed, Terminated
from minifleming.run.fields import Config
from minifleming.run.run_folder import Journal, bar


class Training:
    """A run: model, optimizer and state, the moves that change them, and their checkpoints."""

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
            raise BadInput(f"stage1.mix: no training item has a tier of {cfg.stage1.mix}")

    def run(self) -> State:
        """Continues to the end of stage 2. If interrupted, saves between two steps and leaves."""
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
        """Writes the first links of the chain: the genesis record and, at step 0, the pools."""
        state = self.state
        genesis = log.genesis_record(self.cfg, self.items, self.model, state.step, state.chain)
        self.append_log("mining.jsonl", [genesis])
        if state.step == 0:
            self.append_log("mining.jsonl", curriculum.initial_pool_log(state))
        self.save()

    def run_one(self, progress) -> None:
        """Does one move: a training step with the mining before it, the switch, or the end."""
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
        summaries = distributed.all_gather(log.summaries(groups), self.model.device)
        metrics = log.step_metrics(summaries)
        result = self.update(groups, metrics)
        curriculum.after_step(state, cfg, metrics)
        records = log.gather_records(
            groups, cfg.run.seed, state.step, self.item_hashes, self.model.device)
        if distributed.rank() == 0:
            path = log.step_path(self.folder, state.step)
            state.chain = log.write_step(path, records, state.chain)
        passes = [sum(log.correctness(group)) for group in summaries]
        self.append_log("mining.jsonl", curriculum.training_log(place, drawn, passes, samples))
        result["weights_checksum"] = weights_checksum(self.model)
        self.append_log("metrics.jsonl", [place | metrics | result])
        answers = [item.answer for item, _ in drawn]
        self.warn(curriculum.warnings(metrics, answers, state.history, cfg.alarms))
        progress.set_postfix_str(
            f"{place['stage']} reward {metrics['reward']:.2f} acc {metrics['accuracy']:.2f} "
            f"zero-variance {metrics['zero_variance_groups']:.2f}", refresh=False)
        progress.update()
        if state.step % cfg.run.checkpoint_every == 0:
            self.save()

    def update(self, groups: Groups, metrics: dict) -> dict:
        """Trains on the groups and returns the metrics of the update, or refuses the groups."""
        cfg, step = self.cfg, self.state.step
        eos_counts = curriculum.recent_truncation(self.state.eos_counts, metrics, cfg.alarms)
        reason = curriculum.should_abort(eos_counts, cfg.alarms, cfg.rl)
        if reason:
            self.refuse(groups, reason)
        with self.journal.timed("update", step=step + 1):
            try:
                return update(self.model, self.optimizer, groups, cfg.rl, fused=True,
                              reference=self.start_model(), key=(cfg.run.seed, step))
            except RunFailed as error:
                self.refuse(groups, str(error))

    def mine_pool(self) -> None:
        """Begins a round of stage 2: classifies the pool, or for the control takes all of it."""
        cfg, state = self.cfg, self.state
        if cfg.stage2.sampling == "uniform":
            curriculum.next_round(state, cfg, self.items, None)
            return
        saved = log.checkpoint_path(self.folder, state.step).exists()
        if not distributed.broadcast_from_rank0(saved, self.model.device):
            self.save()  # an interrupted round resumes from here
        with self.journal.timed("mining", round=state.round + 1):
            passes = self.mine_passes()
        self.append_log("mining.jsonl", curriculum.next_round(state, cfg, self.items, passes))
        self.append_log("metrics.jsonl", [curriculum.mining_metrics(state)])

    def mine_passes(self) -> dict[str, int]:
        """Returns the correct samples of every item, resuming from the chunks of a killed run."""
        chain, number = self.state.chain, self.state.round + 1  # the chain identifies the round
        parts = self.journal.read("mining.part.jsonl") if distributed.rank() == 0 else []
        passes: dict[str, int] = {}
        for part in distributed.broadcast_from_rank0(parts, self.model.device):
            if part["chain"] == chain:
                passes |= part["passes"]
        items = [item for item in self.items.values() if item.id not in passes]
        progress = bar(total=len(self.items), initial=len(passes), desc=f"mining {number}")
        with gathered_copy(self.model) as model, progress:
            for found in count_passes(model, self.tokenizer, items, self.cfg, number):
                line = json.dumps({"chain": chain, "passes": found})
                self.journal.append("mining.part.jsonl", line)
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
        """Returns the frozen first model, the reference of the KL term, if there is one."""
        if self.cfg.rl.kl_coef > 0 and self.reference is None:
            first = checkpoints(self.origin / "checkpoints")[0] / "model"
            reference = load_for_training(first, self.cfg, self.model.device)
            self.reference = reference.requires_grad_(False)
        return self.reference

    def append_log(self, file: str, entries: list[dict]) -> None:
        """Appends links of the chain, which only rank 0 has."""
        if distributed.rank() == 0:
            for entry in entries:
                line, self.state.chain = log.append_hash(entry, self.state.chain)
                self.journal.append(file, line)

    def refuse(self, groups: Groups, reason: str) -> None:
        """Writes the samples outside the log and raises RunFailed on every rank."""
        step = self.state.step + 1
        records = log.gather_records(
            groups, self.cfg.run.seed, step, self.item_hashes, self.model.device)
        path = self.folder / "refused" / log.step_path(self.folder, step).name
        if distributed.rank() == 0:  # the numbers may be NaN, which the log does not allow
            log.write_lines(path, [json.dumps(r, ensure_ascii=False) for r in records])
        raise RunFailed(f"step {step}: {reason}; its samples are in {path}")

    def warn(self, found: dict[str, str]) -> None:
        """Prints each warning once a stage and round, and writes it to alarms.jsonl."""
        if distributed.rank() != 0:
            return
        step, number = self.state.step, self.state.round
        for name, words in found.items():
            if (number, name) not in self.warned:
                self.warned.add((number, name))
                tqdm.write(f"minifleming: warning: step {step}: {words}", file=sys.stderr)
                entry = {"step": step, "round": number, "alarm": name, "words": words}
                self.journal.append("alarms.jsonl", json.dumps(entry))

    def save(self) -> None:
        """Writes a checkpoint and deletes those that are no longer needed."""
        if distributed.rank() == 0:
            home = self.folder / "checkpoints"
            with self.journal.timed("save", step=self.state.step):
                self.journal.sync()
                path = log.checkpoint_path(self.folder, self.state.step)
                checkpoint.write_folder(path, self.write_checkpoint)
                first = log.step_of(checkpoints(home)[0])
                needed = {first, log.first_step(self.folder) - 1, self.state.stage1_end}
                checkpoint.prune(home, self.cfg.run.keep_last, needed.union(self.state.best[:1]))
                (self.folder / "mining.part.jsonl").unlink(missing_ok=True)
        else:
            self.write_checkpoint(None)
        distributed.barrier()

    def write_checkpoint(self, folder: Path | None) -> None:
        """Writes a checkpoint. All ranks gather sharded tensors; rank 0 has the folder."""
        save_model(self.model, self.tokenizer, folder and folder / "model")
        optim.save_optimizer(self.optimizer, self.model, folder)
        if folder:
            state = json.dumps(dataclasses.asdict(self.state), sort_keys=True)
            (folder / "state.json").write_text(state + "\n")

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
        """Copies another run's checkpoint, and the earlier ones needed later, into this run."""
        kept = {self.state.step: start}
        if 0 <= self.state.stage1_end < self.state.step:
            kept[self.state.stage1_end] = start.parent / f"step_{self.state.stage1_end:06d}"
        if self.cfg.rl.kl_coef > 0:
            kept[0] = start.parent / "step_000000"
        for source in kept.values():
            reason = checkpoint.verify_folder(source)
            if reason:
                raise BadInput(f"{reason}: this checkpoint is needed too", source)
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

    Continues from the newest checkpoint, or else from ``start``, another run's checkpoint.
    """
    training = Training(cfg, model, tokenizer, items, folder)
    home = folder / "checkpoints"
    if checkpoints(home):
        if start is not None and distributed.rank() == 0:
            print(f"{folder} continues from its own checkpoints, not from {start}")
        newest = str(checkpoint.latest(home) or "") if distributed.rank() == 0 else ""
        newest = distributed.broadcast_from_rank0(newest, model.device)
        if not newest:
            raise BadInput("no checkpoint is complete; choose another run.out", home)
        training.restore(Path(newest))
    elif start is not None:
        training.restore(start)
        training.import_checkpoint(start)
    else:
        training.journal.truncate("mining.jsonl", lambda entry: False)  # no checkpoint was written
    with torch.inference_mode(False):
        return training.run()
