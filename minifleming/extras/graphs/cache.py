"""Graphs on disk as arrays, by the hash of what they were read from, so that a large one is read once.

    ~/.cache/minifleming/graphs/3f9c.../    names.json, types.json, relations.json, table.npy, ..., sha256.txt

``MINIFLEMING_CACHE`` names another folder; empty, nothing is kept. Arrays are mapped, not copied: a reload costs the
hashes of the source and of the entry, and the names. An entry that is damaged is made again from the source. Files of
less than ``SMALL`` bytes in all are as quick to read and not kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from minifleming.rods.graph import Adjacency, Graph
from minifleming.run.errors import BadInput

FORMAT = "3"  # of the entries, and of what the readers make of a file: count up when either changes
PARTS = ("key", "start", "other")
ARRAYS = ("table", *(f"{side}_{part}" for side in ("out", "into") for part in PARTS))
SMALL = 1_000_000
LISTS = ("names", "types", "relations")
SEAL = "sha256.txt"


def home() -> Path | None:
    """The folder of the cache, or None where it is switched off, or there is no home folder."""
    folder = os.path.expanduser(os.environ.get("MINIFLEMING_CACHE", "~/.cache/minifleming"))
    return Path(folder) / "graphs" if folder and not folder.startswith("~") else None


def cached(files: list[Path], how: str, read: Callable[[], Graph]) -> Graph:
    """The graph that ``read()`` makes of ``files``, from the cache if it is there. ``how``: what else it depends on."""
    folder = home()
    if folder is None or size_of(files) < SMALL:
        return read()
    entry = folder / digest(files, how)
    graph = load(entry)
    if graph is None:
        graph = read()
        save(graph, entry)
    return graph


def digest(files: list[Path], how: str) -> str:
    """sha256 over the format, ``how``, and the content of the files."""
    total = hashlib.sha256(f"{FORMAT}\x1f{how}".encode())
    for path in files:
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def size_of(files: list[Path]) -> int:
    """Bytes. Raises BadInput for a file that cannot be read."""
    total = 0
    for path in files:
        try:
            with open(path, "rb") as file:
                total += file.seek(0, os.SEEK_END)
        except OSError as error:
            raise BadInput(error.strerror or "cannot be read", path) from None
    return total


def save(graph: Graph, entry: Path) -> None:
    """Write the entry beside its place and move it there. A folder that cannot be written is passed over."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".new-") as temporary:
            new = Path(temporary) / "entry"
            new.mkdir()
            for name in LISTS:
                (new / f"{name}.json").write_text(json.dumps(getattr(graph, name)), encoding="utf-8")
            (new / "source.txt").write_text(graph.source, encoding="utf-8", newline="")
            for name, array in arrays_of(graph).items():
                np.save(new / f"{name}.npy", array, allow_pickle=False)
            (new / SEAL).write_text(digest(sorted(new.iterdir()), ""))
            if entry.exists():
                entry.rename(Path(temporary) / "old")
            new.rename(entry)
    except OSError:
        return


def load(entry: Path) -> Graph | None:
    """The graph of an entry, its arrays mapped; None if there is none or it is damaged."""
    try:
        files = [path for path in sorted(entry.iterdir()) if path.name != SEAL]
        if (entry / SEAL).read_text() != digest(files, ""):
            return None
        lists = [json.loads((entry / f"{name}.json").read_bytes()) for name in LISTS]
        arrays = {name: mapped(entry / f"{name}.npy") for name in ARRAYS}
        path = entry / "frequencies.npy"
        frequency = mapped(path) if path.exists() else None
        source = (entry / "source.txt").read_bytes().decode("utf-8")
    except (OSError, ValueError):
        return None
    graph = Graph.__new__(Graph)
    graph.names, graph.types, graph.relations = lists
    graph.source, graph.table, graph.frequencies = source, arrays["table"], frequency
    for side in ("out", "into"):
        setattr(graph, side, Adjacency(*(arrays[f"{side}_{part}"] for part in PARTS), len(graph.relations)))
    return graph


def mapped(path: Path) -> np.ndarray:
    """The array of a file, read when it is used. (A plain array: numpy's own class of mapped ones is slow to slice.)"""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def arrays_of(graph: Graph) -> dict[str, np.ndarray]:
    parts = {f"{side}_{part}": getattr(getattr(graph, side), part)
             for side in ("out", "into") for part in PARTS}
    known = {} if graph.frequencies is None else {"frequencies": graph.frequencies}
    return {"table": graph.table, **parts, **known}
