"""Model folders in the Hugging Face layout: config.json, safetensors files, tokenizer.

Names, shapes and dtypes of all tensors are checked against the configuration before any is read,
and every mismatch is reported in one line. Files are memory-mapped and copied tensor by tensor.
Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from minifleming.lm.batch_invariant import make_batch_invariant
from minifleming.lm.config import ModelConfig
from minifleming.lm.fsdp import (
    apply_fsdp,
    full_tensor,
    is_first_replica,
    local_row_range,
    to_local,
)
from minifleming.lm.model import LanguageModel
from minifleming.lm.tensor_files import MAX_FILE_BYTES, stored_tensors, write_tensors
from minifleming.lm.tokenizer import Tokenizer
from minifleming.run import distributed
from minifleming.run.checkpoint import MANIFEST, verify_folder, write_folder
from minifleming.run.errors import BadInput
from minifleming.run.fields import Config

TINY = Path(__file__).parent.parent / "assets" / "tiny"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STORED_DTYPES = ("BF16", "F16", "F32")  # as safetensors names them
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
BITS_OF_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
CHECKSUM_FACTOR = 0x1E3779B97F4A7C15
CHECKSUM_CHUNK = 2**22  # values at a time


def model_folder(name: str) -> Path:
    """The folder of a model name: ``tiny`` is the shipped base, anything else a path.

    Raises BadInput if it does not exist, or if its files do not match its manifest (checked on rank
    0).
    """
    folder = TINY if name == "tiny" else Path(name)
    if not folder.is_dir():
        raise BadInput("no such model folder", folder)
    if (folder / MANIFEST).exists() and os.environ.get("RANK", "0") == "0":
        reason = verify_folder(folder)
        if reason:
            raise BadInput(reason, folder)
    return folder


def load_model(folder: Path, dtype: str = "float32", device: torch.device | str = "cpu",
               deterministic: bool = False,
               shard: Callable[[LanguageModel], None] | None = None) -> LanguageModel:
    """The model of a folder, in evaluation mode (there is no dropout).

    ``shard`` spreads it over the ranks before memory is allocated; each rank then reads its own
    rows.
    """
    if deterministic and dtype != "float32":
        raise BadInput("run.deterministic: needs model.dtype = float32; "
                       "the order of 16-bit sums depends on the batch")
    config = ModelConfig.read(folder / "config.json")
    with torch.device("meta"):
        model = LanguageModel(config).to(DTYPES[dtype])
    check_weights(model, folder)
    if shard:
        shard(model)
    model.to_empty(device=device).tie_weights()
    load_weights(model, folder)
    if deterministic:
        make_batch_invariant(model)
    return model.train(False)


def load_for_training(folder: Path, cfg: Config, device: torch.device) -> LanguageModel:
    """fp32 weights, sharded by ``run.fsdp_size``, that compute in the run's compute dtype."""
    compute_dtype = compute_dtype_of(cfg, device)
    shard = None
    storage = device
    if cfg.run.fsdp_size != 1:
        shard = partial(apply_fsdp, size=cfg.run.fsdp_size, compute_dtype=compute_dtype,
                        device=device, offload=cfg.run.offload)
        storage = torch.device("cpu") if cfg.run.offload else device
    model = load_model(folder, cfg.model.dtype, storage, cfg.run.deterministic, shard)
    model.compute_dtype = compute_dtype
    return model


def load_for_inference(folder: Path, cfg: Config, device: torch.device) -> LanguageModel:
    """The whole model on this rank, in the dtype that it sampled in during training."""
    exact = cfg.model.dtype == "float32" and compute_dtype_of(cfg, device) == torch.float32
    return load_model(folder, "float32" if exact else "bfloat16", device, cfg.run.deterministic)


def compute_dtype_of(cfg: Config, device: torch.device) -> torch.dtype:
    """dtype of matrix products. "auto" is bfloat16 on a GPU, unless the run is deterministic."""
    if cfg.model.compute_dtype != "auto":
        return DTYPES[cfg.model.compute_dtype]
    if device.type == "cuda" and not cfg.run.deterministic:
        return torch.bfloat16
    return torch.float32


@torch.no_grad()
def load_weights(model: LanguageModel, folder: Path) -> None:
    """Copies a folder's tensors, or this rank's rows of them, into ``model``.

    Raises BadInput with every mismatch before anything is copied.
    """
    check_weights(model, folder)
    parameters = dict(model.named_parameters())
    for stored in stored_tensors(folder):
        parameter = parameters.get(stored.name)  # None: a tied head that was stored again
        if parameter is not None:
            to_local(parameter).copy_(stored.read(local_row_range(parameter, stored.shape[0])))


