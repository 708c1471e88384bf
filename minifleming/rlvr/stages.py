"""The two stages of reinforcement learning (arXiv:2509.15279 §3.3), step by step, resumable at any checkpoint.

    stage 1   moderate : easy = 1 : 1 until reward sparsity says that progress has plateaued
    stage 2   rounds of: mine the whole pool; then steps with Right : Wrong = 1 : 2 and more samples per prompt

What is to be done next is a function of ``State`` alone: plain numbers and ids, saved with every checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from minifleming.lm import optimizer as optim
from minifleming.lm.model import LanguageModel
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_weights, save_model
from minifleming.rlvr import audit
from minifleming.rlvr.mining import CLASSES, Deck, mine, parts, plateau, tier_pools
from minifleming.rlvr.rollout import roll_out
from minifleming.rlvr.update import describe, update
from minifleming.rods.item import Item
from minifleming.run import parallel
from minifleming.run.checkpoint import MANIFEST, checkpoints, latest, prune, read_json, verify_folder, write_folder
from minifleming.run.errors import BadInput, Hold, Terminated
from minifleming.run.fields import Config
from minifleming.run.progress import Journal, bar

MINING_STEP = 1_000_000_000  # steps from here on key the random numbers of mining rounds


@dataclass
class State:
    step: int = 0  # optimizer steps taken, over both stages
    stage: str = "rl_stage1"  # rl_stage1, rl_stage2, done
    stage1_end: int = -1
    why: str = ""  # stage 1 ended
    round: int = 0  # mining rounds done
    sparsity: list[float] = field(default_factory=list)
    pools: dict[str, list[str]] = field(default_factory=dict)
    streaks: dict[str, int] = field(default_factory=dict)
    dealt: dict[str, int] = field(default_factory=dict)  # cards dealt by each deck of the present pools


class Training:
    """Model, optimizer and state of a run, and the two moves: ``train_step`` and ``mine_pool``."""

    def __init__(self, cfg: Config, model: LanguageModel, tokenizer: Tokenizer, items: list[Item], folder: Path):
        self.cfg, self.model, self.tokenizer, self.folder = cfg, model, tokenizer, folder
        self.items = {item.id: item for item in items}
        self.journal = Journal(folder)
        self.optimizer = optim.adamw(model, cfg.rl.lr, tuple(cfg.rl.betas), cfg.rl.weight_decay)
        self.state = State(pools=tier_pools(items, cfg.stage1.mix))
        if not self.state.pools and cfg.stage1.max_steps > 0:
            raise BadInput(f"stage1.mix: no training item has a tier of {', '.join(cfg.stage1.mix)}")

    def run(self) -> State:
        """Go on from the present state to the end of stage 2; when interrupted, save between two steps and leave."""
        cfg, state = self.cfg, self.state
        if state.step == 0:
            self.save()
        total = cfg.stage1.max_steps + cfg.stage2.rounds * cfg.stage2.steps_per_round
        with Hold() as hold, bar(total=total, desc="RL", initial=state.step) as progress:
            while state.stage != "done":
                self.advance(progress)
                if parallel.all_sum([hold.came is not None], self.model.device)[0]:  # all ranks leave at one step
                    self.save()
                    raise hold.came or Terminated()
        return state

    def advance(self, progress) -> None:
        """One unit of work: a stage switch, a mining round, or a training step."""
        cfg, state = self.cfg, self.state
        if state.stage == "rl_stage1":
            why = plateau(state.sparsity, state.step, min_steps=cfg.stage1.min_steps, max_steps=cfg.stage1.max_steps,
                          threshold=cfg.stage1.sparsity, window=cfg.stage1.window)
            if why is None:
                return self.train_step(progress)
            state.stage, state.stage1_end, state.why = "rl_stage2", state.step, why
            progress.total = state.step + cfg.stage2.rounds * cfg.stage2.steps_per_round
            self.save()
            return None
        into = state.step - state.stage1_end
        if into == cfg.stage2.rounds * cfg.stage2.steps_per_round:
            state.stage = "done"
            return self.save()
        if into == state.round * cfg.stage2.steps_per_round:
            self.mine_pool()
        return self.train_step(progress)

    def train_step(self, progress) -> None:
        cfg, state = self.cfg, self.state
        stage = cfg.stage1 if state.stage == "rl_stage1" else cfg.stage2
        drawn = self.draw()
        with self.journal.timed("rollout", step=state.step + 1):
            groups = roll_out(self.model, self.tokenizer, drawn, cfg.rl, samples=stage.samples_per_prompt,
                              seed=cfg.run.seed, step=state.step)
        with self.journal.timed("update", step=state.step + 1):
            result = update(self.model, self.optimizer, groups, cfg.rl, samples=stage.samples_per_prompt,
                            prompts=len(drawn))
        state.step += 1
        figures = describe(groups, self.model.device)
        state.sparsity = [*state.sparsity, figures["sparsity"]][-cfg.stage1.window :]
        audit.write_step(self.folder / "rollouts", state.step, groups, seed=cfg.run.seed,
                         samples=stage.samples_per_prompt, prompts=len(drawn), device=self.model.device)
        self.journal.metric(stage=state.stage, step=state.step, round=state.round, **figures, **result)
        progress.set_postfix_str(f"{state.stage} reward {figures['reward']:.2f} acc {figures['accuracy']:.2f} "
                                 f"sparsity {figures['sparsity']:.2f}", refresh=False)
        progress.update()
        if state.step % cfg.run.checkpoint_every == 0:
            self.save()

    def draw(self) -> list[tuple[Item, str]]:
        """The prompts of this step with the class that each was drawn from."""
        cfg, state = self.cfg, self.state
        pools = {name: state.pools[name] for name in sorted(state.pools) if state.pools[name] and name != "quarantine"}
        if state.stage == "rl_stage1" or "pool" in pools:
            weights, since = {name: 1 for name in pools}, state.step
        else:
            weights = {"right": cfg.stage2.right, "wrong": cfg.stage2.wrong}
            since = (state.step - state.stage1_end) % cfg.stage2.steps_per_round
        counts = parts(cfg.rl.prompts_per_step, weights, {name: len(ids) for name, ids in pools.items()}, since)
        drawn = []
        for name, count in counts.items():
            number = sorted(pools).index(name)
            deck = Deck(pools[name], [cfg.run.seed, 0xDEC, state.round, number], state.dealt.get(name, 0))
            drawn += [(self.items[card], name) for card in deck.deal(count)]
            state.dealt[name] = deck.dealt
        return drawn

    def mine_pool(self) -> None:
        """Start a round of stage 2: sort the whole pool by pass rate, or, for the control, take it as it is."""
        cfg, state = self.cfg, self.state
        state.round, state.dealt = state.round + 1, {}
        if cfg.stage2.source == "uniform":
            state.pools = {"pool": list(self.items)}
            return
        n = cfg.mining.samples
        with bar(total=len(self.items) * n, desc=f"mining {state.round}") as progress, \
                self.journal.timed("mining", round=state.round):
            groups = roll_out(self.model, self.tokenizer, [(item, "mining") for item in self.items.values()],
                              cfg.rl, samples=n, seed=cfg.run.seed, step=MINING_STEP + state.round,
                              done=lambda ended: progress.update(ended * parallel.world_size()))
        passes = [[group[0].item.id, sum(r.right for r in group)] for group in groups]
        before = {name: kind for kind in CLASSES for name in state.pools.get(kind, [])}
        passes = dict(parallel.all_gather(passes, self.model.device))
        state.pools, state.streaks = mine(passes, state.streaks, cfg.mining)
        for kind in CLASSES:
            for name in state.pools[kind]:
                self.journal.event("mining.jsonl", round=state.round, step=state.step, item=name, passes=passes[name],
                                   samples=n, now=kind, before=before.get(name, ""))
        self.journal.metric(stage="mining", step=state.step, round=state.round,
                            **{kind: len(state.pools[kind]) for kind in CLASSES})

    def save(self) -> None:
        """Write a checkpoint: the model as a folder that transformers loads, optimizer state, and State."""
        if parallel.rank() == 0:
            home = self.folder / "checkpoints"
            with self.journal.timed("save", step=self.state.step):
                write_folder(home / f"step_{self.state.step:06d}", self._fill)
                prune(home, self.cfg.run.keep, {0, self.state.stage1_end})
        parallel.barrier()

    def _fill(self, folder: Path) -> None:
        save_model(self.model, self.tokenizer, folder / "model")
        optim.save_state(self.optimizer, self.model, folder / "optimizer.safetensors")
        (folder / "state.json").write_text(json.dumps(dataclasses.asdict(self.state), sort_keys=True) + "\n")

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint, and drop the records of later steps."""
        load_weights(self.model, path / "model")
        optim.load_state(self.optimizer, self.model, path / "optimizer.safetensors")
        raw = read_json(path / "state.json")
        kinds = {field.name: type(getattr(State(), field.name)) for field in dataclasses.fields(State)}
        if not isinstance(raw, dict) or {name: type(value) for name, value in raw.items()} != kinds:
            raise BadInput("not the state of a run", path / "state.json")
        self.state = State(**raw)
        unknown = {name for ids in self.state.pools.values() for name in ids} - self.items.keys()
        if unknown:
            raise BadInput(f"made from other items: '{min(unknown)}' is not among this run's", path / "state.json")
        step, done = self.state.step, self.state.round
        self.journal.truncate("metrics.jsonl", lambda r: r["stage"] == "cold_start" or (
            r["step"] < step or r["step"] == step and (r["stage"] != "mining" or r["round"] <= done)))
        self.journal.truncate("mining.jsonl", lambda r: r["round"] <= done)
        if parallel.rank() == 0:
            for log in (self.folder / "rollouts").glob("step_*.jsonl.gz"):
                if int(log.name[5:11]) > step:
                    log.unlink()

    def adopt(self, start: Path) -> None:
        """A run that goes on from another one's checkpoint keeps it, and the end of stage 1, as its own."""
        kept = {self.state.step: start}
        if 0 <= self.state.stage1_end < self.state.step:
            kept[self.state.stage1_end] = start.parent / f"step_{self.state.stage1_end:06d}"
        for source in kept.values():
            reason = verify_folder(source)
            if reason:
                raise BadInput(f"{reason}: to go on, this and the end of stage 1 beside it must be whole", source)
        if parallel.rank() == 0:
            for step, source in kept.items():
                write_folder(self.folder / "checkpoints" / f"step_{step:06d}", partial(_copy, source))
        parallel.barrier()


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
    with torch.inference_mode(False):
        return training.run()
