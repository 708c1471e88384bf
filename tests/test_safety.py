"""Tests for safety: no command unpickles, executes code, starts a process or uses the network."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minifleming.lm import tensor_files
from minifleming.lm.weights import model_folder
from minifleming.run.checkpoint import verify_folder, write_folder
from minifleming.run.errors import BadInput

ROOT = Path(__file__).parents[1]
WATCHED = r"""
import contextlib, io, json, os, sys
import eval as evaluation, generate, synth_kg, train_grpo, train_sft
from minifleming.cold_start import teacher
from minifleming.audit import __main__ as audit
from minifleming.run.errors import run_cli
root, seen = sys.argv[1], []
ALWAYS = ("pickle.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "socket.connect",
          "socket.getaddrinfo", "socket.gethostbyname", "urllib.", "ctypes.dlopen", "marshal.")
def hook(event, arguments):
    if not event.startswith((*ALWAYS, "exec", "compile")):
        return
    if event.startswith(ALWAYS) or sys._getframe(1).f_code.co_filename.startswith((root, "<string>")):
        frames, frame = [], sys._getframe(1)
        while frame:
            frames.append(frame.f_code.co_filename)
            frame = frame.f_back
        if not any("importlib" in name for name in frames):  # a module that is read for the first time
            seen.append(event + " " + frames[0])
sys.addaudithook(hook)
small = [word for setting in (
    "data.train=60", "data.heldout=12", "data.num_ood=4", "cold_start.traces=60", "cold_start.epochs=1", "run.out=run",
    "stage1.min_steps=1", "stage1.max_steps=1", "stage2.rounds=1", "stage2.steps_per_round=1", "rl.prompts_per_step=4",
    "mining.samples=1", "eval.max_new_tokens=8", "rl.max_new_tokens=16") for word in ("--set", setting)]
codes = []
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    for main, argv in [
            (synth_kg.main, ["--n", "20", "--out", "items.jsonl"]),
            (teacher.main, ["--items", "items.jsonl", "--out", "traces.jsonl"]),
            (train_sft.main, ["--model", "tiny", "--traces", "traces.jsonl", "--out", "sft", "--set",
                              "cold_start.epochs=1"]),
            (train_grpo.main, small),
            (audit.main, ["verify", "run"]), (audit.main, ["replay", "run", "--step", "1"]),
            (generate.main, ["--model", "sft", "--items", "items.jsonl", "--out", "o.jsonl", "--max-new-tokens", "4"]),
            (evaluation.main, ["--model", "sft", "--benchmark", "mine=items.jsonl", "--out", "eval", "--set",
                               "eval.max_new_tokens=4"])]:
        codes.append(run_cli(main, argv))
    eval("1 + 1")  # the hook sees what it should
    import pickle
    pickle.loads(pickle.dumps(sys.exit))
print(json.dumps([codes, seen]))
"""


@pytest.mark.slow
def test_no_command_pickles_executes_starts_a_process_or_asks_the_network(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", WATCHED, str(ROOT)], cwd=tmp_path, capture_output=True, text=True,
                          timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    codes, seen = json.loads(done.stdout.splitlines()[-1])
    assert codes == [0] * 8, done.stderr
    assert [event.split()[0] for event in seen] == ["compile", "exec", "pickle.find_class"], "what the test itself did"


FORBIDDEN = ("torch.load", "pickle.load", "import pickle", "eval(", "exec(", "os.system", "shell=True", "yaml.load",
             "trust_remote_code", "torch.save")


def test_the_source_has_no_way_to_do_it():
    found = []
    for path in sorted([*(ROOT / "minifleming").rglob("*.py"), *ROOT.glob("*.py")]):
        text = path.read_text()
        found += [f"{path.relative_to(ROOT)}: {word}" for word in FORBIDDEN if word in text]
    assert not found


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One of seven ways to spoil a file; never the file itself."""
    kind, at = rng.randrange(7), rng.randrange(len(data))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data + bytes(rng.randrange(256) for _ in range(rng.randint(1, 64)))
    if kind == 2:
        return struct.pack("<Q", rng.choice([0, 1, 2**20, 2**40, 2**63, rng.randrange(2**64)])) + data[8:]
    if kind == 3:  # a bit of the header
        at = rng.randrange(8, 8 + int.from_bytes(data[:8], "little"))
    if kind == 4:  # a digit or letter of the header for another
        at = rng.randrange(8, 8 + int.from_bytes(data[:8], "little"))
        return data[:at] + rng.choice(b"0123456789[]{},:\"Fx").to_bytes(1, "little") + data[at + 1 :]
    if kind == 5:
        other = rng.randrange(len(data))
        low, high = min(at, other), max(at, other) + 1
        return data[:low] + bytes(rng.randrange(256) for _ in range(high - low)) + data[high:]
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


@pytest.mark.parametrize("count", [pytest.param(10_000, marks=pytest.mark.slow), 300])
def test_mutated_weights_are_seen_by_the_manifest_and_crash_nothing(tmp_path, count):
    """Without a manifest a flipped bit in the numbers loads: nothing in the format can detect it."""
    folder, rng = tmp_path / "model", random.Random(0)
    weights = {f"model.layers.{i}.weight": torch.randn(3, i + 1) for i in range(4)}
    write_folder(folder, lambda path: tensor_files.save_safetensors(weights, path / "model.safetensors"))
    file = folder / "model.safetensors"
    data, refused, loaded = file.read_bytes(), 0, 0
    for _ in range(count):
        spoilt = mutated(data, rng)
        if spoilt == data:
            continue
        file.write_bytes(spoilt)
        assert verify_folder(folder) == "model.safetensors is damaged"
        with pytest.raises(BadInput, match="model.safetensors is damaged"):
            model_folder(str(folder))
        try:
            for _, stored in tensor_files.stored_tensors(folder):
                stored[...]
            loaded += 1
        except BadInput as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 0.4 * count and loaded > 0.1 * count
