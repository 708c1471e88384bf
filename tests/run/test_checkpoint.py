"""Tests for run/checkpoint.py: atomic writes, detection of damage, the newest whole checkpoint."""

import json
import os
from pathlib import Path

import pytest

from minifleming.run import checkpoint
from minifleming.run.checkpoint import (
    MANIFEST,
    checkpoints,
    ensure_writable,
    latest,
    prune,
    read_json,
    sha256,
    verify_folder,
    write_folder,
    write_text,
)
from minifleming.run.errors import BadInput
from minifleming.run.run_folder import Journal


def fill(folder: Path, text: str = "one") -> None:
    (folder / "state.json").write_text(json.dumps({"text": text}))
    (folder / "model").mkdir()
    (folder / "model" / "weights.bin").write_bytes(bytes(range(256)) * 4)
    (folder / "empty").touch()


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def step(folder: Path, number: int) -> Path:
    path = folder / f"step_{number:06d}"
    write_folder(path, lambda f: fill(f, str(number)))
    return path


def test_a_written_folder_verifies_and_lists_every_file_with_hash_and_size(tmp_path):
    write_folder(tmp_path / "c", fill)
    assert verify_folder(tmp_path / "c") is None
    entries = json.loads((tmp_path / "c" / MANIFEST).read_text())["files"]
    assert set(entries) == {"state.json", "model/weights.bin", "empty"}
    assert entries["model/weights.bin"] == {"sha256": sha256(tmp_path / "c/model/weights.bin"), "bytes": 1024}
    assert entries["empty"]["sha256"] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert [p.name for p in tmp_path.iterdir()] == ["c"], "no other file is left"


def test_the_same_content_gives_the_same_bytes(tmp_path):
    write_folder(tmp_path / "a", fill)
    write_folder(tmp_path / "b", fill)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_files_are_readable_for_others_whatever_the_umask(tmp_path):
    old = os.umask(0o077)
    try:
        write_folder(tmp_path / "c", fill)
    finally:
        os.umask(old)
    assert {(tmp_path / "c" / name).stat().st_mode & 0o777 for name in ("state.json", "model/weights.bin")} == {0o644}


def test_a_failure_while_filling_leaves_the_old_folder_and_no_new_one(tmp_path):
    write_folder(tmp_path / "c", fill)
    before = tree(tmp_path / "c")

    def fail(folder):
        fill(folder, "two")
        raise KeyboardInterrupt

    for name in ("c", "new"):
        with pytest.raises(KeyboardInterrupt):
            write_folder(tmp_path / name, fail)
    assert tree(tmp_path / "c") == before and verify_folder(tmp_path / "c") is None
    assert not (tmp_path / "new").exists()


def test_a_folder_is_replaced_as_a_whole_and_what_a_killed_run_left_is_not_taken_over(tmp_path):
    write_folder(tmp_path / "c", fill)
    (tmp_path / ".c.partial").mkdir()
    (tmp_path / ".c.partial" / "stray").touch()
    write_folder(tmp_path / "c", lambda folder: (folder / "only").write_text("x"))
    assert set(tree(tmp_path / "c")) == {"only", MANIFEST} and [p.name for p in tmp_path.iterdir()] == ["c"]


def test_every_file_is_synced_before_the_folder_is_visible(tmp_path, monkeypatch):
    synced, rename = [], Path.rename

    def renamed(path, target):
        synced.append(("rename", Path(target).name))
        return rename(path, target)

    monkeypatch.setattr(checkpoint, "sync", lambda path: synced.append(("sync", path.name)))
    monkeypatch.setattr(Path, "rename", renamed)
    write_folder(tmp_path / "c", fill)
    at = synced.index(("rename", "c"))
    wanted = ["empty", "weights.bin", "state.json", MANIFEST, "model", ".c.partial"]
    assert sorted(name for _, name in synced[:at]) == sorted(wanted)
    assert synced[at + 1 :] == [("sync", tmp_path.name)]


