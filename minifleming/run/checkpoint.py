"""Atomic folders and files: a checkpoint is complete and verified, or it is not there.

A folder is written under a temporary name, every file is synced, a manifest with the sha256 and
size of each file is written last, and one rename makes it visible. A folder that it replaces keeps
another name until then. Nothing is pickled: tensors are safetensors, everything else is JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from minifleming.run import distributed
from minifleming.run.errors import BadInput

MANIFEST = "files.json"


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Create ``path`` atomically: ``fill(temporary folder)``, manifest, sync, rename."""
    temporary = path.with_name(f".{path.name}.partial")
    old = path.with_name(f".{path.name}.old")
    recover(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    fill(temporary)
    entries = {}
    for file in sorted(temporary.rglob("*")):
        if file.is_file():
            os.chmod(file, 0o644)
            entries[file.relative_to(temporary).as_posix()] = _entry(file)
    (temporary / MANIFEST).write_text(_encode(entries))
    for inner in [*temporary.rglob("*"), temporary]:
        sync(inner)
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    temporary.rename(path)
    sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def write_folder_together(path: Path, fill: Callable[[Path | None], None]) -> None:
    """``write_folder`` on all ranks: each calls ``fill``, all but rank 0 with None."""
    if distributed.rank() == 0:
        write_folder(path, fill)
    else:
        fill(None)
    distributed.barrier()


def recover(path: Path) -> None:
    """Restore ``path`` after a kill between the two renames of ``write_folder``."""
    old = path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():
        with suppress(FileNotFoundError):  # another rank was faster
            old.rename(path)


def verify_folder(path: Path) -> str | None:
    """None if every file of the manifest has its size and sha256, otherwise the reason it fails."""
    try:
        text = (path / MANIFEST).read_text()
        files = json.loads(text)["files"]
        if text != _encode(files):
            return f"{MANIFEST} is damaged"
        for name, entry in files.items():
            if not (path / name).is_file():
                return f"{name} is missing"
            if _entry(path / name) != entry:
                return f"{name} is damaged"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is missing or damaged"
    return None


def checkpoints(folder: Path) -> list[Path]:
    """The folders ``step_NNNNNN`` in ``folder``, oldest first."""
    for old in folder.glob(".step_*.old"):
        recover(folder / old.name[1:-4])
    return sorted(path for path in folder.glob("step_" + 6 * "[0-9]") if path.is_dir())


def latest(folder: Path, warn: Callable[[str], None] = print) -> Path | None:
    """The newest checkpoint that verifies; damaged ones are skipped with one warning each."""
    for path in reversed(checkpoints(folder)):
        reason = verify_folder(path)
        if reason is None:
            return path
        warn(f"minifleming: warning: {path}: {reason}; trying the one before")
    return None


def prune(folder: Path, keep_last: int, keep_steps: set[int]) -> None:
    """Delete all but the last ``keep_last`` and ``keep_steps``, if the newest verifies."""
    found = checkpoints(folder)
    if not found or verify_folder(found[-1]) is not None:
        return
    for path in found[:-keep_last]:
        if int(path.name.removeprefix("step_")) not in keep_steps:
            shutil.rmtree(path)


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically."""
    ensure_writable(path)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8")
    sync(temporary)
    temporary.replace(path)


def ensure_writable(path: Path) -> None:
    """Create the parent folder. Raises BadInput if no file can be written at ``path``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise BadInput("is a folder", path)
    except OSError as error:
        raise BadInput(error.strerror or "cannot be written", path) from None


def read_json(path: Path) -> dict:
    """The object in a JSON file. Raises BadInput if it holds anything else."""
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not valid JSON: {error}", path) from None
    if not isinstance(content, dict):
        raise BadInput("not a JSON object", path)
    return content


def read_text(path: Path) -> str:
    """The content of a text file. Raises BadInput."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", path) from None
    except UnicodeDecodeError:
        raise BadInput("not UTF-8 text", path) from None


def sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _entry(file: Path) -> dict:
    return {"sha256": sha256(file), "bytes": file.stat().st_size}


def _encode(files: dict) -> str:
    return json.dumps({"schema": 1, "files": files}, indent=1, sort_keys=True) + "\n"


def sync(path: Path) -> None:
    """Wait until a file or folder is on disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
