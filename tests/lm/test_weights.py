"""Model folders: round trips, shards, every mismatch in one line, and nothing read from outside the folder."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from minifleming.lm import tensor_files
from minifleming.lm.model import LanguageModel
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model, load_weights, model_folder, save_model
from minifleming.run.checkpoint import verify_folder, write_folder
from minifleming.run.errors import BadInput

IDS = torch.tensor([[3, 7, 40, 0, 12, 9]])


def logits_of(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(IDS)).float()


@pytest.fixture
def saved(tmp_path, tiny, tokenizer_folder):
    """A saved model: (model, folder)."""
    model = tiny("qwen2")
    save_model(model, Tokenizer(tokenizer_folder), tmp_path / "m")
    return model, tmp_path / "m"


def refused(folder, *words) -> str:
    """Loading the folder fails with one line that has all these words."""
    with pytest.raises(BadInput) as caught:
        load_model(folder)
    line = str(caught.value)
    assert "\n" not in line and all(word in line for word in words), line
    return line


@pytest.mark.parametrize("tied", [False, True])
def test_save_and_load_is_exact(tmp_path, tiny, kind, tied, tokenizer_folder):
    """Configuration, every tensor bit for bit, tying, and the tokenizer come back; in evaluation mode."""
    model = tiny(kind, tie_word_embeddings=tied, rope_theta=123456.0).train()
    save_model(model, Tokenizer(tokenizer_folder), tmp_path / "m")
    back = load_model(tmp_path / "m")
    assert back.config == model.config and not back.training
    assert [n for n, _ in back.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), model.parameters()))
    assert (back.lm_head.weight is back.model.embed_tokens.weight) == tied
    assert torch.equal(logits_of(back), logits_of(model))
    assert Tokenizer(tmp_path / "m").encode("ab<think>") == Tokenizer(tokenizer_folder).encode("ab<think>")


def test_saving_does_not_touch_the_model(tmp_path, tiny, tokenizer_folder):
    model, twin = tiny(), tiny()
    save_model(model, Tokenizer(tokenizer_folder), tmp_path / "m", torch.bfloat16)
    assert all(p.dtype == torch.float32 and torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters()))


@pytest.mark.parametrize("tied", [False, True])
def test_T30_bfloat16_folders(tmp_path, tiny, tied, tokenizer_folder):
    """Saved as bf16 and loaded as bf16 or fp32: the rounded weights, still tied; saving bf16 again is exact."""
    model, tokenizer = tiny(tie_word_embeddings=tied), Tokenizer(tokenizer_folder)
    save_model(model, tokenizer, tmp_path / "m", torch.bfloat16)
    stored = load_file(tmp_path / "m" / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.bfloat16}
    assert ("lm_head.weight" in stored) == (not tied)
    for dtype in ("bfloat16", "float32"):
        back = load_model(tmp_path / "m", dtype)
        assert (back.lm_head.weight is back.model.embed_tokens.weight) == tied
        for (name, p), q in zip(back.named_parameters(), model.parameters()):
            assert p.dtype == getattr(torch, dtype) and torch.equal(p.float(), q.bfloat16().float()), name
    save_model(load_model(tmp_path / "m", "bfloat16"), tokenizer, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in stored.items())


def shard(folder, files=("one.safetensors", "two.safetensors")) -> dict:
    """Split the folder's tensors over two files and write the index. -> the index"""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = [dict(list(tensors.items())[i::2]) for i in range(2)]
    for file, part in zip(files, parts):
        save_file(part, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in zip(files, parts) for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def test_shards_are_put_together(saved):
    model, folder = saved
    shard(folder)
    assert torch.equal(logits_of(load_model(folder)), logits_of(model))
    assert {name for name, _ in tensor_files.stored_tensors(folder)} == set(model.state_dict())


@pytest.mark.parametrize("file", ["../one.safetensors", "/etc/passwd", "a/../../one.safetensors", "sub/one.safetensors",
                                  "./one.safetensors", "..", ".", "", "a\0b"])
def test_index_cannot_lead_out_of_the_folder(saved, file):
    """A shard's name is a plain file name, or the folder is refused; nothing outside is opened."""
    model, folder = saved
    index = shard(folder)
    (folder / "one.safetensors").rename(folder.parent / "one.safetensors")  # where ../ would find it
    index["weight_map"] = {n: file if f == "one.safetensors" else f for n, f in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "not a plain file name", "index.json")


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}',
                                  '{"weight_map": null}', "{", ""])
