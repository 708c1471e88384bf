"""Keeps graphs on disk as arrays, by the hash of their source, so that a large one is read once.

    ~/.cache/minifleming/graphs/3f9c.../    graph.json, table.npy, out_key.npy, ..., files.json

``MINIFLEMING_CACHE`` names another folder; if it is empty, nothing is kept. Arrays are mapped, not
copied: a reload costs the hashes of the source and of the entry, and the names. A damaged entry is
replaced. Sources of less than ``SMALL`` bytes are as quick to read and not kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from minifleming.rods.graph import Adjacency, Graph
from minifleming.run.checkpoint import sha256, verify_folder, write_folder
from minifleming.run.errors import BadInput

FORMAT = "4"  # of the entries, and of the readers' results: count up when either changes
SMALL = 1_000_000
LISTS = ("names", "types", "relations", "source")
PARTS = ("key", "start", "other")  # of each adjacency


def cached(files: list[Path], how: str, read: Callable[[], Graph]) -> Graph:
    """Returns ``read()``, from the cache if it is there. ``how``: what else the graph depends on."""
    home = os.path.expanduser(os.environ.get("MINIFLEMING_CACHE", "~/.cache/minifleming"))
    try:
        size = sum(os.path.getsize(path) for path in files)
        if not home or home.startswith("~") or size < SMALL:
            return read()
        key = "\x1f".join([FORMAT, how, *map(sha256, files)])
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", error.filename) from None
    entry = Path(home) / "graphs" / hashlib.sha256(key.encode()).hexdigest()
    if verify_folder(entry) is None:
        return load(entry)
    graph = read()
    with suppress(OSError):  # a folder that cannot be written
        write_folder(entry, lambda folder: save(graph, folder))
    return graph


def save(graph: Graph, folder: Path) -> None:
    lists = {name: getattr(graph, name) for name in LISTS}
    (folder / "graph.json").write_text(json.dumps(lists), encoding="utf-8")
    np.save(folder / "table.npy", graph.table)
    if graph.frequencies is not None:
        np.save(folder / "frequencies.npy", graph.frequencies)
    for side in ("out", "into"):
        for part in PARTS:
            np.save(folder / f"{side}_{part}.npy", getattr(getattr(graph, side), part))


def load(folder: Path) -> Graph:
    """Returns the graph of an entry, its arrays mapped."""
    graph = Graph.__new__(Graph)
    for name, value in json.loads((folder / "graph.json").read_bytes()).items():
        setattr(graph, name, value)
    graph.table = mapped(folder / "table.npy")
    known = (folder / "frequencies.npy").exists()
    graph.frequencies = mapped(folder / "frequencies.npy") if known else None
    for side in ("out", "into"):
        parts = [mapped(folder / f"{side}_{part}.npy") for part in PARTS]
        setattr(graph, side, Adjacency(*parts, len(graph.relations)))
    return graph


def mapped(path: Path) -> np.ndarray:
    """Returns a plain array that is read when it is used; numpy's memmap class is slow to slice."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
