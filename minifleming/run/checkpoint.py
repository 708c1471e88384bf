"""Folders that appear whole or not at all, and stages that know when they are done.

A folder is written beside its final name, every file is synced, a manifest with the sha256 and size of each file
goes last, and one rename makes it visible; a folder that it replaces waits under another name until then. "Latest"
is computed from the names, never stored. Nothing is pickled: tensors are safetensors, the rest is JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from minifleming.run.errors import BadInput

MANIFEST, SCHEMA = "files.json", 1


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Create ``path`` atomically: ``fill(temporary folder)``, sync, manifest, rename."""
    temporary, old = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old")
    recover(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    fill(temporary)
    files = sorted(f for f in temporary.rglob("*") if f.is_file())
    entries = {}
    for file in files:
        os.chmod(file, 0o644)
        _sync(file)
        entries[file.relative_to(temporary).as_posix()] = {"sha256": sha256(file), "bytes": file.stat().st_size}
    (temporary / MANIFEST).write_text(_text({"schema": SCHEMA, "files": entries}))
    _sync(temporary / MANIFEST)
    for inner in (*(f for f in temporary.rglob("*") if f.is_dir()), temporary):
        _sync(inner)
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    temporary.rename(path)
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(path: Path) -> None:
    """A process killed between the two renames of ``write_folder`` leaves the old folder beside its place."""
    old = path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():
        with suppress(FileNotFoundError):  # another rank was faster
            old.rename(path)


def verify_folder(path: Path) -> str | None:
    """None if every file is there with its size and sha256, otherwise the reason it is not."""
    try:
        text = (path / MANIFEST).read_text()
        manifest = json.loads(text)
        if text != _text(manifest):
            return f"{MANIFEST} is damaged"
        if manifest["schema"] != SCHEMA:
            return f"{MANIFEST} has schema {manifest['schema']}, not {SCHEMA}"
        for name, entry in manifest["files"].items():
            if not (path / name).is_file():
                return f"{name} is missing"
            if (path / name).stat().st_size != entry["bytes"] or sha256(path / name) != entry["sha256"]:
                return f"{name} is damaged"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is missing or damaged"
    return None


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step."""
    writable(path)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8")
    _sync(temporary)
    temporary.replace(path)


def writable(path: Path) -> None:
    """Make the folder of a file that is to be written; refuse a place where no file can stand."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise BadInput("is a folder", path)
    except OSError as error:
        raise BadInput(error.strerror or "cannot be written", path) from None


def checkpoints(folder: Path) -> list[Path]:
    """The step folders below ``folder``, oldest first."""
    for old in folder.glob(".step_*.old"):
        recover(folder / old.name[1:-4])
    found = [p for p in folder.glob("step_*") if re.fullmatch(r"step_\d{6}", p.name) and p.is_dir()]
    return sorted(found)


def latest(folder: Path, warn: Callable[[str], None] = print) -> Path | None:
    """The newest checkpoint that verifies; damaged ones are passed over with one warning each."""
    for path in reversed(checkpoints(folder)):
        reason = verify_folder(path)
        if reason is None:
            return path
        warn(f"minifleming: warning: {path}: {reason}; trying the one before")
    return None


def prune(folder: Path, keep: int, always: set[int]) -> None:
    """Delete all but the last ``keep`` checkpoints and the steps in ``always``, once the newest one verifies."""
    found = checkpoints(folder)
    if found and verify_folder(found[-1]) is None:
        for path in found[:-keep]:
            if int(path.name[5:]) not in always:
                shutil.rmtree(path)


def read_json(path: Path):
    """A JSON file, or one clear line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", path) from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not valid JSON: {error}", path) from None


def sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _text(manifest: dict) -> str:
    return json.dumps(manifest, indent=1, sort_keys=True) + "\n"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
