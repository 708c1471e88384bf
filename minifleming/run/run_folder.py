"""The run folder: its configuration and manifest, and the checks before a run resumes it."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

from minifleming import __version__
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.checkpoint import read_json, sha256, verify_folder, write_text
from minifleming.run.errors import BadInput
from minifleming.run.fields import Config
from minifleming.run.journal import Journal

FORMAT = 2  # of the files in a run folder; a folder of another format is refused


class RunFolder:
    """A run folder, the device of the run, and its journal."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        self.path = Path(cfg.run.out)
        self.manifest = self.path / "manifest.json"
        self.device = distributed.pick_device(cfg.run.device)
        self.journal = Journal(self.path)
        if cfg.run.threads:
            torch.set_num_threads(cfg.run.threads)

    def open(self, base: Path) -> None:
        """Create the folder, or check that this run may resume it. Raises BadInput.

        ``base``: folder of the base model, whose hash goes into the manifest.
        """
        config = self.path / "config.toml"
        trained = self.holds("cold_start", "checkpoints", "eval")
        begun = trained or self.holds("items")
        distributed.barrier()  # every rank looks before rank 0 writes
        if begun and config.exists():
            self._check_format()
            self._check_config(config, trained)
            self._check_machine()
        if trained and config.exists():
            return
        if distributed.rank() == 0:
            write_text(config, configuration.to_toml(self.cfg))
            write_text(self.manifest, json.dumps(self._facts(base), indent=1) + "\n")
        distributed.barrier()

    def holds(self, *names: str) -> bool:
        """Whether at least one of these files or folders exists."""
        return any((self.path / name).exists() for name in names)

    def _facts(self, base: Path) -> dict:
        weights = base / "model.safetensors"
        return {
            "format": FORMAT,
            "minifleming": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
            # largest relative difference of the gradient norm in a replay
            "replay_tolerance": 0.0 if self.device.type == "cpu" else 1e-4,
            "threads": torch.get_num_threads(),
            "device": str(self.device),
            "world_size": distributed.world_size(),
            "base_sha256": sha256(weights) if weights.exists() else "",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _read_manifest(self) -> dict:
        """The manifest, or an empty one if it is missing or damaged."""
        try:
            found = read_json(self.manifest)
        except BadInput:
            return {}
        return found if isinstance(found, dict) else {}

    def _check_format(self) -> None:
        manifest = self._read_manifest()
        if manifest and manifest.get("format") != FORMAT:
            raise BadInput(f"the run folder has format {manifest.get('format', 1)}, this version uses "
                           f"format {FORMAT}; choose another run.out", self.manifest)

    def _check_config(self, config: Path, trained: bool) -> None:
        changed = configuration.differences(configuration.load(config), self.cfg)
        if not trained:  # the folder holds only items
            changed = [name for name in changed if name.startswith("data.") or name == "run.seed"]
        if changed:
            raise BadInput(f"the run was started with other values of {', '.join(changed)}; "
                           "choose another run.out", config)

    def _check_machine(self) -> None:
        """Take the thread count of the start; refuse another world size or device.

        All three change the order of floating-point sums, so the run could not be replayed.
        """
        manifest = self._read_manifest()
        try:
            ranks, kind = manifest["world_size"], manifest["device"].split(":")[0]
            threads = int(manifest["threads"])
        except (KeyError, TypeError, AttributeError, ValueError):
            return
        here = (distributed.world_size(), self.device.type)
        if self.holds("checkpoints") and (ranks, kind) != here:
            raise BadInput(f"the run was started on {ranks} ranks ({kind}), this is {here[0]} "
                           f"({here[1]}): it could not be replayed", self.manifest)
        if not self.cfg.run.threads and self.device.type == "cpu" and threads > 0:
            torch.set_num_threads(threads)


def start_checkpoint(resume: str, out: str) -> Path | None:
    """The checkpoint that ``--resume`` names; None for auto and never. Raises BadInput."""
    if resume == "never" and Path(out).exists():
        raise BadInput("the run folder exists and --resume is never", out)
    if resume in ("auto", "never"):
        return None
    path = Path(resume)
    if not (path / "state.json").is_file():
        raise BadInput("no checkpoint; give a folder RUN/checkpoints/step_NNNNNN", path)
    reason = verify_folder(path)
    if reason:
        raise BadInput(reason, path)
    return path