def check_weights(model: LanguageModel, folder: Path) -> None:
    """Raises BadInput unless the folder holds each tensor of the model once, as a 16- or 32-bit
    float.

    Any of the three dtypes may be loaded as any other.
    """
    shapes = {name: list(p.shape) for name, p in model.named_parameters()}
    optional = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    found, faults = set(), []
    for stored in stored_tensors(folder):
        name, shape = stored.name, list(stored.shape)
        if name in found:
            faults.append(f"{name} is stored twice")
        elif name in shapes and shape != shapes[name]:
            faults.append(f"{name} has shape {shape}, not {shapes[name]}")
        elif name not in shapes and name not in optional:
            faults.append(f"{name} is not in the model")
        elif stored.dtype not in STORED_DTYPES:
            faults.append(f"{name} has dtype {stored.dtype}, not one of {', '.join(STORED_DTYPES)}")
        found.add(name)
    faults += [f"{name} is missing" for name in shapes if name not in found]
    if faults:
        raise BadInput("; ".join(merge_layers(faults)), folder)


def merge_layers(faults: list[str]) -> list[str]:
    """Equal faults of several layers as one: "model.layers.{0,1,2}.mlp.up_proj.weight ..."."""
    layers: dict[str, list[str]] = {}
    for fault in faults:
        match = re.match(r"(model\.layers\.)(\d+)(.*)", fault)
        if match:
            layers.setdefault(f"{match[1]}*{match[3]}", []).append(match[2])
        else:
            layers[fault] = []
    merged = []
    for fault, numbers in layers.items():
        listed = numbers[0] if len(numbers) == 1 else "{" + ",".join(numbers) + "}"
        merged.append(fault.replace("*", listed, 1) if numbers else fault)
    return merged


def save_model(model: LanguageModel, tokenizer: Tokenizer, folder: Path | None,
               dtype: torch.dtype | None = None, max_file_bytes: int = MAX_FILE_BYTES) -> None:
    """Writes a folder that ``load_model`` and transformers load.

    Call it within ``write_folder``, which syncs the files and writes the manifest. A sharded model
    is gathered tensor by
    tensor: all ranks call this, and all but one pass ``folder`` None.
    """
    dtype = dtype or model.model.embed_tokens.weight.dtype
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder, dtype, max_file_bytes)
    if folder is None:
        return
    (folder / "config.json").write_text(model.config.to_json(dtype, tokenizer.end_ids))
    generation = {"eos_token_id": tokenizer.end_ids, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    for name in TOKENIZER_FILES:
        if (tokenizer.folder / name).exists():
            shutil.copyfile(tokenizer.folder / name, folder / name)


def save_weights(model: LanguageModel, folder: Path | None, dtype: torch.dtype = torch.float32,
                 max_file_bytes: int = MAX_FILE_BYTES) -> None:
    """Writes the tensors only. Arguments as of ``save_model``."""
    parameters = dict(model.named_parameters())
    sizes = {name: p.numel() * dtype.itemsize for name, p in parameters.items()}
    write_tensors(folder, sizes, lambda name: full_tensor(parameters[name].detach()).to(dtype),
                  max_file_bytes=max_file_bytes)


def write_model(model: LanguageModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the folder atomically. All ranks call this; the first one writes."""
    if distributed.rank() == 0:
        write_folder(folder, lambda path: save_model(model, tokenizer, path))
    else:
        save_model(model, tokenizer, None)
    distributed.barrier()


def weights_checksum(model: LanguageModel) -> str:
    """A hash of every bit of the weights; one changed bit changes it.

    It hashes Σ b_i · (2 i + 1) · CHECKSUM_FACTOR mod 2^64 of each tensor, b_i being the bits of
    value i. Sums of integers are the same in any order, so on any machine and with any sharding.
    """
    sums = [checksum_part(parameter) for parameter in model.parameters()]
    all_sums = distributed.all_gather([sums], model.device) if model.sharded else [sums]
    digest = hashlib.sha256()
    for (name, parameter), *parts in zip(model.named_parameters(), *all_sums, strict=True):
        digest.update(f"{name} {tuple(parameter.shape)} {sum(parts) % 2**64}\n".encode())
    return digest.hexdigest()


def checksum_part(parameter: Tensor) -> int:
    """The sum over this rank's rows; 0 if another replica counts them."""
    if not is_first_replica(parameter):
        return 0
    rows = to_local(parameter.detach())
    bits = rows.reshape(-1).view(BITS_OF_SIZE[rows.element_size()])
    first = local_row_range(parameter, parameter.shape[0]).start * math.prod(parameter.shape[1:])
    total = 0
    for chunk in bits.split(CHECKSUM_CHUNK):
        index = torch.arange(first, first + len(chunk), device=chunk.device)
        total += (chunk.long() * (2 * index + 1) * CHECKSUM_FACTOR).sum().item()
        first += len(chunk)
    return total
