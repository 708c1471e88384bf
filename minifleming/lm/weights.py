"""Model folders in the Hugging Face layout: config.json, safetensors (one file, or shards and an index), tokenizer.

Names, shapes and dtypes of all tensors are compared with the configuration before one of them is read, and every
mismatch comes in one line. Files are memory-mapped and copied tensor by tensor. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minifleming.lm.architecture import ModelConfig
from minifleming.lm.model import LanguageModel
from minifleming.lm.tokenizer import Tokenizer
from minifleming.run.checkpoint import read_json
from minifleming.run.errors import BadInput

TINY = Path(__file__).parent.parent / "assets" / "tiny"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STORED = {"F32", "BF16", "F16"}  # dtypes a folder may hold, as safetensors names them
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9
ODD, CHUNK = 0x1E3779B97F4A7C15, 2**22  # of the fingerprint: a factor, and values at a time


def model_folder(name: str) -> Path:
    """``tiny`` is the shipped base; anything else is a path."""
    folder = TINY if name == "tiny" else Path(name)
    if not folder.is_dir():
        raise BadInput("no such model folder", folder)
    return folder


def load_model(folder: Path, dtype: str = "float32", device: torch.device | str = "cpu",
               deterministic: bool = False) -> LanguageModel:
    """The model of a folder, in evaluation mode (nothing here has dropout)."""
    if deterministic and dtype != "float32":
        raise BadInput("run.deterministic: needs model.dtype = float32; the order of 16-bit sums depends on the batch")
    config = ModelConfig.read(folder / "config.json")
    with torch.device("meta"):
        model = LanguageModel(config).to(DTYPES[dtype])
    check_weights(model, folder)
    model.to_empty(device=device)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    load_weights(model, folder)
    model.deterministic = deterministic
    return model.train(False)


@torch.no_grad()
def load_weights(model: LanguageModel, folder: Path) -> None:
    """Copy a folder's tensors into ``model``. Raises BadInput with every mismatch, and then copies nothing."""
    check_weights(model, folder)
    wanted = dict(model.named_parameters())
    for name, tensor in read_tensors(folder):
        if name in wanted:  # all but the head that some tied folders store again
            wanted[name].copy_(tensor)


def check_weights(model: LanguageModel, folder: Path) -> None:
    """Raise BadInput unless the folder holds the model's tensors: each once, in its shape, as a float of 16 or 32 bits.

    Any of the three dtypes is read into any other: folders in use mix them, and name another in their config.
    """
    wanted = {name: list(p.shape) for name, p in model.named_parameters()}
    found, faults = set(), []
    for file in files_of(folder):
        with opened(file) as tensors:
            for name in tensors.keys():
                stored = tensors.get_slice(name)
                if name in found:
                    faults.append(f"{name} is stored twice")
                elif name in wanted and stored.get_shape() != wanted[name]:
                    faults.append(f"{name} has shape {stored.get_shape()}, not {wanted[name]}")
                elif name not in wanted and not (name == "lm_head.weight" and model.config.tie_word_embeddings):
                    faults.append(f"{name} is not in the model")
                elif stored.get_dtype() not in STORED:
                    faults.append(f"{name} has dtype {stored.get_dtype()}, not one of {', '.join(sorted(STORED))}")
                found.add(name)
    faults += [f"{name} is missing" for name in wanted if name not in found]
    if faults:
        raise BadInput("; ".join(by_layer(faults)), folder)


def by_layer(faults: list[str]) -> list[str]:
    """The same fault of several layers in one: 'model.layers.{0,1,2}.mlp.up_proj.weight is missing'."""
    groups: dict[str, list[str]] = {}
    for fault in faults:
        layer = re.search(r"(?<=^model\.layers\.)\d+", fault)
        key = fault if layer is None else fault[: layer.start()] + "\0" + fault[layer.end() :]
        groups.setdefault(key, []).append(layer[0] if layer else "")
    return [key.replace("\0", layers[0] if len(layers) == 1 else "{" + ",".join(layers) + "}")
            for key, layers in groups.items()]


def read_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a folder, memory-mapped."""
    for file in files_of(folder):
        with opened(file) as tensors:
            for name in tensors.keys():
                yield name, tensors.get_tensor(name)


def files_of(folder: Path) -> list[Path]:
    """``model.safetensors``, or the shards that its index names: plain file names, nothing outside of the folder."""
    index = folder / INDEX
    if not index.exists():
        return [folder / SINGLE]
    table = read_json(index)
    names = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise BadInput("no 'weight_map' from names to files", index)
    for file in names.values():
        if Path(file).name != file or not file.endswith(".safetensors") or not file.isprintable():
            raise BadInput(f"'{file}' is not a plain file name in .safetensors", index)
    return [folder / file for file in sorted(set(names.values()))]


@contextmanager
def opened(file: Path):
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except FileNotFoundError:
        raise BadInput("no such file", file) from None
    except (SafetensorError, OSError) as error:
        raise BadInput(f"not a readable safetensors file: {error}", file) from None


def save_model(model: LanguageModel, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype | None = None,
               shard_bytes: int = SHARD_BYTES) -> None:
    """Write a folder that ``load_model`` and transformers load. To be called inside ``write_folder``, which syncs the
    files, gives them normal permissions and writes the manifest with their sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = dtype or model.model.embed_tokens.weight.dtype
    shards = shards_of({name: p.numel() * kind.itemsize for name, p in model.named_parameters()}, shard_bytes)
    parameters, places = dict(model.named_parameters()), {}
    for i, names in enumerate(shards):
        file = SINGLE if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: parameters[name].detach().to("cpu", kind).contiguous() for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(p.numel() for p in parameters.values()) * kind.itemsize
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    (folder / "config.json").write_text(model.config.to_json(kind, tokenizer.end_ids))
    generation = {"eos_token_id": tokenizer.end_ids, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    for name in TOKENIZER_FILES:
        if (tokenizer.folder / name).exists():
            shutil.copyfile(tokenizer.folder / name, folder / name)


def shards_of(sizes: dict[str, int], most: int) -> list[list[str]]:
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


def fingerprint(model: torch.nn.Module) -> str:
    """A checksum of every bit of the weights: of each tensor Σ b_i · (2 i + 1) · ODD mod 2^64, b_i the bits of value i.

    Whole numbers give one sum in any order, on any machine and however a tensor is cut up; one changed bit changes it.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[parameter.element_size()]
        total = 0
        for at, bits in enumerate(parameter.detach().reshape(-1).view(whole).split(CHUNK)):
            place = torch.arange(at * CHUNK, at * CHUNK + len(bits), device=bits.device)
            total += (bits.long() * (2 * place + 1) * ODD).sum().item()
        digest.update(f"{name} {tuple(parameter.shape)} {total % 2**64}\n".encode())
    return digest.hexdigest()
