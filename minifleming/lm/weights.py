"""Model folders in the Hugging Face layout: config.json, model.safetensors (single or sharded), tokenizer.

Every tensor's name and shape is checked against the configuration, and all mismatches come in one line.
Nothing is pickled.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minifleming.lm.model import LanguageModel, ModelConfig
from minifleming.lm.tokenizer import Tokenizer
from minifleming.run.checkpoint import read_json
from minifleming.run.errors import BadInput

TINY = Path(__file__).parent.parent / "assets" / "tiny"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def model_folder(name: str) -> Path:
    """``tiny`` is the shipped base; anything else is a path."""
    folder = TINY if name == "tiny" else Path(name)
    if not folder.is_dir():
        raise BadInput("no such model folder", folder)
    return folder


def load_model(folder: Path, dtype: str = "float32", device: torch.device | str = "cpu") -> LanguageModel:
    """The model of a folder, in evaluation mode (nothing here has dropout)."""
    config = ModelConfig.read(folder / "config.json")
    with torch.device("meta"):
        model = LanguageModel(config)
    model.to_empty(device=device)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    model.to(DTYPES[dtype])
    load_weights(model, folder)
    return model.eval()


@torch.no_grad()
def load_weights(model: LanguageModel, folder: Path) -> None:
    """Copy a folder's tensors into ``model``. Raises BadInput with every mismatch."""
    wanted = dict(model.named_parameters())
    found, faults = set(), []
    for name, tensor in read_tensors(folder):
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if name not in wanted:
            faults.append(f"{name} is not in the model")
        elif tensor.shape != wanted[name].shape:
            faults.append(f"{name} has shape {list(tensor.shape)}, not {list(wanted[name].shape)}")
        elif not tensor.is_floating_point():
            faults.append(f"{name} has dtype {tensor.dtype}")
        else:
            wanted[name].copy_(tensor)
        found.add(name)
    faults += [f"{name} is missing" for name in wanted if name not in found]
    if faults:
        more = f" and {len(faults) - 8} more" if len(faults) > 8 else ""
        raise BadInput("; ".join(faults[:8]) + more, folder)


def read_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a folder, from ``model.safetensors`` or the shards its index names."""
    index = folder / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if index.exists():
        table = read_json(index)
        names = table.get("weight_map") if isinstance(table, dict) else None
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise BadInput("no 'weight_map' from names to files", index)
        files = sorted(set(names.values()))
    for file in files:
        if Path(file).name != file or not file.endswith(".safetensors") or not file.isprintable():
            raise BadInput(f"'{file}' is not a plain file name in .safetensors", index)
        try:
            with safe_open(folder / file, framework="pt") as tensors:
                for name in tensors.keys():
                    yield name, tensors.get_tensor(name)
        except FileNotFoundError:
            raise BadInput("no such file", folder / file) from None
        except (SafetensorError, OSError) as error:
            raise BadInput(f"not a readable safetensors file: {error}", folder / file) from None


def save_model(model: LanguageModel, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a folder that ``load_model`` and transformers load; to be called inside ``write_folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = dtype or model.model.embed_tokens.weight.dtype
    tensors = {name: p.detach().to("cpu", kind).contiguous() for name, p in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(model.config.to_json(kind, tokenizer.end_ids))
    generation = {"eos_token_id": tokenizer.end_ids, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    for name in TOKENIZER_FILES:
        if (tokenizer.folder / name).exists():
            shutil.copyfile(tokenizer.folder / name, folder / name)
