"""Progress bars and append-only JSONL files that survive a kill: complete lines are kept, a torn last line is dropped.

Wall-clock times go only to ``timings.jsonl``, so two identical runs write identical ``metrics.jsonl``.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tqdm import tqdm

from minifleming.run.checkpoint import ensure_writable, read_json, write_text
from minifleming.run.distributed import rank
from minifleming.run.errors import BadInput


def bar(iterable: Iterable | None = None, *, total: int | None = None, desc: str, initial: int = 0):
    """Return a tqdm progress bar that is visible on rank 0 only."""
    return tqdm(iterable, total=total, desc=desc, initial=initial, disable=rank() != 0,
                dynamic_ncols=True, mininterval=0.5, smoothing=0.1)


class Journal:
    """The JSONL files of a run folder. Rank 0 writes one flushed line per record."""

    def __init__(self, folder: Path, prefix: str = ""):
        self.folder, self.prefix = folder, prefix

    def metric(self, **record) -> None:
        """Append a record to ``metrics.jsonl``."""
        self.append("metrics.jsonl", json.dumps(record, sort_keys=True))

    def append(self, file: str, line: str) -> None:
        """Append an encoded line to ``file``."""
        if rank() != 0:
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
        """Flush every file of this journal to disk (fsync)."""
        for path in self.folder.glob(f"{self.prefix}*.jsonl"):
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())

    def read(self, file: str) -> list[dict]:
        """Return the records of ``file``; lines that a kill left incomplete are skipped."""
        if not self.path(file).exists():
            return []
        found = map(_record, self.path(file).read_text(encoding="utf-8").split("\n"))
        return [record for record in found if record is not None]

    def truncate(self, file: str, keep) -> None:
        """Keep only the lines for which ``keep(record)`` is true: a resumed run writes the others again."""
        path = self.path(file)
        if rank() != 0 or not path.exists():
            return
        before = path.read_text(encoding="utf-8")
        after = ""
        for line in before.split("\n")[:-1]:
            record = _record(line)
            if record is not None and keep(record):
                after += line + "\n"
        if after != before:
            write_text(path, after)

    def path(self, file: str) -> Path:
        return self.folder / f"{self.prefix}{file}"


def _record(line: str) -> dict | None:
    """The decoded line, or None if it is not complete JSON."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def complete_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and text of each complete line; cut off an incomplete last line in the file."""
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        with open(path, "r+b") as file:
            file.truncate(end)
    for number, raw in enumerate(data[:end].split(b"\n")[:-1], 1):  # str.splitlines also splits at U+2028
        yield number, raw.decode("utf-8", "replace")


def lock_exclusive(file: IO) -> None:
    """Lock ``file`` until it is closed. Raises BadInput if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadInput("another run is writing it", file.name) from None


def can_resume(out: Path, run_fingerprint: dict) -> bool:
    """Whether ``out`` holds records of an earlier, identical run that this run can continue.

    The fingerprint is stored next to ``out`` as ``out.settings.json``. Raises BadInput if a run with
    another fingerprint, or another program, wrote ``out``.
    """
    ensure_writable(out)
    settings = out.with_name(out.name + ".settings.json")
    if not out.exists() and settings.exists() and read_json(settings) != run_fingerprint:
        raise BadInput("exists already, with other settings; nothing is overwritten", settings)
    if not out.exists() or not out.stat().st_size:
        write_text(settings, json.dumps(run_fingerprint, indent=1) + "\n")
        return False
    if not settings.exists():
        raise BadInput("exists already, and not from a run of this command; nothing is overwritten", out)
    earlier = read_json(settings)
    if earlier == run_fingerprint:
        return True
    earlier = earlier if isinstance(earlier, dict) else {}
    changed = [key for key, value in run_fingerprint.items() if earlier.get(key) != value]
    raise BadInput(f"was made with other settings ({', '.join(changed)}); nothing is overwritten: remove it "
                   f"and {settings.name} to start again", out)
