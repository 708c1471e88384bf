"""The shipped base belongs to this code; the command that trains it: what it writes, and what it refuses."""

from __future__ import annotations

import pytest

from minifleming.extras.tiny_base.base import build_tokenizer, main, more_names
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model, model_folder
from minifleming.rods.readers import load_graph
from minifleming.run.checkpoint import verify_folder
from minifleming.run.errors import BadInput


def test_the_shipped_base_is_whole_and_its_tokenizer_is_the_one_that_this_graph_gives(tmp_path):
    """A graph or a template edited without training the base again is seen here."""
    shipped = model_folder("tiny")
    assert verify_folder(shipped) is None
    build_tokenizer(load_graph("embedded"), tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (shipped / name).read_bytes()
    assert load_model(shipped, "float32", "cpu").config.vocab_size == Tokenizer(tmp_path).backend.get_vocab_size()


def test_it_writes_one_folder_that_loads_and_nothing_else(tmp_path, capsys):
    out = tmp_path / "base"
    assert main(["--out", str(out), "--steps", "2", "--rows", "4", "--width", "16", "--layers", "1"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["base"] and verify_folder(out) is None
    assert load_model(out, "float32", "cpu").config.hidden_size == 16 and Tokenizer(out).end_ids
    assert "sha256" in capsys.readouterr().out
    with pytest.raises(BadInput, match="nothing is overwritten"):
        main(["--out", str(out)])


@pytest.mark.parametrize("flag, value", [("--steps", "0"), ("--rows", "-1"), ("--layers", "0"), ("--width", "12")])
def test_bad_numbers_are_refused_before_anything_is_made(flag, value, tmp_path):
    with pytest.raises(BadInput, match=flag):
        main(["--out", str(tmp_path / "base"), flag, value])
    assert not list(tmp_path.iterdir())


def test_names_double_every_150_steps_and_start_over_while_look_ups_are_not_learned():
    known = 16.0
    for _ in range(300):
        known = more_names(known, 0.1)
    assert known == pytest.approx(64)
    assert more_names(65.0, 1.2) == 16 and more_names(60.0, 1.2) > 60 and more_names(65.0, 0.9) > 65
