"""Named tensors in safetensors files: one file, or shards and an index, as the Hugging Face layout has them.

Files are memory-mapped and read tensor by tensor, or row by row. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minifleming.run.checkpoint import read_json
from minifleming.run.errors import BadInput

SHARD_BYTES = 5 * 10**9


def weight_files(folder: Path, stem: str = "model") -> list[Path]:
    """``stem.safetensors``, or the shards that its index names: plain file names, nothing outside of the folder."""
    index = folder / f"{stem}.safetensors.index.json"
    if not index.exists():
        return [folder / f"{stem}.safetensors"]
    table = read_json(index)
    names = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise BadInput("no 'weight_map' from names to files", index)
    for file in names.values():
        if Path(file).name != file or not file.endswith(".safetensors") or not file.isprintable():
            raise BadInput(f"'{file}' is not a plain file name in .safetensors", index)
    return [folder / file for file in sorted(set(names.values()))]


@contextmanager
def open_safetensors(file: Path):
    """The file as ``safe_open`` has it. Raises BadInput if it is none."""
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except FileNotFoundError:
        raise BadInput("no such file", file) from None
    except (SafetensorError, OSError) as error:
        raise BadInput(f"not a readable safetensors file: {error}", file) from None


def read_tensors(folder: Path, stem: str = "model") -> Iterator[tuple[str, Callable[[slice | None], Tensor], tuple[int, ...]]]:
    """Name, a function that reads rows (all, for None), and shape, of every tensor of a folder."""
    for file in weight_files(folder, stem):
        with open_safetensors(file) as tensors:
            for name in tensors.keys():
                stored = tensors.get_slice(name)
                shape = tuple(stored.get_shape())
                whole = partial(tensors.get_tensor, name)
                yield name, (lambda rows, stored=stored, whole=whole: stored[rows] if rows else whole()), shape


def write_tensors(folder: Path | None, sizes: dict[str, int], tensor_of: Callable[[str], Tensor], stem: str = "model",
          shard_bytes: int = SHARD_BYTES) -> None:
    """Write the tensors that ``tensor_of`` gives for the names of ``sizes`` (name -> bytes).

    To gather a tensor may take all ranks: those that write nothing come along with ``folder`` None.
    """
    shards, places = split_into_files(sizes, shard_bytes), {}
    for i, names in enumerate(shards):
        file = f"{stem}.safetensors" if len(shards) == 1 else f"{stem}-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        tensors = {}
        for name in names:
            tensor = tensor_of(name)
            if folder:
                tensors[name] = tensor.cpu().contiguous()
        if folder:
            save_safetensors(tensors, folder / file)
        places |= dict.fromkeys(names, file)
    if folder and len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sorted(places.items()))}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def save_safetensors(tensors: dict[str, Tensor], file: Path) -> None:
    """One file. Raises OSError if less than all of it arrived."""
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(None, str(error), str(file)) from None
    with open(file, "rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
    if file.stat().st_size != 8 + header + sum(t.numel() * t.element_size() for t in tensors.values()):
        raise OSError(None, "was written short", str(file))


def split_into_files(sizes: dict[str, int], most: int) -> list[list[str]]:
    """Names in their order, cut into files of at most ``most`` bytes (or one tensor)."""
    shards: list[list[str]] = [[]]
    room = most
    for name, size in sizes.items():
        if size > room and shards[-1]:
            shards.append([])
            room = most
        shards[-1].append(name)
        room -= size
    return shards
