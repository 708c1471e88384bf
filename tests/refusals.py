"""Helpers for tests of bad input: run a command many times, collect every case that is not refused properly."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from minifleming.run.errors import run_cli

SECONDS, BYTES = 2.0, 2**30  # limits of one refused command


def snapshot(folder: Path) -> dict:
    """Identity, size and time of change of every file below ``folder``; None for folders."""
    found = {}
    for path in folder.rglob("*"):
        status = path.stat()
        known = (status.st_ino, status.st_size, status.st_mtime_ns) if path.is_file() else None
        found[path.relative_to(folder).as_posix()] = known
    return found


class Refusals:
    """Runs commands that must be refused: status 2, one line on stderr, no file changed, quick and small."""

    def __init__(self, folder: Path, capsys):
        self.folder, self.capsys = folder, capsys
        self.failed: list[str] = []
        self.count = 0

    def check(self, name: str, main, argv: list[str], reason: str = "") -> None:
        """Run ``main(argv)``; note under ``name`` what is wrong with its refusal."""
        self.count += 1
        before, start = snapshot(self.folder), time.monotonic()
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.capsys.readouterr()
        try:
            status = run_cli(main, argv)
        except Exception as error:
            self.failed.append(f"{name}: {type(error).__name__}: {error}")
            return
        seconds = time.monotonic() - start
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held)
        lines = self.capsys.readouterr().err.splitlines()
        problems = {
            f"status {status}": status != 2,
            f"stderr {lines}": len(lines) != 1 or not lines[0].startswith("minifleming: "),
            f"not '{reason}' in {lines}": not any(reason in line and len(line) < 2000 for line in lines),
            f"{seconds:.1f} seconds": seconds > SECONDS,
            f"{grown} bytes": grown > BYTES,
            "files changed": snapshot(self.folder) != before,
        }
        self.failed += [f"{name}: {problem}" for problem, found in problems.items() if found]

    def report(self, least: int = 1) -> None:
        """Fail with all problems; ``least`` is the number of cases expected."""
        assert self.count >= least
        assert not self.failed, "\n".join(self.failed)