def test_damaged_index(saved, text):
    _, folder = saved
    (folder / "model.safetensors.index.json").write_text(text)
    refused(folder, "index.json")


def test_missing_shard_is_named(saved):
    _, folder = saved
    shard(folder)
    (folder / "two.safetensors").unlink()
    refused(folder, "no such file", "two.safetensors")


def test_mismatches_come_in_one_line(saved):
    """Missing, unknown and of another shape: all of them in one line, and no other tensor."""
    _, folder = saved
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"], tensors["lm_head.weight"]
    tensors["model.layers.7.mlp.up_proj.weight"] = torch.zeros(2, 2)
    tensors["model.embed_tokens.weight"] = torch.zeros(41, 23)
    save_file(tensors, folder / "model.safetensors")
    line = refused(folder, "model.norm.weight is missing", "lm_head.weight is missing",
                   "model.layers.7.mlp.up_proj.weight is not in the model",
                   "model.embed_tokens.weight has shape [41, 23], not [41, 24]", str(folder))
    assert line.count(";") == 3


def test_many_mismatches_are_counted(saved):
    """A folder of another size: the first mismatches, and how many more there are."""
    model, folder = saved
    save_file({f"extra.{i:02}": torch.zeros(1) for i in range(20)}, folder / "model.safetensors")
    more = 20 + len(list(model.parameters())) - 8
    line = refused(folder, *(f"extra.{i:02} is not in the model" for i in range(8)), f"and {more} more")
    assert line.count(";") == 8


def test_nothing_is_copied_from_a_folder_that_does_not_fit(saved, tiny):
    _, folder = saved
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"model.norm.weight": torch.zeros(23)}, folder / "model.safetensors")
    model = tiny("qwen2", seed=9)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(BadInput, match="model.norm.weight has shape"):
        load_weights(model, folder)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float8_e4m3fn, torch.int8])
def test_other_dtypes_are_refused(saved, dtype):
    _, folder = saved
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(dtype)
    save_file(tensors, folder / "model.safetensors")
    refused(folder, "model.norm.weight has dtype")


def test_a_tensor_stored_twice_is_refused(saved):
    """Two shards with one name: which of them counts would depend on the order of reading."""
    _, folder = saved
    shard(folder)
    for file in (folder / "one.safetensors", folder / "two.safetensors"):
        save_file(load_file(file) | {"model.norm.weight": torch.ones(24)}, file)
    refused(folder, "model.norm.weight is stored twice")


@pytest.mark.parametrize("most, files", [(1, 27), (10_000, 6), (10**9, 1)])
def test_saving_in_shards(tmp_path, tiny, tokenizer_folder, monkeypatch, most, files):
    """Any size of shard gives the same model; no file is larger than asked but for one tensor alone."""
    model = tiny("qwen2")
    monkeypatch.setattr(tensor_files, "MAX_FILE_BYTES", most)
    save_model(model, Tokenizer(tokenizer_folder), tmp_path / "m")
    found = sorted((tmp_path / "m").glob("*.safetensors"))
    assert len(found) == files and (files == 1) == (found[0].name == "model.safetensors")
    if files > 1:
        index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == {f.name for f in found}
        assert index["metadata"]["total_size"] == sum(4 * p.numel() for p in model.parameters())
        for file in found:
            tensors = load_file(file)
            assert len(tensors) == 1 or sum(4 * t.numel() for t in tensors.values()) <= most
    assert torch.equal(logits_of(load_model(tmp_path / "m")), logits_of(model))


