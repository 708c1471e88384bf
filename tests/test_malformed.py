"""Malformed models, tokenizers, traces, public sets, checkpoints and answers: exit 2, one line, nothing touched.

Each case within 2 seconds and 1 GB; with tests/test_bad_input.py more than 300 inputs, some also as real processes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import eval as evaluation
import generate
import train_grpo
import train_sft
from minifleming.audit import __main__
from minifleming.cold_start import teacher
from minifleming.lm.weights import TINY
from minifleming.rlvr.curriculum import State, read_state
from minifleming.run.checkpoint import write_folder
from minifleming.run.errors import run_cli
from tests.test_bad_input import everything

ROOT = Path(__file__).parents[1]
ITEM = {"id": "a", "question": "Which?", "options": {"A": "x", "B": "y"}, "answer": "A"}
TRACE = {"item": "a", "question": "Which?", "options": {"A": "x", "B": "y"}, "reasoning": "x is it.", "answer": "A",
         "strategy": "blind", "teacher": "test", "checks": {}}
SECONDS, BYTES = 2.0, 2**30


def refused(main, argv: list[str], folder: Path, capsys, mentions: str = "") -> None:
    before, start = everything(folder), time.monotonic()
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert run_cli(main, argv) == 2
    seconds = time.monotonic() - start
    told = capsys.readouterr()
    lines = told.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("minifleming: ") and mentions in lines[0], told.err
    assert "Traceback" not in told.err and len(lines[0]) < 2000
    assert seconds < SECONDS
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) < BYTES
    assert everything(folder) == before


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A whole model, whose files the cases spoil, and good items and prompts."""
    shutil.copytree(TINY, tmp_path / "model", ignore=shutil.ignore_patterns("files.json"))
    (tmp_path / "prompts.txt").write_text("What is it?\n")
    (tmp_path / "items.jsonl").write_text(json.dumps(ITEM) + "\n")
    (tmp_path / "traces.jsonl").write_text(json.dumps(TRACE) + "\n")
    (tmp_path / "precious.jsonl").write_text("of an earlier run\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


ANSWER = ["--model", "model", "--prompts", "prompts.txt", "--out", "precious.jsonl", "--max-new-tokens", "4"]
CONFIG = json.loads((TINY / "config.json").read_text())
NUMBERS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
           "num_key_value_heads", "head_dim", "max_position_embeddings")
WRONG = {"gone": ..., "text": "many", "negative": -3, "zero": 0, "fraction": 1.5, "list": [1], "true": True,
         "another": 6, "endless": 10**15}
FINE = {("head_dim", "gone"), ("head_dim", "zero"), ("max_position_embeddings", "gone"),
        ("max_position_embeddings", "another")}
CONFIGS = [(f"{key} {what}", {key: value}) for key in NUMBERS for what, value in WRONG.items()
           if (key, what) not in FINE]
CONFIGS += [(f"{key} {value}", {key: value}) for key, values in {
    "model_type": ["gpt2", 3, None, ...], "rms_norm_eps": ["x", ..., [1e-6]], "hidden_act": ["gelu"],
    "use_sliding_window": [True], "mlp_bias": [True], "attention_bias": [True], "layer_types": [["linear_attention"]],
    "rope_scaling": [{"rope_type": "yarn"}, {"rope_type": 3}, "linear"], "tie_word_embeddings": [False]}.items()
    for value in values]


@pytest.mark.parametrize("change", [change for _, change in CONFIGS], ids=[name for name, _ in CONFIGS])
def test_a_models_configuration(change, workplace, capsys):
    raw = {**CONFIG, "rope_parameters": None} if "rope_scaling" in change else dict(CONFIG)
    for key, value in change.items():
        raw.pop(key, None) if value is ... else raw.update({key: value})
    (workplace / "model" / "config.json").write_text(json.dumps(raw))
    refused(generate.main, ANSWER, workplace, capsys, "model")


TEXTS = {"empty": b"", "half": b'{"a": ', "list": b"[1, 2]", "number": b"3", "null": b"null",
         "no UTF-8": b'{"\xff": 1}', "deep": b"[" * 100_000, "binary": bytes(range(256)) * 4, "NaN": b"NaN",
         "text": b"hello"}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json",
                                  "model.safetensors.index.json", "model.safetensors"])
