"""Checkpoints of a supervised run, and its best weights so far.

    FOLDER/step_000050/   model.safetensors  optimizer.safetensors  state.json    the newest two
    FOLDER/best/          model.safetensors                                       best measurement
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import torch

from minifleming.lm import optimizer as optim
from minifleming.lm.model import LanguageModel
from minifleming.lm.weights import load_weights, save_weights
from minifleming.run import distributed
from minifleming.run.checkpoint import latest, prune, read_json, write_folder_together
from minifleming.run.errors import BadInput
from minifleming.run.run_folder import Journal

NUM_KEPT = 2


class SftCheckpointer:
    """Saves and restores the model, its optimizer, and the weights of the best measurement."""

    def __init__(self, model: LanguageModel, optimizer: torch.optim.AdamW, folder: Path,
                 fingerprint: str):
        self.model = model
        self.optimizer = optimizer
        self.folder = folder
        self.fingerprint = fingerprint
        self.best_score = [-1.0, 0.0]  # accuracy, -loss
        self.best_step = 0

    def restore(self, journal: Journal) -> int:
        """Loads the newest intact checkpoint, drops later metrics, returns the steps done."""
        newest = str(latest(self.folder) or "") if distributed.rank() == 0 else ""
        newest = distributed.broadcast_from_rank0(newest, self.model.device)
        done = 0
        if newest:
            state = read_json(Path(newest, "state.json"))
            if state["run_fingerprint"] != self.fingerprint:
                raise BadInput("begun with other traces, another model, other settings or on "
                               "another number of ranks; remove it to begin anew", self.folder)
            load_weights(self.model, Path(newest))
            optim.load_optimizer(self.optimizer, self.model, Path(newest))
            self.best_score, self.best_step = state["score"], state["best"]
            done = state["step"]
        journal.truncate("metrics.jsonl", lambda record: 0 < record["step"] <= done)
        distributed.barrier()
        return done

    def save(self, step: int, journal: Journal) -> None:
        state = {"step": step, "score": self.best_score, "best": self.best_step,
                 "run_fingerprint": self.fingerprint}

        def fill(folder: Path | None) -> None:
            save_weights(self.model, folder)
            optim.save_optimizer(self.optimizer, self.model, folder)
            if folder:
                (folder / "state.json").write_text(json.dumps(state) + "\n")

        journal.sync()
        write_folder_together(self.folder / f"step_{step:06d}", fill)
        if distributed.rank() == 0:
            prune(self.folder, NUM_KEPT, set())

    def update_best(self, step: int, accuracy: float, loss: float) -> None:
        """Keeps the weights if accuracy, or else loss, improved on all earlier measurements."""
        score = [accuracy, -loss]
        if score <= self.best_score:
            return
        self.best_score = score
        self.best_step = step
        write_folder_together(self.folder / "best", partial(save_weights, self.model))

    def load_best(self, last_step: int) -> None:
        """Restores the best weights, unless there are none or they are the current ones."""
        if self.best_step not in (0, last_step):
            load_weights(self.model, self.folder / "best")
