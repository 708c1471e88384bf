"""Append-only files of lines: what a killed run has written whole is kept, a torn last line is cut off."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from minifleming.run.checkpoint import read_json, writable, write_text
from minifleming.run.errors import BadInput


def whole_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line that ends; cuts off what follows the last end of a line."""
    whole = path.read_bytes()
    end = whole.rfind(b"\n") + 1
    if end < len(whole):
        with open(path, "r+b") as file:
            file.truncate(end)
    for number, raw in enumerate(whole[:end].split(b"\n")[:-1], 1):  # str.splitlines would also split at U+2028
        yield number, raw.decode("utf-8", "replace")


def alone(file: IO) -> None:
    """Hold the file until it is closed. Raises BadInput if another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadInput("another run is writing it", file.name) from None


def begin(out: Path, made_with: dict) -> bool:
    """Is there an earlier run to go on with? Raises BadInput if another run made what stands there.

    ``made_with``: what identifies a run. It stands beside ``out``, as ``out.settings.json``.
    """
    writable(out)
    beside = out.with_name(out.name + ".settings.json")
    if not out.exists() and beside.exists() and read_json(beside) != made_with:
        raise BadInput("exists already, with other settings; nothing is overwritten", beside)
    if not out.exists() or not out.stat().st_size:
        write_text(beside, json.dumps(made_with, indent=1) + "\n")
        return False
    if not beside.exists():
        raise BadInput("exists already, and not from a run of this command; nothing is overwritten", out)
    earlier = read_json(beside)
    if earlier != made_with:
        keys = [k for k in made_with if not isinstance(earlier, dict) or earlier.get(k) != made_with[k]]
        raise BadInput(f"was made with other settings ({', '.join(keys)}); nothing is overwritten: remove it and "
                       f"{beside.name} to begin anew", out)
    return True