def test_a_written_folder_has_normal_permissions_and_a_manifest(tmp_path, tiny, tokenizer_folder):
    """safetensors writes files for their owner alone; a folder that is to be shared must not stay so."""
    write_folder(tmp_path / "m", lambda folder: save_model(tiny(), Tokenizer(tokenizer_folder), folder))
    files = {f.name for f in (tmp_path / "m").iterdir()}
    assert all((tmp_path / "m" / f).stat().st_mode & 0o777 == 0o644 for f in files)
    assert verify_folder(tmp_path / "m") is None
    assert set(json.loads((tmp_path / "m" / "files.json").read_text())["files"]) == files - {"files.json"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_deterministic_mode_needs_fp32(saved, dtype):
    _, folder = saved
    assert load_model(folder, deterministic=True).batch_invariant
    with pytest.raises(BadInput, match="run.deterministic: needs model.dtype = float32"):
        load_model(folder, dtype, deterministic=True)


def test_float16_folders(tmp_path, tiny, tokenizer_folder):
    model = tiny()
    save_model(model, Tokenizer(tokenizer_folder), tmp_path / "m", torch.float16)
    back = load_model(tmp_path / "m")
    assert all(torch.equal(p, q.half().float()) for p, q in zip(back.parameters(), model.parameters()))


def test_tied_model_ignores_a_stored_head(tmp_path, tiny, tokenizer_folder):
    """Some tied folders store the head again: the embedding is what counts, as in transformers."""
    model = tiny(tie_word_embeddings=True)
    save_model(model, Tokenizer(tokenizer_folder), tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    save_file(tensors | {"lm_head.weight": torch.zeros(41, 24)}, tmp_path / "m" / "model.safetensors")
    assert torch.equal(logits_of(load_model(tmp_path / "m")), logits_of(model))


@pytest.mark.parametrize("data", [b"", b"not tensors at all", b"\x10\0\0\0\0\0\0\0{\"a\": broken json", b"\xff" * 64])
def test_unreadable_tensors(saved, data):
    _, folder = saved
    (folder / "model.safetensors").write_bytes(data)
    refused(folder, "not a readable safetensors file", "model.safetensors")


def test_truncated_tensors(saved):
    _, folder = saved
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-10])
    refused(folder, "not a readable safetensors file")


def test_missing_files(saved, tmp_path):
    _, folder = saved
    (folder / "model.safetensors").unlink()
    refused(folder, "no such file", "model.safetensors")
    (folder / "config.json").unlink()
    refused(folder, "config.json")
    with pytest.raises(BadInput, match="no such model folder"):
        model_folder(str(tmp_path / "nowhere"))
    assert model_folder(str(folder)) == folder


def test_a_pickle_is_never_read(saved):
    """A folder with nothing but pytorch_model.bin is refused, and the file is not opened."""
    model, folder = saved
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    refused(folder, "no such file", "model.safetensors")


def test_loading_into_a_model_keeps_its_identity(saved, tiny):
    """load_weights fills the parameters that the optimizer holds; a refused folder names the fault."""
    model, folder = saved
    other = tiny("qwen2", seed=5)
    held = list(other.parameters())
    load_weights(other, folder)
    assert all(a is b for a, b in zip(other.parameters(), held))
    assert torch.equal(logits_of(other), logits_of(model))
    with pytest.raises(BadInput, match="q_norm.weight is missing"):
        load_weights(tiny("qwen3"), folder)


def test_a_tokenizer_without_a_configuration_can_be_saved(tmp_path, tiny, tokenizer_writer):
    """tokenizer_config.json is optional when a folder is read, so it is when one is written."""
    tokenizer_writer(tmp_path / "t")
    (tmp_path / "t" / "tokenizer_config.json").unlink()
    save_model(tiny(), Tokenizer(tmp_path / "t"), tmp_path / "m")
    assert Tokenizer(tmp_path / "m").end_ids == Tokenizer(tmp_path / "t").end_ids