@pytest.mark.parametrize("name", ["state.json", "model/weights.bin"])
def test_any_flipped_bit_lost_byte_or_extra_byte_is_seen(tmp_path, name):
    write_folder(tmp_path / "c", fill)
    file = tmp_path / "c" / name
    data = file.read_bytes()
    for place in (0, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert verify_folder(tmp_path / "c") == f"{name} is damaged"
    for other in (data[:-1], data + b"\0", b""):
        file.write_bytes(other)
        assert verify_folder(tmp_path / "c") == f"{name} is damaged"
    file.unlink()
    assert verify_folder(tmp_path / "c") == f"{name} is missing"
    file.mkdir()
    assert verify_folder(tmp_path / "c") == f"{name} is missing"


@pytest.mark.parametrize("text", ["", "{", "[]x", "[1]", '"text"', "null", '{"schema": 1, "files": {"state.json": 3}}',
                                  '{"schema": 1, "files": {"state.json": {}}}', '{"schema": 2, "files": {}}',
                                  '{"schema": 1, "files": {"state.json": {"bytes": 15}}}', '{"files": {}}', "\x00"])
def test_a_damaged_manifest_is_seen(tmp_path, text):
    write_folder(tmp_path / "c", fill)
    (tmp_path / "c" / MANIFEST).write_text(text)
    assert verify_folder(tmp_path / "c") is not None
    (tmp_path / "c" / MANIFEST).write_bytes(b"\xff\xfe")
    assert verify_folder(tmp_path / "c") == f"{MANIFEST} is missing or damaged"


def test_no_folder_is_not_a_whole_folder(tmp_path):
    (tmp_path / "file").touch()
    assert all(verify_folder(tmp_path / name) == f"{MANIFEST} is missing or damaged" for name in ("none", "file", "."))


def test_checkpoints_are_the_step_folders_in_order_and_nothing_else(tmp_path):
    for number in (100, 9, 25):
        step(tmp_path, number)
    for name in ("step_12", "step_000012.bak", ".step_000200.partial", ".step_000100.old", "step_abcdef"):
        (tmp_path / name).mkdir()
    (tmp_path / "step_000300").touch()
    assert [p.name for p in checkpoints(tmp_path)] == ["step_000009", "step_000025", "step_000100"]
    assert checkpoints(tmp_path / "none") == []


def test_latest_passes_over_damaged_ones_with_one_warning_each(tmp_path):
    paths = [step(tmp_path, number) for number in (1, 2, 3)]
    said = []
    assert latest(tmp_path, said.append) == paths[2] and said == []
    (paths[2] / "state.json").write_text("x")
    (paths[1] / MANIFEST).unlink()
    assert latest(tmp_path, said.append) == paths[0]
    assert said == [f"minifleming: warning: {paths[2]}: state.json is damaged; trying the one before",
                    f"minifleming: warning: {paths[1]}: {MANIFEST} is missing or damaged; trying the one before"]
    (paths[0] / "empty").unlink()
    assert latest(tmp_path, said.append) is None and latest(tmp_path / "none", said.append) is None


def test_prune_keeps_the_newest_and_the_named_ones(tmp_path):
    for number in range(1, 8):
        step(tmp_path, number)
    prune(tmp_path, 2, {1, 4})
    assert [int(p.name[5:]) for p in checkpoints(tmp_path)] == [1, 4, 6, 7]


def test_nothing_is_pruned_while_the_newest_is_damaged(tmp_path):
    for number in range(1, 5):
        step(tmp_path, number)
    (tmp_path / "step_000004" / "state.json").unlink()
    prune(tmp_path, 1, set())
    assert len(checkpoints(tmp_path)) == 4
    prune(tmp_path / "none", 1, set())


def test_text_is_replaced_in_one_step_and_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "t.txt"
    write_text(path, "one é\n")
    write_text(path, "two\r\n")
    assert path.read_bytes() == b"two\r\n" and [p.name for p in path.parent.iterdir()] == ["t.txt"]


def test_text_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "t.txt"
    write_text(path, "one")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud83e")
    assert path.read_text() == "one"


def test_a_place_where_no_file_can_stand_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path, reason in [(tmp_path, "is a folder"), (tmp_path / "file" / "x", "File exists|Not a directory"),
                         (tmp_path / ("n" * 300) / "x", "too long")]:
        with pytest.raises(BadInput, match=reason):
            ensure_writable(path)
        with pytest.raises(BadInput, match=reason):
            write_text(path, "x")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("data, reason", [
    (b"{", "not valid JSON"), (b"\xff", "not UTF-8 text"), (b"", "not valid JSON"),
    (b"[" * 100_000, "not valid JSON"), (None, "No such file"),
])
def test_a_json_file_or_one_clear_line(tmp_path, data, reason):
    path = tmp_path / "x.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(BadInput, match=rf"x\.json: {reason}"):
        read_json(path)


def test_a_journal_is_cut_to_what_a_resumed_run_will_not_write_again(tmp_path):
    journal = Journal(tmp_path)
    for number in range(6):
        journal.metric(step=number, loss={"mean": number / 2})
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"loss": {"mean": 3.0}')  # a killed run's last line, half written
    journal.truncate("metrics.jsonl", lambda record: record["step"] < 4)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines[0] == '{"loss": {"mean": 0.0}, "step": 0}'
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 3]
    journal.truncate("none.jsonl", lambda record: True)
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_wall_clock_figures_go_to_their_own_file(tmp_path):
    journal = Journal(tmp_path)
    with journal.timed("eval", split="heldout"):
        pass
    [record] = [json.loads(line) for line in (tmp_path / "timings.jsonl").read_text().splitlines()]
    assert record["what"] == "eval" and record["split"] == "heldout" and record["seconds"] >= 0
    assert not (tmp_path / "metrics.jsonl").exists()