def test_a_models_files_that_are_no_json_objects(file, text, workplace, capsys):
    (workplace / "model" / file).write_bytes(text)
    refused(generate.main, ANSWER, workplace, capsys, file)


TOKENIZER = json.loads((TINY / "tokenizer.json").read_text())
TOKENIZERS = {
    "no model": {"model": ...}, "no vocabulary": {"model": {"type": "BPE", "merges": []}},
    "another model": {"model": {"type": "Magic"}}, "merges of nothing": {"model": {**TOKENIZER["model"], "merges": [
        ["zzzz", "qqqq"]]}}, "ids as texts": {"model": {**TOKENIZER["model"], "vocab": {"a": "b"}}},
    "negative ids": {"model": {**TOKENIZER["model"], "vocab": {"a": -1}}},
    "tokens that are no list": {"added_tokens": 3}, "a token without text": {"added_tokens": [{"id": 3}]},
    "another decoder": {"decoder": {"type": "Magic"}}, "another splitter": {"pre_tokenizer": {"type": "Magic"}},
    "a bad expression": {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(["}, "behavior": "Isolated",
                                           "invert": False}}}


@pytest.mark.parametrize("change", TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_tokenizer(change, workplace, capsys):
    raw = dict(TOKENIZER)
    for key, value in change.items():
        raw.pop(key, None) if value is ... else raw.update({key: value})
    (workplace / "model" / "tokenizer.json").write_text(json.dumps(raw))
    refused(generate.main, ANSWER, workplace, capsys, "tokenizer")


ENDS = {"an option without place": {"minifleming": {"option": "x"}},
        "an instruction that is a number": {"minifleming": {"instruction": 3}},
        "settings as text": {"minifleming": "x"}}


@pytest.mark.parametrize("change", ENDS.values(), ids=ENDS)
def test_a_tokenizers_configuration(change, workplace, capsys):
    path = workplace / "model" / "tokenizer_config.json"
    raw = json.loads(path.read_text())
    for key, value in change.items():
        raw.pop(key, None) if value is ... else raw.update({key: value})
    path.write_text(json.dumps(raw))
    refused(generate.main, ANSWER, workplace, capsys, "tokenizer_config.json")


def header(text: str, length: int | None = None, body: bytes = b"") -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data) if length is None else length) + data + body


ONE = '{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
WEIGHTS = {
    "seven bytes": b"\0" * 7, "an empty header": header(""), "a header of a terabyte": header("{}", 2**40),
    "a header beyond the file": header("{}", 100), "a header that is a list": header("[]"),
    "an unknown tensor": header(ONE, body=b"\0" * 8),
    "offsets beyond": header(ONE.replace("8]", "80]"), body=b"\0" * 8),
    "offsets backwards": header(ONE.replace("[0, 8]", "[8, 0]"), body=b"\0" * 8),
    "an unknown dtype": header(ONE.replace("F32", "F33"), body=b"\0" * 8),
    "a negative shape": header(ONE.replace("[2]", "[-2]"), body=b"\0" * 8),
    "an endless shape": header(ONE.replace("[2]", f"[{2**62}, 8]"), body=b"\0" * 8),
    "bytes at the end": header("{}", body=b"\0" * 8), "a name of control characters": header(
        '{"\\u0001\\n": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}', body=b"\0" * 4)}


@pytest.mark.parametrize("data", WEIGHTS.values(), ids=WEIGHTS)
def test_a_safetensors_file(data, workplace, capsys):
    (workplace / "model" / "model.safetensors").write_bytes(data)
    refused(generate.main, ANSWER, workplace, capsys, "model")


@pytest.mark.parametrize("change", ["integers", "another shape", "one gone", "one too many"])
def test_tensors_that_are_not_the_models(change, workplace, capsys):
    from safetensors.torch import load_file
    path = workplace / "model" / "model.safetensors"
    tensors = load_file(path)
    name = "model.norm.weight"
    tensors = {**tensors, name: tensors[name].long()} if change == "integers" else {
        **tensors, name: torch.zeros(3)} if change == "another shape" else {
        n: t for n, t in tensors.items() if n != name} if change == "one gone" else {**tensors, "b": torch.zeros(1)}
    save_file(tensors, path)
    refused(generate.main, ANSWER, workplace, capsys, "model")


