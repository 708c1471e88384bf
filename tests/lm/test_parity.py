"""Tests against transformers: equal logits for equal weights, and folders that each can load.

Skipped where transformers is not installed (`pip install -e '.[parity]'`).
"""

from __future__ import annotations

import json

import pytest
import torch

from minifleming.lm import tensor_files
from minifleming.lm.rope import read_scaling
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model, save_model

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow
IDS = torch.tensor([[3, 7, 40, 0, 12, 9]])
SCALINGS = {
    "none": {},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0},
    "yarn-odd": {"rope_type": "yarn", "factor": 2.5, "original_max_position_embeddings": 3000, "beta_fast": 20,
                 "beta_slow": 2, "attention_factor": 1.2, "truncate": False},
}


def logits_of(model, ids=IDS) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(ids)).float()


def twin(model):
    """transformers' model of our configuration and weights."""
    raw = json.loads(model.config.to_json(torch.float32, [1]))
    name = raw.pop("architectures")[0]
    theirs = getattr(transformers, name)(getattr(transformers, name.replace("ForCausalLM", "Config"))(**raw))
    missing, unexpected = theirs.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected and not missing
    return theirs.eval()


def agree(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """To 1e-5 of the largest logit: the models here are sharp, their logits are of size ten."""
    torch.testing.assert_close(ours, theirs, atol=1e-5 * max(1.0, theirs.abs().max().item()), rtol=0)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("heads, kv_heads, head_dim, hidden", [(4, 2, 8, 24), (3, 1, 10, 39), (5, 5, 6, 30)])
def test_logits_equal_transformers(tiny, kind, tied, heads, kv_heads, head_dim, hidden):
    """Odd sizes, heads wider or narrower than hidden / heads, tied or not; theta and eps not at their defaults."""
    model = tiny(kind, tie_word_embeddings=tied, rope_theta=5e4, rms_norm_eps=1e-5, num_attention_heads=heads,
                 num_key_value_heads=kv_heads, head_dim=head_dim, hidden_size=hidden, intermediate_size=53)
    ids = torch.randint(0, 41, (3, 19), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        agree(logits_of(model, ids), twin(model)(ids).logits)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("start", [0, 8000, 30_000, 131_000])
def test_long_positions_and_every_scaling(tiny, kind, scaling, start):
    """A window of tokens far out: one unit in the last place of a frequency would be seen at position 30,000."""
    model = tiny(kind, rope_scaling=read_scaling(SCALINGS[scaling], 8192), max_position_embeddings=131_072, rope_theta=1e6, head_dim=16)
    ids = torch.randint(0, 41, (2, 33), generator=torch.Generator().manual_seed(2))
    positions = torch.arange(start, start + 33).expand(2, 33)
    with torch.no_grad():
        agree(model.logits(model(ids, positions)), twin(model)(ids, position_ids=positions).logits)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_scaled_folders_go_both_ways(tmp_path, tiny, kind, scaling, tokenizer_folder):
    """Our folder in transformers, theirs here: the same logits at the end of the positions."""
    model = tiny(kind, rope_scaling=read_scaling(SCALINGS[scaling], 8192), max_position_embeddings=8192, rope_theta=1e6)
    save_model(model, Tokenizer(tokenizer_folder), tmp_path / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    positions = torch.arange(8000, 8006)[None]
    with torch.no_grad():
        wanted = theirs(IDS, position_ids=positions).logits
    theirs.save_pretrained(tmp_path / "theirs")
    back = load_model(tmp_path / "theirs")
    for ours in (model, back):
        with torch.no_grad():
            agree(ours.logits(ours(IDS, positions)), wanted)


def test_right_padding_is_an_attention_mask(tiny, kind):
    """Rows of different length, padded behind their ends: transformers needs a mask, here causality is enough."""
    model, lengths = tiny(kind), [19, 4, 1, 11]
    ids = torch.randint(0, 41, (4, 19), generator=torch.Generator().manual_seed(3))
    mask = torch.arange(19) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        wanted = twin(model)(ids, attention_mask=mask.long()).logits
    for ours, theirs, n in zip(logits_of(model, ids), wanted, lengths):
        agree(ours[:n], theirs[:n])


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_loads_what_we_save(tmp_path, tiny, kind, tied, tokenizer_folder):
    """Same class, same logits to 1e-5 of their size, same end token; nothing missing or left over."""
    model = tiny(kind, tie_word_embeddings=tied, rope_theta=5e4)
    save_model(model, Tokenizer(tokenizer_folder), tmp_path / "m")
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "m", output_loading_info=True, dtype=torch.float32)
    assert not any(report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        other = theirs.eval()(IDS).logits
    torch.testing.assert_close(logits_of(model), other, atol=1e-5 * other.abs().max().item(), rtol=0)
    end = theirs.generation_config.eos_token_id
    assert (end if isinstance(end, list) else [end]) == Tokenizer(tokenizer_folder).end_ids


@pytest.mark.parametrize("tied", [False, True])
def test_we_load_what_transformers_saves(tmp_path, tiny, kind, tied):
    """A folder written by save_pretrained, in shards, gives its logits to 1e-5 of their size."""
    name = {"qwen2": "Qwen2", "qwen3": "Qwen3", "llama": "Llama"}[kind]
    config = getattr(transformers, f"{name}Config")(
        vocab_size=41, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=6, tie_word_embeddings=tied, max_position_embeddings=64)
    theirs = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for p, q in zip(theirs.parameters(), tiny(kind, head_dim=6, tie_word_embeddings=tied).parameters()):
            p.copy_(q)
        other = theirs(IDS).logits
    theirs.save_pretrained(tmp_path, max_shard_size="10KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    torch.testing.assert_close(logits_of(load_model(tmp_path)), other, atol=1e-5 * other.abs().max().item(), rtol=0)


def test_transformers_loads_our_shards(tmp_path, tiny, kind, tokenizer_folder, monkeypatch):
    monkeypatch.setattr(tensor_files, "MAX_FILE_BYTES", 10_000)
    model = tiny(kind)
    save_model(model, Tokenizer(tokenizer_folder), tmp_path / "m")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    with torch.no_grad():
        other = theirs(IDS).logits
    torch.testing.assert_close(logits_of(model), other, atol=1e-5 * other.abs().max().item(), rtol=0)
