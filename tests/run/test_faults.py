"""Tests for failed writes and damage: the checkpoint before stays valid, damage is detected."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from minifleming.lm import tensor_files
from minifleming.run import checkpoint
from minifleming.run.checkpoint import (
    MANIFEST,
    checkpoints,
    latest,
    prune,
    verify_folder,
    write_folder,
)


def fill(folder: Path, text: str = "one") -> None:
    """Write files like those of a checkpoint: a model folder, moments, a state."""
    (folder / "model").mkdir()
    weights = {"a": torch.full((40, 3), float(len(text))), "b": torch.ones(7)}
    tensor_files.save_safetensors(weights, folder / "model" / "model.safetensors")
    (folder / "model" / "config.json").write_text('{"text": "' + text + '"}\n')
    tensor_files.save_safetensors({"a|exp_avg": torch.zeros(40, 3)}, folder / "optimizer.safetensors")
    (folder / "state.json").write_text('{"step": 1}\n')


def steps(home: Path, count: int = 2) -> list[Path]:
    for number in range(1, count + 1):
        write_folder(home / f"step_{number:06d}", lambda folder, n=number: fill(folder, "x" * n))
    return checkpoints(home)


CALLS = [(os, "fsync"), (os, "chmod"), (os, "open"), (Path, "mkdir"), (Path, "write_text"), (Path, "rename"),
         (tensor_files, "save_file"), (checkpoint, "sha256")]


class Disk:
    """Counts the operations of a save and makes the n-th fail."""

    def __init__(self, monkeypatch, fail_at: int, how: str):
        self.count, self.fail_at, self.how = 0, fail_at, how
        for place, name in CALLS:
            monkeypatch.setattr(place, name, self.watched(name, getattr(place, name)))

    def watched(self, name, f):
        def call(*arguments, **named):
            self.count += 1
            if self.count != self.fail_at:
                return f(*arguments, **named)
            if self.how == "short write" and name == "save_file":  # and nobody says so
                f(*arguments, **named)
                os.truncate(arguments[1], os.path.getsize(arguments[1]) - 5)
                return None
            if self.how == "short write" and name == "write_text":
                f(arguments[0], arguments[1][: len(arguments[1]) // 2])
            error = OSError(errno.EIO if self.how == "I/O error" else errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise SafetensorError(str(error)) if name == "save_file" else error
        return call


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [False, True], ids=["a new one", "one that is there"])
@pytest.mark.parametrize("how", ["no space", "I/O error", "short write"])
def test_a_fault_at_any_operation_of_a_save_leaves_the_previous_checkpoint_good(tmp_path, monkeypatch, how, replaced):
    home, reached = tmp_path / "home", 0
    steps(home)
    with monkeypatch.context() as patch:
        disk = Disk(patch, -1, how)
        write_folder(home / ("step_000002" if replaced else "step_000003"), fill)
        most = disk.count
    for number in range(1, most + 1):
        shutil.rmtree(home)
        first, second = steps(home)
        target = second if replaced else home / "step_000003"
        with monkeypatch.context() as patch:
            disk = Disk(patch, number, how)
            try:
                write_folder(target, lambda folder: fill(folder, "new"))
            except OSError:
                reached += 1
        assert verify_folder(first) is None
        found = latest(home, warn=lambda line: pytest.fail(line))
        assert found in (second, home / "step_000003") and verify_folder(found) is None
        write_folder(target, lambda folder: fill(folder, "again"))  # and the next save is as any other
        assert verify_folder(target) is None and not list(home.glob(".*"))
    unsaid = 2 if replaced else 0  # what opens the replaced folder to delete it: the save is done by then
    assert reached == most - unsaid > 25, "each was tried, and the others said so"


def test_killed_between_the_two_renames_the_old_folder_comes_back(tmp_path, monkeypatch):
    first, second = steps(tmp_path)
    rename = Path.rename

    def killed(path, target):
        if path.name.endswith(".partial"):
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", killed)
        write_folder(second, fill)
    assert not second.exists()
    assert latest(tmp_path) == second and verify_folder(second) is None


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def damaged(home: Path, capsys) -> None:
    """Check that the newest is skipped with one warning and the one before is used."""
    first, second = checkpoints(home)
    assert verify_folder(second) is not None
    assert latest(home) == first
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"minifleming: warning: {second}: ")
    prune(home, 1, set())
    assert first.exists(), "nothing is deleted while the newest is damaged"


@pytest.mark.slow
def test_1000_flipped_bits_are_found(tmp_path, capsys):
    newest, rng = steps(tmp_path)[-1], random.Random(0)
    files = files_of(newest)
    for number in range(1000):
        file = files[number % len(files)]
        data = bytearray(file.read_bytes())
        place = rng.randrange(8 * len(data))
        data[place // 8] ^= 1 << place % 8
        kept = file.read_bytes()
        file.write_bytes(data)
        damaged(tmp_path, capsys)
        file.write_bytes(kept)
    assert verify_folder(newest) is None


@pytest.mark.slow
def test_200_truncations_are_found(tmp_path, capsys):
    newest, rng = steps(tmp_path)[-1], random.Random(1)
    files = files_of(newest)
    for number in range(200):
        file = files[number % len(files)]
        kept = file.read_bytes()
        file.write_bytes(kept[: rng.randrange(len(kept))])
        damaged(tmp_path, capsys)
        file.write_bytes(kept)
    assert verify_folder(newest) is None


def test_any_file_that_is_gone_is_missed_and_so_is_another_checkpoints_file(tmp_path, capsys):
    first, newest = steps(tmp_path)
    for file in files_of(newest):
        kept = file.read_bytes()
        file.unlink()
        damaged(tmp_path, capsys)
        file.write_bytes(kept)
        other = first / file.relative_to(newest)
        if other.read_bytes() != kept and file.name != MANIFEST:
            file.write_bytes(other.read_bytes())
            damaged(tmp_path, capsys)
        file.write_bytes(kept)
    assert verify_folder(newest) is None
