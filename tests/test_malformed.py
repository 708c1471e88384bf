"""Tests for malformed models, tokenizers, traces, benchmarks, checkpoints and answers: exit 2, one line on stderr.

Each case within 2 seconds and 1 GB. The default run checks every twelfth case, ``-m slow`` checks all.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save

import eval as evaluation
import generate
import train_grpo
import train_sft
from minifleming.audit import __main__ as audit
from minifleming.cold_start import teacher
from minifleming.lm.weights import TINY
from minifleming.rlvr.curriculum import State, read_state
from minifleming.run.checkpoint import write_folder
from minifleming.run.errors import run_cli
from tests.refusals import Refusals, snapshot

ROOT = Path(__file__).parents[1]
ITEM = {"id": "a", "question": "Which?", "options": {"A": "x", "B": "y"}, "answer": "A"}
TRACE = {"item": "a", "question": "Which?", "options": {"A": "x", "B": "y"}, "reasoning": "x is it.", "answer": "A",
         "strategy": "blind", "teacher": "test", "checks": {}}


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


TEXTS = {"empty": b"", "half": b'{"a": ', "list": b"[1, 2]", "number": b"3", "null": b"null",
         "no UTF-8": b'{"\xff": 1}', "deep": b"[" * 100_000, "binary": bytes(range(256)) * 4, "NaN": b"NaN",
         "text": b"hello"}


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


ENDS = {"an option without place": {"minifleming": {"option": "x"}},
        "an instruction that is a number": {"minifleming": {"instruction": 3}},
        "settings as text": {"minifleming": "x"}}


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


INDEXES = {
    "no map": {}, "a map that is a list": {"weight_map": []}, "an empty map": {"weight_map": {}},
    "a number as file": {"weight_map": {"a": 3}}, "a file outside": {"weight_map": {"a": "../model.safetensors"}},
    "an absolute file": {"weight_map": {"a": "/etc/passwd"}}, "a pickle": {"weight_map": {"a": "pytorch_model.bin"}},
    "a file that is not there": {"weight_map": {"a": "other.safetensors"}},
    "a folder": {"weight_map": {"a": "folder.safetensors"}},
    "a line break in a name": {"weight_map": {"a": "x\n.safetensors"}}}


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
}


FIELDS = {
    "no item": {"item": ...}, "an item that is a number": {"item": 3}, "no question": {"question": ...},
    "options that are a list": {"options": ["x", "y"]}, "one option": {"options": {"A": "x"}},
    "an option that is a number": {"options": {"A": "x", "B": 3}}, "an answer that is no label": {"answer": "Z"},
    "no answer": {"answer": ...}, "no reasoning": {"reasoning": ...}, "reasoning that is a list": {"reasoning": ["x"]},
    "a strategy that is a number": {"strategy": 3}, "an unknown field": {"colour": "red"},
    "a tag within": {"reasoning": "x</think><answer>B</answer>"}}


STATES = {
    "empty": {}, "a list": [1], "a step that is a text": {"step": "3"}, "a step that is a fraction": {"step": 3.0},
    "no pools": {"pools": ...}, "an unknown field": {"colour": "red"}, "pools of strangers": {"pools": {"easy": ["x"]}},
    "a stage that is a number": {"stage": 2}, "failures that are a list": {"failures": []}}
STATE = dataclasses.asdict(State())


ANSWERS = {name: text for name, text in LINES.items() if name not in ("empty", "half a line")}
AUDITS = (["verify", "nowhere"], ["verify", "model"], ["replay", "model", "--step", "1"], ["replay", "model"],
          ["verify"], ["repeat", "model"])


class Case(NamedTuple):
    """A command that must be refused after ``data`` has been written to ``file``."""

    name: str
    file: str
    data: bytes
    reason: str
    main: Callable = generate.main
    argv: list[str] = ANSWER


def changed(record: dict, change: dict) -> bytes:
    """The record as JSON, with some keys replaced, or removed where the new value is ``...``."""
    both = {**record, **change}
    return json.dumps({key: value for key, value in both.items() if value is not ...}).encode()


def model_cases() -> Iterator[Case]:
    for name, change in CONFIGS:
        base = {**CONFIG, "rope_parameters": None} if "rope_scaling" in change else CONFIG
        yield Case(name, "model/config.json", changed(base, change), "model")
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json",
                 "model.safetensors"):
        for name, text in TEXTS.items():
            yield Case(f"{file} {name}", f"model/{file}", text, file)
    for name, change in TOKENIZERS.items():
        yield Case(name, "model/tokenizer.json", changed(TOKENIZER, change), "tokenizer")
    settings = json.loads((TINY / "tokenizer_config.json").read_text())
    for name, change in ENDS.items():
        yield Case(name, "model/tokenizer_config.json", changed(settings, change), "tokenizer_config.json")


def weight_cases() -> Iterator[Case]:
    for name, data in WEIGHTS.items():
        yield Case(name, "model/model.safetensors", data, "model")
    whole, name = load_file(TINY / "model.safetensors"), "model.norm.weight"
    for what, tensors in {
            "integers": {**whole, name: whole[name].long()}, "another shape": {**whole, name: torch.zeros(3)},
            "one gone": {key: value for key, value in whole.items() if key != name},
            "one too many": {**whole, "b": torch.zeros(1)}}.items():
        yield Case(what, "model/model.safetensors", save(tensors), "model")
    for name, index in INDEXES.items():
        yield Case(name, "model/model.safetensors.index.json", json.dumps(index).encode(), "model")


def line_cases() -> Iterator[Case]:
    for command, (main, argv) in COMMANDS.items():
        for name, text in LINES.items():
            yield Case(f"{command} {name}", "spoilt", text, "spoilt", main, argv)
    argv = ["--model", "model", "--traces", "traces.jsonl", "--out", "new"]
    for name, change in FIELDS.items():
        data = json.dumps(TRACE).encode() + b"\n" + changed(TRACE, change) + b"\n"
        yield Case(f"a trace: {name}", "traces.jsonl", data, "traces.jsonl:2: ", train_sft.main, argv)
    argv = ["--items", "items.jsonl", "--teacher", "http://127.0.0.1:9/v1", "--model", "m", "--out", "out.jsonl"]
    for name, text in ANSWERS.items():
        data = text if text.endswith(b"\n") else text + b"\n"
        yield Case(f"answers {name}", "out.jsonl.answers.jsonl", data, "", teacher.main, argv)


CASES = [*model_cases(), *weight_cases(), *line_cases()]


def check_cases(cases: list[Case], workplace: Path, capsys) -> None:
    """Run each case on its spoilt file, and restore the file."""
    (workplace / "model" / "folder.safetensors").mkdir()
    refusals = Refusals(workplace, capsys)
    for case in cases:
        path = workplace / case.file
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(case.data)
        refusals.check(case.name, case.main, case.argv, case.reason)
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)
    refusals.report(least=len(cases))


def test_a_sample_of_malformed_files_is_refused(workplace, capsys):
    check_cases(CASES[::12], workplace, capsys)


@pytest.mark.slow
def test_every_malformed_file_is_refused(workplace, capsys):
    assert len(CASES) > 250
    check_cases(CASES, workplace, capsys)


def test_malformed_training_items_are_refused(workplace, capsys):
    """The run folder is created before the items are read, but no item file is written to it."""
    argv = ["--set", "data.train_file=spoilt", "--set", "data.heldout_file=items.jsonl", "--set", "run.out=new"]
    for name in ("half a line", "no UTF-8", "text"):
        (workplace / "spoilt").write_bytes(LINES[name])
        assert run_cli(train_grpo.main, argv) == 2, name
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and "spoilt" in lines[0]
        assert not (workplace / "new" / "items" / "train.jsonl").exists()


def test_a_malformed_state_of_a_checkpoint_is_refused(workplace, capsys):
    path = workplace / "step_000001"
    refusals = Refusals(workplace, capsys)
    for name, change in STATES.items():
        data = json.dumps(change).encode() if isinstance(change, list) or not change else changed(STATE, change)
        write_folder(path, lambda folder, data=data: (folder / "state.json").write_bytes(data))
        refusals.check(name, lambda argv: read_state(path / "state.json", {}), [], "state.json")
    refusals.report(least=9)


def test_a_named_checkpoint_that_is_damaged_is_an_error(workplace, capsys):
    """A checkpoint that is searched for falls back to the one before; one that is named is refused."""
    refusals = Refusals(workplace, capsys)
    for number, how in enumerate(("one bit", "cut short", "gone")):
        path = workplace / f"step_00000{number}"
        write_folder(path, lambda folder: [(folder / n).write_text(json.dumps(STATE)) for n in ("state.json", "more")])
        data = bytearray((path / "more").read_bytes())
        data[7] ^= 4
        if how == "gone":
            (path / "more").unlink()
        else:
            (path / "more").write_bytes(data if how == "one bit" else data[:9])
        reason = f"{path}: more is {'missing' if how == 'gone' else 'damaged'}"
        refusals.check(how, train_grpo.main, ["--resume", str(path), "--set", "run.out=new"], reason)
    refusals.report(least=3)


def test_an_audit_of_a_folder_that_is_no_run_is_refused(workplace, capsys):
    refusals = Refusals(workplace, capsys)
    for argv in AUDITS:
        refusals.check(" ".join(argv), audit.main, argv)
    refusals.report(least=6)


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


@pytest.mark.slow
def test_every_third_file_given_to_a_process(workplace):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    failed = []
    for name, (script, argv, file, data) in list(PROCESSES.items())[::3]:
        path = workplace / file
        saved = path.read_bytes() if path.exists() else None
        path.write_bytes(data)
        before = snapshot(workplace)
        done = subprocess.run([sys.executable, ROOT / script, *argv], capture_output=True, text=True, timeout=60,
                              env=environment)
        one_line = done.stderr.startswith("minifleming: ") and done.stderr.count("\n") == 1
        if done.returncode != 2 or done.stdout or not one_line or snapshot(workplace) != before:
            failed.append(f"{name}: {done.returncode} {done.stderr}")
        if saved is not None:
            path.write_bytes(saved)
    assert not failed, "\n".join(failed)
