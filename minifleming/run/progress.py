"""Progress bars, metrics.jsonl and timings.jsonl."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from minifleming.run.parallel import rank


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
        self._append("metrics.jsonl", record)

    def event(self, file: str, **record) -> None:
        self._append(file, record)

    @contextmanager
    def timed(self, what: str, **keys):
        """Record the seconds spent in the block under ``what``."""
        start = time.perf_counter()
        yield
        self._append("timings.jsonl", {"what": what, **keys, "seconds": time.perf_counter() - start})

    def truncate(self, file: str, keep) -> None:
        """Keep the records for which ``keep(record)`` holds: what a resumed run will not write again."""
        path = self.folder / f"{self.prefix}{file}"
        if rank() != 0 or not path.exists():
            return
        before = path.read_text(encoding="utf-8")
        records = [r for line in before.splitlines() if (r := _record(line)) is not None]
        text = "".join(json.dumps(r, sort_keys=True) + "\n" for r in records if keep(r))
        if text != before:
            path.with_suffix(".tmp").write_text(text, encoding="utf-8")
            path.with_suffix(".tmp").replace(path)

    def _append(self, file: str, record: dict) -> None:
        if rank() != 0:
            return
        with open(self.folder / f"{self.prefix}{file}", "a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, sort_keys=True) + "\n")


def _record(line: str) -> dict | None:
    """A journal's line; None for one that a killed run has left half written."""
    try:
        return json.loads(line)
    except ValueError:
        return None
