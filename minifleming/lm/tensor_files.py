"""Named tensors in safetensors files, in the Hugging Face layout: one file, or several and an
index.

Files are memory-mapped and read tensor by tensor, or a range of rows. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minifleming.run.checkpoint import read_json
from minifleming.run.errors import BadInput

MAX_FILE_BYTES = 5 * 10**9


def weight_files(folder: Path, stem: str = "model") -> list[Path]:
    """``stem.safetensors``, or the files named in its index.

    Raises BadInput for any name with a path.
    """
    index = folder / f"{stem}.safetensors.index.json"
    if not index.exists():
        return [folder / f"{stem}.safetensors"]
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadInput("no 'weight_map' from names to files", index)
    for name in weight_map.values():
        if not isinstance(name, str):
            raise BadInput("no 'weight_map' from names to files", index)
        if Path(name).name != name or not name.endswith(".safetensors") or not name.isprintable():
            raise BadInput(f"'{name}' is not a plain file name in .safetensors", index)
    return [folder / name for name in sorted(set(weight_map.values()))]


@contextmanager
def open_safetensors(file: Path):
    """The opened file. Raises BadInput if it cannot be read."""
    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except FileNotFoundError:
        raise BadInput("no such file", file) from None
    except (SafetensorError, OSError) as error:
        raise BadInput(f"not a readable safetensors file: {error}", file) from None


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of an opened file. ``dtype`` is the name that safetensors uses, such as "BF16"."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: safe_open

    def read(self, rows: slice | None = None) -> Tensor:
        """These rows, or the whole tensor."""
        if rows is None:
            return self.file.get_tensor(self.name)
        return self.file.get_slice(self.name)[rows]


def stored_tensors(folder: Path, stem: str = "model") -> Iterator[StoredTensor]:
    """The tensors of a folder. Each can be read until the next one is requested."""
    for path in weight_files(folder, stem):
        with open_safetensors(path) as file:
            for name in file.keys():
                stored = file.get_slice(name)
                yield StoredTensor(name, tuple(stored.get_shape()), stored.get_dtype(), file)


def write_tensors(folder: Path | None, sizes: dict[str, int], tensor_of: Callable[[str], Tensor],
                  stem: str = "model", max_file_bytes: int = MAX_FILE_BYTES) -> None:
    """Writes tensor_of(name) for every name of ``sizes`` (name -> bytes).

    ``tensor_of`` may be a collective: every rank calls this function, and all but one pass
    ``folder`` None.
    """
    parts = split_by_size(sizes, max_file_bytes)
    weight_map = {}
    for i, names in enumerate(parts, 1):
        file = f"{stem}.safetensors"
        if len(parts) > 1:
            file = f"{stem}-{i:05d}-of-{len(parts):05d}.safetensors"
        tensors = {}
        for name in names:
            weight_map[name] = file
            tensor = tensor_of(name)
            if folder:
                tensors[name] = tensor.cpu().contiguous()
        if folder:
            save_safetensors(tensors, folder / file)
    if folder and len(parts) > 1:
        weight_map = dict(sorted(weight_map.items()))
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def split_by_size(sizes: dict[str, int], max_bytes: int) -> list[list[str]]:
    """The names, in order, in parts of at most ``max_bytes`` (or one tensor)."""
    parts: list[list[str]] = [[]]
    room = max_bytes
    for name, size in sizes.items():
        if size > room and parts[-1]:
            parts.append([])
            room = max_bytes
        parts[-1].append(name)
        room -= size
    return parts


def save_safetensors(tensors: dict[str, Tensor], file: Path) -> None:
    """Writes one file. Raises OSError if it is shorter than it should be."""
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(None, str(error), str(file)) from None
    with open(file, "rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
    tensor_bytes = sum(t.numel() * t.element_size() for t in tensors.values())
    if file.stat().st_size != 8 + header_bytes + tensor_bytes:
        raise OSError(None, "was written short", str(file))
