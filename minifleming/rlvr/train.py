"""The two stages of reinforcement learning (arXiv:2509.15279 §3.3), step by step, resumable at any checkpoint.

What is to be done next, and on which items, is decided in curriculum.py; here it is done: sample, update, mine, save.
Every record is a link of one chain of hashes (record.py), in this order: the samples of a step, its lines of the
ledger, its line of metrics.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from minifleming.lm import optimizer as optim
from minifleming.lm.fsdp import gathered_copy
from minifleming.lm.load import load_for_training
from minifleming.lm.model import LanguageModel
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import weights_checksum
from minifleming.rlvr import alarms, curriculum, saves
from minifleming.rlvr.curriculum import State
from minifleming.rlvr.log import brief, figures, record, seal, step_path, write_lines, write_step
from minifleming.rlvr.mining import CLASSES
from minifleming.rlvr.rollout import Rollout, roll_out
from minifleming.rlvr.update import update
from minifleming.rods.item import Item
from minifleming.run import distributed
from minifleming.run.checkpoint import checkpoints, latest
from minifleming.run.errors import BadInput, DeferSignals, RunFailed, Terminated
from minifleming.run.fields import Config
from minifleming.run.journal import Journal, bar

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
        self.hold = DeferSignals()
        if not self.state.pools and cfg.stage1.max_steps > 0:
            raise BadInput(f"stage1.mix: no training item has a tier of {', '.join(cfg.stage1.mix)}")

    def run(self) -> State:
        """Go on from the present state to the end of stage 2; when interrupted, save between two steps and leave."""
        cfg, state = self.cfg, self.state
        begun = distributed.rank() == 0 and bool(self.journal.read("mining.jsonl"))
        if not distributed.all_sum([begun], self.model.device)[0]:
            self.begin()
        total = cfg.stage1.max_steps + cfg.stage2.rounds * cfg.stage2.steps_per_round
        with self.hold, bar(total=total, desc="RL", initial=state.step) as progress:
            while state.stage != "done":
                self.advance(progress)
                if distributed.any_rank(self.hold.received is not None, self.model.device):
                    self.save()
                    self.leave_if_told()
        return state

    def begin(self) -> None:
        """The first links of this run's chain: what it is made from, and, at step 0, who is in the pools of stage 1."""
        self.write("mining.jsonl", [saves.facts(self.cfg, self.items, self.model, self.state.step, self.state.chain)])
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
        with self.journal.timed("rollout", step=state.step + 1), gathered_copy(self.model) as model:
            groups = roll_out(model, self.tokenizer, drawn, cfg.rl, samples=samples, seed=cfg.run.seed,
                              step=state.step)
        briefs = [[brief(r) for r in group] for group in self.records(groups, state.step + 1)]
        briefs = [b for group in distributed.all_gather(briefs, self.model.device) for b in group]
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
        records = [r for g in distributed.all_gather(self.records(groups, state.step), self.model.device) for r in g]
        if distributed.rank() == 0:
            state.chain = write_step(step_path(self.folder, state.step), records, state.chain)
        passes = [{"event": "trained", "round": state.round, "step": state.step, "item": item.id, "now": why,
                   "passes": sum(b["label"] == b["answer"] for b in briefs[i * samples : (i + 1) * samples]),
                   "samples": samples} for i, (item, why) in enumerate(drawn)]
        self.write("mining.jsonl", passes)
        self.write("metrics.jsonl", [{"stage": state.stage, "step": state.step, "round": state.round, **found,
                                      **result, "weights": weights_checksum(self.model)}])
        self.warn(alarms.warnings(found, [item.answer for item, _ in drawn], state.history, cfg.alarms))
        progress.set_postfix_str(f"{state.stage} reward {found['reward']:.2f} acc {found['accuracy']:.2f} "
                                 f"sparsity {found['sparsity']:.2f}", refresh=False)
        progress.update()
        if state.step % cfg.run.checkpoint_every == 0:
            self.save()

    def mine_pool(self) -> None:
        """Start a round of stage 2: sort the whole pool by pass rate, or, for the control, take it as it is."""
        cfg, state = self.cfg, self.state
        if cfg.stage2.sampling == "uniform":
            curriculum.next_round(state, cfg, self.items, None)
            return
        self.save_unless_there()  # to come back to, however often this is interrupted
        with self.journal.timed("mining", round=state.round + 1), gathered_copy(self.model) as model:
            passes = self.passes(model)
        self.write("mining.jsonl", curriculum.next_round(state, cfg, self.items, passes))
        self.write("metrics.jsonl", [{"stage": "mining", "step": state.step, "round": state.round,
                                      **{kind: len(state.pools[kind]) for kind in CLASSES}}])

    def passes(self, model: LanguageModel) -> dict[str, int]:
        """Right samples of every item, chunk after chunk. A killed run's chunks are found again, by what the chain was
        when the round began; an interrupted one leaves between two of them."""
        cfg, n, number = self.cfg, self.cfg.mining.samples, self.state.round + 1
        passes = self.journal.read("mining.part.jsonl") if distributed.rank() == 0 else []
        passes = distributed.all_gather([[p for p in passes if p["chain"] == self.state.chain]] if distributed.rank() == 0
                                     else [], self.model.device)[0]
        found = {name: count for part in passes for name, count in part["passes"].items()}
        items = [item for item in self.items.values() if item.id not in found]
        with bar(total=len(self.items) * n, initial=len(found) * n, desc=f"mining {number}") as progress:
            for at in range(0, len(items), cfg.mining.chunk):
                self.leave_if_told()
                drawn = [(item, "mining") for item in items[at : at + cfg.mining.chunk]]
                groups = roll_out(model, self.tokenizer, drawn, cfg.rl, samples=n, seed=cfg.run.seed,
                                  step=MINING_STEP + number,
                                  done=lambda ended: progress.update(ended * distributed.world_size()))
                passes = [[group[0].item.id, sum(r.right for r in group)] for group in groups]
                passes = dict(distributed.all_gather(passes, self.model.device))
                self.journal.append("mining.part.jsonl", json.dumps({"chain": self.state.chain, "passes": passes}))
                found |= passes
        return found

    def leave_if_told(self) -> None:
        """After SIGINT or SIGTERM to any rank, all leave here."""
        if distributed.any_rank(self.hold.received is not None, self.model.device):
            raise self.hold.received or Terminated()

    def save(self) -> None:
        saves.save(self)

    def save_unless_there(self) -> None:
        there = saves.checkpoint_of(self.folder, self.state.step).exists()
        if not distributed.broadcast_from_rank0(there, self.model.device):
            self.save()

    def records(self, groups: list[list[Rollout]], step: int) -> list[list[dict]]:
        """This rank's records of step ``step`` (from 1)."""
        return [[record(r, self.cfg.run.seed, step) for r in group] for group in groups]

    def write(self, file: str, entries: list[dict]) -> None:
        """Links of the chain; only rank 0 has it."""
        if distributed.rank() == 0:
            for entry in entries:
                line, self.state.chain = seal(entry, self.state.chain)
                self.journal.append(file, line)

    def refuse(self, groups: list[list[Rollout]], reason: str) -> None:
        """Leave the samples behind for whoever wants to look, outside the log, and stop the run on every rank."""
        step = self.state.step + 1
        records = [r for g in distributed.all_gather(self.records(groups, step), self.model.device) for r in g]
        path = self.folder / "refused" / step_path(self.folder, step).name
        if distributed.rank() == 0:
            write_lines(path, [json.dumps(r, ensure_ascii=False) for r in records])  # NaN and all
        raise RunFailed(f"step {step}: {reason}; its samples are in {path}")

    def warn(self, found: dict[str, str]) -> None:
        """Say what has gone wrong, once a stage and round, and note it in alarms.jsonl."""
        if distributed.rank() == 0:
            for name, words in found.items():
                if (self.state.round, name) not in self.warned:
                    tqdm.write(f"minifleming: warning: step {self.state.step}: {words}", file=sys.stderr)
                    self.journal.append("alarms.jsonl", json.dumps(
                        {"step": self.state.step, "round": self.state.round, "alarm": name, "words": words}))
                self.warned.add((self.state.round, name))

    def start_model(self) -> LanguageModel | None:
        """The frozen model of the first checkpoint, which the KL term is taken to; loaded if there is such a term."""
        if self.cfg.rl.kl_coef > 0 and self.reference is None:
            first = checkpoints(self.origin / "checkpoints")[0] / "model"
            self.reference = load_for_training(first, self.cfg, self.model.device)
            self.reference.requires_grad_(False)
        return self.reference


def train(cfg: Config, model: LanguageModel, tokenizer: Tokenizer, items: list[Item], folder: Path,
          start: Path | None = None) -> State:
    """Both stages: from the newest checkpoint of the run folder; where it has none, from ``start`` (another run's
    checkpoint), or from the beginning."""
    training = Training(cfg, model, tokenizer, items, folder)
    home = folder / "checkpoints"
    if checkpoints(home):
        if start is not None and distributed.rank() == 0:
            print(f"{folder} goes on from its own checkpoints, not from {start}")
        newest = distributed.broadcast_from_rank0(str(latest(home) or "") if distributed.rank() == 0 else "", model.device)
        if not newest:
            raise BadInput("no checkpoint is whole; choose another run.out, or delete this folder to begin again", home)
        saves.restore(training, Path(newest))
    elif start is not None:
        saves.restore(training, start)
        saves.adopt(training, start)
    else:
        training.journal.truncate("mining.jsonl", lambda entry: False)  # it ended before a checkpoint
    with torch.inference_mode(False):
        return training.run()