INDEXES = {
    "no map": {}, "a map that is a list": {"weight_map": []}, "an empty map": {"weight_map": {}},
    "a number as file": {"weight_map": {"a": 3}}, "a file outside": {"weight_map": {"a": "../model.safetensors"}},
    "an absolute file": {"weight_map": {"a": "/etc/passwd"}}, "a pickle": {"weight_map": {"a": "pytorch_model.bin"}},
    "a file that is not there": {"weight_map": {"a": "other.safetensors"}},
    "a folder": {"weight_map": {"a": "folder.safetensors"}},
    "a line break in a name": {"weight_map": {"a": "x\n.safetensors"}}}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_an_index(index, workplace, capsys):
    (workplace / "model" / "folder.safetensors").mkdir()
    (workplace / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(generate.main, ANSWER, workplace, capsys, "model")


LINES = {
    "empty": b"", "half a line": json.dumps(TRACE).encode()[:-9], "a list": b"[1]\n", "no UTF-8": b'{"item": "\xff"}\n',
    "NUL": b"\0\0\0\n", "deep": b"[" * 100_000 + b"\n", "a long line of nothing": b"x" * 10**6,
    "a byte order mark and nothing": b"\xef\xbb\xbf", "a lone surrogate": b'{"item": "\\ud83e"}\n',
    "NaN": b"NaN\n", "text": b"not a record\n", "the line of another kind": b'{"step": 1, "loss": 0.5}\n'}
COMMANDS = {
    "traces": (train_sft.main, ["--model", "model", "--traces", "spoilt", "--out", "new"]),
    "items to answer": (generate.main, ["--model", "model", "--items", "spoilt", "--out", "precious.jsonl"]),
    "items to evaluate": (evaluation.main, ["--model", "model", "--benchmark", "mine=spoilt", "--out", "new"]),
    "medqa": (evaluation.main, ["--model", "model", "--benchmark", "medqa=spoilt", "--out", "new"]),
    "medmcqa": (evaluation.main, ["--model", "model", "--benchmark", "medmcqa=spoilt", "--out", "new"]),
    "items to train on": (train_grpo.main, ["--set", "data.train_file=spoilt", "--set", "data.heldout_file=items.jsonl",
                                            "--set", "run.out=new"])}


@pytest.mark.parametrize("text", LINES.values(), ids=LINES)
@pytest.mark.parametrize("main, argv", COMMANDS.values(), ids=COMMANDS)
def test_files_of_lines(main, argv, text, workplace, capsys):
    (workplace / "spoilt").write_bytes(text)
    if main is train_grpo.main:  # it makes its folder before it reads the items
        (workplace / "new").mkdir()
        assert run_cli(main, argv) == 2
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 1 and "spoilt" in told[0]
        assert not (workplace / "new" / "items" / "train.jsonl").exists()
        return
    refused(main, argv, workplace, capsys, "spoilt")


FIELDS = {
    "no item": {"item": ...}, "an item that is a number": {"item": 3}, "no question": {"question": ...},
    "options that are a list": {"options": ["x", "y"]}, "one option": {"options": {"A": "x"}},
    "an option that is a number": {"options": {"A": "x", "B": 3}}, "an answer that is no label": {"answer": "Z"},
    "no answer": {"answer": ...}, "no reasoning": {"reasoning": ...}, "reasoning that is a list": {"reasoning": ["x"]},
    "a strategy that is a number": {"strategy": 3}, "an unknown field": {"colour": "red"},
    "a tag within": {"reasoning": "x</think><answer>B</answer>"}}


@pytest.mark.parametrize("change", FIELDS.values(), ids=FIELDS)
def test_a_trace(change, workplace, capsys):
    raw = {key: value for key, value in {**TRACE, **change}.items() if value is not ...}
    (workplace / "traces.jsonl").write_text(json.dumps(TRACE) + "\n" + json.dumps(raw) + "\n")
    refused(train_sft.main, ["--model", "model", "--traces", "traces.jsonl", "--out", "new"], workplace, capsys,
            "traces.jsonl:2: ")


STATES = {
    "empty": {}, "a list": [1], "a step that is a text": {"step": "3"}, "a step that is a fraction": {"step": 3.0},
    "no pools": {"pools": ...}, "an unknown field": {"colour": "red"}, "pools of strangers": {"pools": {"easy": ["x"]}},
    "a stage that is a number": {"stage": 2}, "failures that are a list": {"failures": []}}
STATE = dataclasses.asdict(State())


@pytest.mark.parametrize("change", STATES.values(), ids=STATES)
def test_the_state_of_a_checkpoint(change, workplace, capsys):

    raw = change if isinstance(change, list) or not change else {
        key: value for key, value in {**STATE, **change}.items() if value is not ...}
    path = workplace / "step_000001"
    write_folder(path, lambda folder: (folder / "state.json").write_text(json.dumps(raw)))
    refused(lambda argv: read_state(path / "state.json", {}), [], workplace, capsys, "state.json")


@pytest.mark.parametrize("how", ["one bit", "cut short", "gone"])
def test_a_checkpoint_that_is_named_and_damaged(how, workplace, capsys):
    """Where it is looked for, the one before it is taken; where it is named, that is an error."""
    path = workplace / "step_000001"
    write_folder(path, lambda folder: [(folder / n).write_text(json.dumps(STATE)) for n in ("state.json", "more")])
    data = bytearray((path / "more").read_bytes())
    data[7] ^= 4
    if how == "gone":
        (path / "more").unlink()
    else:
        (path / "more").write_bytes(data if how == "one bit" else data[:9])
    refused(train_grpo.main, ["--resume", str(path), "--set", "run.out=new"], workplace, capsys,
            f"{path}: more is {'missing' if how == 'gone' else 'damaged'}")


ANSWERS = {name: text for name, text in LINES.items() if name not in ("empty", "half a line")}


@pytest.mark.parametrize("text", ANSWERS.values(), ids=ANSWERS)
def test_answers_of_an_endpoint_on_disk(text, workplace, capsys):
    """The cache of a served teacher's answers: what is no answer is refused, so that no paid answer is lost."""
    (workplace / "out.jsonl.answers.jsonl").write_bytes(text if text.endswith(b"\n") else text + b"\n")
    refused(teacher.main, ["--items", "items.jsonl", "--teacher", "http://127.0.0.1:9/v1", "--model", "m",
                           "--out", "out.jsonl"], workplace, capsys)


@pytest.mark.parametrize("argv", [
    ["verify", "nowhere"], ["verify", "model"], ["replay", "model", "--step", "1"], ["replay", "model"],
    ["verify"], ["repeat", "model"]], ids=" ".join)
def test_an_audit(argv, workplace, capsys):
    refused(__main__.main, argv, workplace, capsys)


PROCESSES = {
    "generate: a pickle in the index": ("generate.py", ANSWER, "model/model.safetensors.index.json",
                                        b'{"weight_map": {"a": "x.bin"}}'),
    "generate: half a tokenizer": ("generate.py", ANSWER, "model/tokenizer.json", b'{"model": '),
    "generate: seven bytes": ("generate.py", ANSWER, "model/model.safetensors", b"\0" * 7),
    "generate: an endless model": ("generate.py", ANSWER, "model/config.json", json.dumps(
        {**CONFIG, "hidden_size": 10**12}).encode()),
    **{f"{name}: {what}": (f"{'eval' if 'evaluate' in name else 'generate' if 'answer' in name else 'train_sft'}.py",
                           COMMANDS[name][1], "spoilt", LINES[what])
       for name in ("traces", "items to answer", "items to evaluate")
       for what in ("half a line", "no UTF-8", "deep", "NUL", "a lone surrogate")}}


@pytest.mark.parametrize("script, argv, file, data", PROCESSES.values(), ids=PROCESSES)
def test_as_a_process(script, argv, file, data, workplace):
    (workplace / file).write_bytes(data)
    before = everything(workplace)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, ROOT / script, *argv], capture_output=True, text=True, timeout=60,
                          env=environment)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("minifleming: ") and done.stderr.count("\n") == 1
    assert everything(workplace) == before
