"""Model folders in the Hugging Face layout: config.json, safetensors files, tokenizer.

Names, shapes and dtypes of all tensors are checked against the configuration before any is read,
and mismatches are reported in one line. Files are memory-mapped and copied tensor by tensor.
Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from minifleming.lm.batch_invariant import make_batch_invariant
from minifleming.lm.config import ModelConfig
from minifleming.lm.fsdp import apply_fsdp, full_tensor, local_row_range, to_local
from minifleming.lm.model import LanguageModel
from minifleming.lm.tensor_files import stored_tensors, write_tensors
from minifleming.lm.tokenizer import Tokenizer
from minifleming.run.checkpoint import MANIFEST, verify_folder
from minifleming.run.errors import BadInput
from minifleming.run.fields import Config

TINY = Path(__file__).parent.parent / "assets" / "tiny"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STORED_DTYPES = ("BF16", "F16", "F32")  # as safetensors names them
BITS_OF_SIZE = {2: torch.int16, 4: torch.int32, 8: torch.int64}
CHECKSUM_FACTOR = 0x1E3779B97F4A7C15
CHECKSUM_CHUNK = 2**22  # values at a time
MAX_FAULTS = 8  # listed in a message


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
    shard = None if cfg.run.fsdp_size == 1 else partial(
        apply_fsdp, size=cfg.run.fsdp_size, compute_dtype=compute_dtype, device=device)
    model = load_model(folder, cfg.model.dtype, device, cfg.run.deterministic, shard)
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

    Raises BadInput, before anything is copied, if they are not those of the model.
    """
    check_weights(model, folder)
    parameters = dict(model.named_parameters())
    for name, stored in stored_tensors(folder):
        parameter = parameters.get(name)  # None: a tied head that was stored again
        if parameter is not None:
            to_local(parameter).copy_(stored[local_row_range(parameter)])


def check_weights(model: LanguageModel, folder: Path) -> None:
    """Raises BadInput unless the folder holds each tensor of the model once, as a 16- or 32-bit
    float.

    Any of the three dtypes may be loaded as any other.
    """
    found = []
    for name, stored in stored_tensors(folder):
        if stored.get_dtype() not in STORED_DTYPES:
            raise BadInput(f"{name} has dtype {stored.get_dtype()}, not one of "
                           f"{', '.join(STORED_DTYPES)}", folder)
        if name != "lm_head.weight" or not model.config.tie_word_embeddings:
            found.append((name, stored.get_shape()))
    check_shapes({name: list(p.shape) for name, p in model.named_parameters()}, found, folder)


def check_shapes(wanted: dict[str, list[int]], found: Iterable[tuple[str, list[int]]],
                 file: Path) -> None:
    """Raises BadInput unless each wanted tensor is found once, in its shape, and no other."""
    missing = dict(wanted)
    faults = []
    for name, shape in found:
        if name not in wanted:
            faults.append(f"{name} is not in the model")
        elif missing.pop(name, None) is None:
            faults.append(f"{name} is stored twice")
        elif shape != wanted[name]:
            faults.append(f"{name} has shape {shape}, not {wanted[name]}")
    faults += [f"{name} is missing" for name in missing]
    if len(faults) > MAX_FAULTS:
        faults[MAX_FAULTS:] = [f"and {len(faults) - MAX_FAULTS} more"]
    if faults:
        raise BadInput("; ".join(faults), file)


def save_model(model: LanguageModel, tokenizer: Tokenizer, folder: Path | None,
               dtype: torch.dtype | None = None) -> None:
    """Writes a folder that ``load_model`` and transformers load.

    Call it within ``write_folder``, which syncs the files and writes the manifest. A sharded model
    is gathered tensor by tensor: all ranks call this, and all but one pass ``folder`` None.
    """
    dtype = dtype or model.model.embed_tokens.weight.dtype
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder, dtype)
    if folder is None:
        return
    (folder / "config.json").write_text(model.config.to_json(dtype, tokenizer.end_ids))
    generation = {"eos_token_id": tokenizer.end_ids, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (tokenizer.folder / name).exists():
            shutil.copyfile(tokenizer.folder / name, folder / name)


def save_weights(model: LanguageModel, folder: Path | None,
                 dtype: torch.dtype = torch.float32) -> None:
    """Writes the tensors only. Arguments as of ``save_model``."""
    write_tensors(folder, dict(model.named_parameters()), dtype)


def weights_checksum(model: LanguageModel) -> str:
    """A hash of every bit of the weights; one changed bit changes it.

    It hashes Σ b_i · (2 i + 1) · CHECKSUM_FACTOR mod 2^64 of each tensor, b_i being the bits of
    value i. Sums of integers are the same in any order, so on any machine. All ranks call this.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        total = checksum(full_tensor(parameter.detach()))
        digest.update(f"{name} {tuple(parameter.shape)} {total}\n".encode())
    return digest.hexdigest()


def checksum(tensor: Tensor) -> int:
    bits = tensor.reshape(-1).view(BITS_OF_SIZE[tensor.element_size()])
    total = first = 0
    for chunk in bits.split(CHECKSUM_CHUNK):
        index = torch.arange(first, first + len(chunk), device=chunk.device)
        total += (chunk.long() * (2 * index + 1) * CHECKSUM_FACTOR).sum().item()
        first += len(chunk)
    return total % 2**64
