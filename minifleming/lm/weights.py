"""Model folders in the Hugging Face layout: config.json, safetensors (one file, or shards and an index), tokenizer.

Names, shapes and dtypes of all tensors are compared with the configuration before one of them is read, and every
mismatch comes in one line. Files are memory-mapped and copied tensor by tensor. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from minifleming.lm import tensors
from minifleming.lm.config import ModelConfig
from minifleming.lm.fsdp import full_tensor, is_first_replica, local_row_range, to_local
from minifleming.lm.model import LanguageModel
from minifleming.lm.tokenizer import Tokenizer
from minifleming.run import distributed
from minifleming.run.checkpoint import MANIFEST, verify_folder, write_folder
from minifleming.run.errors import BadInput

TINY = Path(__file__).parent.parent / "assets" / "tiny"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STORED = {"F32", "BF16", "F16"}  # dtypes a folder may hold, as safetensors names them
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
ODD, CHUNK = 0x1E3779B97F4A7C15, 2**22  # of the fingerprint: a factor, and values at a time


def model_folder(name: str) -> Path:
    """``tiny`` is the shipped base; anything else is a path. Where a manifest is, the files must be as it says."""
    folder = TINY if name == "tiny" else Path(name)
    if not folder.is_dir():
        raise BadInput("no such model folder", folder)
    if (folder / MANIFEST).exists() and os.environ.get("RANK", "0") == "0" and (reason := verify_folder(folder)):
        raise BadInput(reason, folder)
    return folder


def load_model(folder: Path, dtype: str = "float32", device: torch.device | str = "cpu",
               deterministic: bool = False, spread: Callable[[LanguageModel], None] | None = None) -> LanguageModel:
    """The model of a folder, in evaluation mode (nothing here has dropout).

    ``spread`` shards it over the ranks before it takes memory, and each rank reads its own rows.
    """
    if deterministic and dtype != "float32":
        raise BadInput("run.deterministic: needs model.dtype = float32; the order of 16-bit sums depends on the batch")
    config = ModelConfig.read(folder / "config.json")
    with torch.device("meta"):
        model = LanguageModel(config).to(DTYPES[dtype])
    check_weights(model, folder)
    if spread:
        spread(model)
    model.to_empty(device=device).tie_weights()
    load_weights(model, folder)
    model.deterministic = deterministic
    return model.train(False)


@torch.no_grad()
def load_weights(model: LanguageModel, folder: Path) -> None:
    """Copy a folder's tensors, or this rank's rows of them, into ``model``. Raises BadInput with every mismatch, and
    then copies nothing."""
    check_weights(model, folder)
    wanted = dict(model.named_parameters())
    for name, rows, shape in tensors.read_tensors(folder):
        if name in wanted:  # all but the head that some tied folders store again
            to_local(wanted[name]).copy_(rows(local_row_range(wanted[name], shape[0])))


def check_weights(model: LanguageModel, folder: Path) -> None:
    """Raise BadInput unless the folder holds the model's tensors: each once, in its shape, as a float of 16 or 32 bits.

    Any of the three dtypes is read into any other: folders in use mix them, and name another in their config.
    """
    wanted = {name: list(p.shape) for name, p in model.named_parameters()}
    found, faults = set(), []
    for file in tensors.weight_files(folder):
        with tensors.open_safetensors(file) as held:
            for name in held.keys():
                stored = held.get_slice(name)
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


def save_model(model: LanguageModel, tokenizer: Tokenizer, folder: Path | None, dtype: torch.dtype | None = None,
               shard_bytes: int = tensors.SHARD_BYTES) -> None:
    """Write a folder that ``load_model`` and transformers load. To be called inside ``write_folder``, which syncs the
    files, gives them normal permissions and writes the manifest with their sha256. A sharded model is gathered tensor
    by tensor: all ranks call this, and one of them with a folder."""
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    kind, parameters = dtype or model.model.embed_tokens.weight.dtype, dict(model.named_parameters())
    tensors.write_tensors(folder, {name: p.numel() * kind.itemsize for name, p in parameters.items()},
                  lambda name: full_tensor(parameters[name].detach()).to(kind), shard_bytes=shard_bytes)
    if folder is None:
        return
    (folder / "config.json").write_text(model.config.to_json(kind, tokenizer.end_ids))
    generation = {"eos_token_id": tokenizer.end_ids, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    for name in TOKENIZER_FILES:
        if (tokenizer.folder / name).exists():
            shutil.copyfile(tokenizer.folder / name, folder / name)


def write_model(model: LanguageModel, tokenizer: Tokenizer, folder: Path) -> None:
    """The same atomically, called by all ranks: all gather, the first one writes."""
    if distributed.rank() == 0:
        write_folder(folder, lambda path: save_model(model, tokenizer, path))
    else:
        save_model(model, tokenizer, None)
    distributed.barrier()


def weights_checksum(model: LanguageModel) -> str:
    """A checksum of every bit of the weights: of each tensor Σ b_i · (2 i + 1) · ODD mod 2^64, b_i the bits of value i.

    Whole numbers give one sum in any order, on any machine and however a tensor is cut up; one changed bit changes it.
    Of a sharded model all ranks sum their rows.
    """
    sums = []
    for parameter in model.parameters():
        part, (count, *inner) = to_local(parameter.detach()), parameter.shape
        whole_type = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[part.element_size()]
        first, total = local_row_range(parameter, count).start * math.prod(inner), 0
        for at, bits in enumerate(part.reshape(-1).view(whole_type).split(CHUNK)):
            place = torch.arange(first + at * CHUNK, first + at * CHUNK + len(bits), device=bits.device)
            total += (bits.long() * (2 * place + 1) * ODD).sum().item()
        sums.append(total if is_first_replica(parameter) else 0)
    everyone = distributed.all_gather([sums], model.device) if model.sharded else [sums]
    digest = hashlib.sha256()
    for (name, parameter), *totals in zip(model.named_parameters(), *everyone, strict=True):
        digest.update(f"{name} {tuple(parameter.shape)} {sum(totals) % 2**64}\n".encode())
    return digest.hexdigest()
