"""The run folder: its configuration, manifest and JSONL files, and the checks before a run resumes.

JSONL files are only appended to and survive a kill: complete lines are kept, a torn last line is
dropped. Wall-clock times go only to ``timings.jsonl``, so two identical runs write identical
``metrics.jsonl``.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import torch
from tqdm import tqdm

from minifleming import __version__
from minifleming.run import checkpoint, distributed
from minifleming.run import config as configuration
from minifleming.run.checkpoint import ensure_writable, read_json, verify_folder, write_text
from minifleming.run.errors import BadInput
from minifleming.run.fields import Config

FORMAT = 2  # of the files in a run folder; a folder of another format is refused


class RunFolder:
    """A run folder, the device of the run, and its journal."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        self.path = Path(cfg.run.out)
        self.device = distributed.pick_device(cfg.run.device)
        self.journal = Journal(self.path)
        if cfg.run.threads:
            torch.set_num_threads(cfg.run.threads)

    def open(self, base: Path) -> None:
        """Create the folder, or check that this run may resume it. Raises BadInput.

        ``base``: folder of the base model, whose hash goes into the manifest.
        """
        config = self.path / "config.toml"
        manifest = self.path / "manifest.json"
        trained = self.holds("cold_start", "checkpoints", "eval")
        begun = trained or self.holds("items")
        distributed.barrier()  # every rank looks before rank 0 writes
        if begun and config.exists():
            self._check_manifest(manifest)
            check_unchanged(config, self.cfg, "choose another run.out", only_items=not trained)
            if trained:
                return
        if distributed.rank() == 0:
            write_text(config, configuration.to_toml(self.cfg))
            write_text(manifest, json.dumps(self._facts(base), indent=1) + "\n")
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
            "base_sha256": checkpoint.sha256(weights) if weights.exists() else "",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _check_manifest(self, path: Path) -> None:
        """Take the thread count of the start; refuse another format, world size or device.

        The last three change the order of floating-point sums, so the run could not be replayed.
        """
        manifest = read_json(path)
        if manifest.get("format") != FORMAT:
            raise BadInput(f"the run folder has format {manifest.get('format', 1)}, this version "
                           f"uses format {FORMAT}; choose another run.out", path)
        start = (manifest["world_size"], manifest["device"].split(":")[0])
        here = (distributed.world_size(), self.device.type)
        if self.holds("checkpoints") and start != here:
            raise BadInput(f"the run was started on {start[0]} ranks ({start[1]}), this is "
                           f"{here[0]} ({here[1]}): it could not be replayed", path)
        if not self.cfg.run.threads and self.device.type == "cpu":
            torch.set_num_threads(manifest["threads"])


def check_unchanged(path: Path, cfg: Config, remedy: str, only_items: bool = False) -> None:
    """Raises BadInput if the run that wrote the configuration ``path`` would give other results.

    ``only_items``: compare only the fields that items depend on.
    """
    changed = configuration.differences(configuration.load(path), cfg)
    if only_items:
        changed = [name for name in changed if name.startswith("data.") or name == "run.seed"]
    if changed:
        names = ", ".join(changed)
        raise BadInput(f"the run was started with other values of {names}; {remedy}", path)


def start_checkpoint(resume: str, out: str) -> Path | None:
    """The checkpoint that ``--resume`` names; None for auto and never. Raises BadInput."""
    if resume == "never" and Path(out).exists():
        raise BadInput("the run folder exists and --resume is never", out)
    if resume in ("auto", "never"):
        return None
    path = Path(resume)
    reason = "no checkpoint; give a folder RUN/checkpoints/step_NNNNNN"
    if (path / "state.json").is_file():
        reason = verify_folder(path)
    if reason:
        raise BadInput(reason, path)
    return path


def bar(iterable: Iterable | None = None, **settings):
    """Return a tqdm progress bar that is visible on rank 0 only."""
    return tqdm(iterable, disable=distributed.rank() != 0, dynamic_ncols=True, mininterval=0.5,
                smoothing=0.1, **settings)


class Journal:
    """The JSONL files of a run folder. Rank 0 writes one flushed line per record."""

    def __init__(self, folder: Path, prefix: str = ""):
        self.folder, self.prefix = folder, prefix

    def metric(self, **record) -> None:
        """Append a record to ``metrics.jsonl``."""
        self.append("metrics.jsonl", json.dumps(record, sort_keys=True))

    def append(self, file: str, line: str) -> None:
        """Append an encoded line to ``file``."""
        if distributed.rank() != 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.path(file), "a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    @contextmanager
    def timed(self, what: str, **keys):
        """Append the seconds spent in the block to ``timings.jsonl``."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.append("timings.jsonl", json.dumps({"what": what, **keys, "seconds": seconds}))

    def sync(self) -> None:
        """Wait until every file of this journal is on disk."""
        for path in self.folder.glob(f"{self.prefix}*.jsonl"):
            checkpoint.sync(path)

    def read(self, file: str) -> list[dict]:
        """Return the records of ``file``; lines that a kill left incomplete are skipped."""
        return [record for _, record in self._lines(file)]

    def truncate(self, file: str, keep) -> None:
        """Keep the lines for which ``keep(record)`` is true: a resumed run writes the others."""
        if distributed.rank() == 0 and self.path(file).exists():
            kept = "".join(line + "\n" for line, record in self._lines(file) if keep(record))
            if kept != self.path(file).read_text(encoding="utf-8"):
                write_text(self.path(file), kept)

    def path(self, file: str) -> Path:
        return self.folder / f"{self.prefix}{file}"

    def _lines(self, file: str) -> Iterator[tuple[str, dict]]:
        """Yield each line that is complete JSON, and its record."""
        text = self.path(file).read_text(encoding="utf-8") if self.path(file).exists() else ""
        for line in text.split("\n"):
            with suppress(ValueError):
                record = json.loads(line)
                yield line, record


def complete_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of each complete line; cut off an incomplete last line in the file."""
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        with open(path, "r+b") as file:
            file.truncate(end)
    lines = data[:end].split(b"\n")[:-1]  # str.splitlines also splits at U+2028
    for number, raw in enumerate(lines, 1):
        yield number, raw.decode("utf-8", "replace")


def can_resume(out: Path, run_fingerprint: dict) -> bool:
    """Whether ``out`` holds records of an earlier, identical run that this run can continue.

    The fingerprint is stored next to ``out`` as ``out.settings.json``. Raises BadInput if a run
    with another fingerprint, or another program, wrote ``out``. An empty ``out`` is overwritten.
    """
    ensure_writable(out)
    settings = out.with_name(out.name + ".settings.json")
    has_records = out.exists() and out.stat().st_size > 0
    earlier = read_json(settings) if settings.exists() else None
    if has_records and earlier is None:
        reason = "exists already, and not from a run of this command; nothing is overwritten"
        raise BadInput(reason, out)
    if earlier not in (None, run_fingerprint) and (has_records or not out.exists()):
        changed = [key for key in run_fingerprint if earlier.get(key) != run_fingerprint[key]]
        raise BadInput(f"was made with other settings ({', '.join(changed)}); nothing is "
                       f"overwritten: remove it and {settings.name} to start again", out)
    if not has_records:
        write_text(settings, json.dumps(run_fingerprint, indent=1) + "\n")
    return has_records
