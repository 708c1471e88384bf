"""Progress bars, metrics.jsonl and timings.jsonl."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from minifleming.run.distributed import rank


def bar(iterable: Iterable | None = None, *, total: int | None = None, desc: str, initial: int = 0):
    """A tqdm bar on rank 0; silent elsewhere."""
    return tqdm(iterable, total=total, desc=desc, initial=initial, disable=rank() != 0,
                dynamic_ncols=True, mininterval=0.5, smoothing=0.1)


class Journal:
    """Append-only JSONL files of a run: one line a record, flushed, written by rank 0 alone.

    Wall-clock figures go to ``timings.jsonl`` and nowhere else, so that ``metrics.jsonl`` of two equal
    runs is equal byte for byte.
    """

    def __init__(self, folder: Path, prefix: str = ""):
        self.folder, self.prefix = folder, prefix

    def metric(self, **record) -> None:
        self._append("metrics.jsonl", json.dumps(record, sort_keys=True))

    def line(self, file: str, text: str) -> None:
        """A line that is made already."""
        self._append(file, text)

    @contextmanager
    def timed(self, what: str, **keys):
        """Record the seconds spent in the block under ``what``."""
        start = time.perf_counter()
        yield
        self._append("timings.jsonl", json.dumps({"what": what, **keys, "seconds": time.perf_counter() - start}))

    def sync(self) -> None:
        """Have everything on the disk."""
        for path in self.folder.glob(f"{self.prefix}*.jsonl"):
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())

    def read(self, file: str) -> list[dict]:
        """The records of a file, without one that was left half written."""
        path = self.folder / f"{self.prefix}{file}"
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        return [r for line in lines if (r := _record(line)) is not None]

    def truncate(self, file: str, keep) -> None:
        """Keep the lines for which ``keep(record)`` holds: what a resumed run will not write again."""
        path = self.folder / f"{self.prefix}{file}"
        if rank() != 0 or not path.exists():
            return
        before = path.read_text(encoding="utf-8")
        lines = [line for line in before.split("\n")[:-1] if (r := _record(line)) is not None and keep(r)]
        text = "".join(line + "\n" for line in lines)
        if text != before:
            path.with_suffix(".tmp").write_text(text, encoding="utf-8")
            path.with_suffix(".tmp").replace(path)

    def _append(self, file: str, line: str) -> None:
        if rank() != 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{self.prefix}{file}", "a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def _record(line: str) -> dict | None:
    """A journal's line; None for one that a killed run has left half written."""
    try:
        return json.loads(line)
    except ValueError:
        return None
