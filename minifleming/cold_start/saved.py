"""Checkpoints of a supervised run, and its best weights so far.

    HOME/step_000050/    model.safetensors  optimizer.safetensors  state.json   the newest two
    HOME/best/           model.safetensors                                      of the best measurement
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from minifleming.lm import optimizer as optim
from minifleming.lm import tensors
from minifleming.lm.fsdp import full_tensor
from minifleming.lm.model import LanguageModel
from minifleming.lm.weights import load_weights
from minifleming.run import distributed
from minifleming.run.checkpoint import latest, prune, read_json, write_folder
from minifleming.run.errors import BadInput
from minifleming.run.progress import Journal

KEEP = 2


class Saved:
    def __init__(self, model: LanguageModel, optimizer: torch.optim.AdamW, home: Path | None, made_from: str):
        """``made_from`` identifies the run; without ``home`` the best weights stay in memory, and nothing is saved."""
        self.model, self.optimizer, self.home, self.made_from = model, optimizer, home, made_from
        self.score, self.best = [-1.0, 0.0], 0  # (accuracy, -loss) of the best measurement, and its step
        self.kept: dict[str, torch.Tensor] = {}

    def restore(self, journal: Journal) -> int:
        """Take up the newest whole checkpoint, and drop the records of later steps. -> steps done"""
        there, done = str(latest(self.home) or "") if self.home and distributed.rank() == 0 else "", 0
        if there := distributed.from_first(there, self.model.device):
            newest = Path(there)
            state = read_json(newest / "state.json")
            if state["made_from"] != self.made_from:
                raise BadInput("begun with other traces, another model, other settings or on another number of ranks; "
                               "remove it to begin anew", self.home)
            load_weights(self.model, newest)
            optim.load_optimizer(self.optimizer, self.model, newest)
            done, self.score, self.best = state["step"], state["score"], state["best"]
        journal.truncate("metrics.jsonl", lambda record: 0 < record["step"] <= done)
        distributed.barrier()
        return done

    def save(self, step: int, journal: Journal) -> None:
        state = {"step": step, "score": self.score, "best": self.best, "made_from": self.made_from}

        def fill(folder: Path | None) -> None:
            self._weights(folder)
            optim.save_optimizer(self.optimizer, self.model, folder)
            if folder:
                (folder / "state.json").write_text(json.dumps(state) + "\n")

        journal.sync()
        self._write(f"step_{step:06d}", fill)
        if distributed.rank() == 0:
            prune(self.home, KEEP, set())

    def measured(self, step: int, accuracy: float, loss: float) -> None:
        if [accuracy, -loss] <= self.score:
            return
        self.score, self.best = [accuracy, -loss], step
        if self.home:
            self._write("best", self._weights)
        else:
            self.kept = {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def take_best(self, last: int) -> None:
        """Give the model the best weights back, if there are any and they are not its own."""
        if self.best in (0, last):
            return
        if self.home:
            load_weights(self.model, self.home / "best")
        with torch.no_grad():
            for name, parameter in self.model.named_parameters() if self.kept else ():
                parameter.copy_(self.kept[name])

    def _weights(self, folder: Path | None) -> None:
        named = dict(self.model.named_parameters())
        tensors.write_tensors(folder, {name: p.numel() * p.element_size() for name, p in named.items()},
                      lambda name: full_tensor(named[name].detach()))

    def _write(self, name: str, fill) -> None:
        """All ranks gather, the first one writes."""
        if distributed.rank() == 0:
            write_folder(self.home / name, fill)
        else:
            fill(None)
        distributed.barrier()
