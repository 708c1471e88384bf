"""Named tensors in safetensors files, in the Hugging Face layout: one file, or several and an
index.

Files are memory-mapped and read tensor by tensor, or a range of rows. Nothing is pickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minifleming.lm.fsdp import full_tensor
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
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadInput("no 'weight_map' from names to files", index)
    for name in weight_map.values():
        if not re.fullmatch(r"[\w.-]+\.safetensors", str(name)):
            raise BadInput(f"'{name}' is not a plain file name in .safetensors", index)
    return [folder / name for name in sorted(set(weight_map.values()))]


def stored_tensors(folder: Path, stem: str = "model") -> Iterator[tuple[str, object]]:
    """Names and tensors of a folder. Each tensor can be read until the next one is requested.

    It is a slice of safetensors: ``get_shape()``, ``get_dtype()`` (such as "BF16"), and ``[rows]``
    or ``[...]``, which read it. Raises BadInput if a file cannot be read.
    """
    for path in weight_files(folder, stem):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():
                    yield name, file.get_slice(name)
        except FileNotFoundError:
            raise BadInput("no such file", path) from None
        except (SafetensorError, OSError) as error:
            raise BadInput(f"not a readable safetensors file: {error}", path) from None


def write_tensors(folder: Path | None, tensors: dict[str, Tensor], dtype: torch.dtype,
                  stem: str = "model") -> None:
    """Writes the tensors in ``dtype``, in files of at most MAX_FILE_BYTES (or one tensor).

    Sharded tensors are gathered one by one: every rank calls this function, and all but one pass
    ``folder`` None.
    """
    sizes = {name: tensor.numel() * dtype.itemsize for name, tensor in tensors.items()}
    parts = split_by_size(sizes)
    weight_map = {}
    for i, names in enumerate(parts, 1):
        file = f"{stem}.safetensors"
        if len(parts) > 1:
            file = f"{stem}-{i:05d}-of-{len(parts):05d}.safetensors"
        part = {}
        for name in names:
            weight_map[name] = file
            tensor = full_tensor(tensors[name].detach()).to(dtype)
            if folder:
                part[name] = tensor.cpu().contiguous()
        if folder:
            save_safetensors(part, folder / file)
    if folder and len(parts) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def split_by_size(sizes: dict[str, int]) -> list[list[str]]:
    """The names, in order, in parts of at most MAX_FILE_BYTES (or one tensor)."""
    parts: list[list[str]] = [[]]
    room = MAX_FILE_BYTES
    for name, size in sizes.items():
        if size > room and parts[-1]:
            parts.append([])
            room = MAX_FILE_BYTES
        parts[-1].append(name)
        room -= size
    return parts


def save_safetensors(tensors: dict[str, Tensor], file: Path) -> None:
    """Writes one file. Raises OSError if it cannot be written, or not all of it."""
    try:
        save_file(tensors, file, metadata={"format": "pt"})
        with safe_open(file, framework="pt"):  # fails if the file is shorter than its header says
            pass
    except SafetensorError as error:
        raise OSError(None, str(error), str(file)) from None
