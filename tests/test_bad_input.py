"""Tests for bad input to any command: status 2, one line on stderr, no traceback, existing files unchanged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import synth_kg
import train_grpo
from minifleming.cold_start import teacher
from minifleming.rods import proof
from minifleming.run.errors import run_cli
from tests.refusals import Refusals, snapshot

ROOT = Path(__file__).parents[1]
COMMANDS = {"synth_kg": synth_kg.main, "train_grpo": train_grpo.main, "check": proof.main, "teacher": teacher.main}
HEADER = "head\thead_type\trelation\ttail\ttail_type\n"
ROW = "flu\tDisease\thas_symptom\tfever\tSymptom\n"
ITEM = {"id": "a", "question": "Which?", "options": {"A": "x", "B": "y"}, "answer": "A"}
FILES = {
    "precious.jsonl": "written by an earlier run\n",
    "file": "no folder\n",
    "good.tsv": HEADER + ROW,
    "empty.tsv": "",
    "header.tsv": HEADER,
    "short.tsv": HEADER + ROW + "flu\tDisease\n",
    "long.tsv": HEADER + ROW.replace("\n", "\tx\n"),
    "blank.tsv": HEADER + "\n" + ROW,
    "cell.tsv": HEADER + ROW.replace("fever", ""),
    "column.tsv": HEADER.replace("relation", "verb") + ROW,
    "conflict.tsv": HEADER + ROW + "fever\tDisease\thas_symptom\tcough\tSymptom\n",
    "latin.tsv": HEADER.encode() + b"fi\xe8vre\tDisease\thas_symptom\tfever\tSymptom\n",
    "binary.tsv": bytes(range(256)),
    "unknown.toml": "[run]\nsede = 3\n",
    "section.toml": "[runs]\nseed = 3\n",
    "type.toml": '[run]\nseed = "three"\n',
    "bound.toml": "[data]\noptions = 1\n",
    "syntax.toml": "[run\nseed = 3\n",
    "top.toml": "seed = 3\n",
    "latin.toml": b"[run]\nout = '\xe9'\n",
    "nul.toml": '[data]\ngraph = "a\\u0000b"\n',
    "deep.toml": "[data]\nhops = " + "[" * 5000,
    "names.tsv": "name\tword\nfever\t热\n",
    "marks.tsv": "name\tzh\nfever\t发、热\n",
    "alike.tsv": "name\tzh\nfever\t热\ncough\t热\n",
    "strange.tsv": "name\tzh\nno such node\t热\n",
    "good.jsonl": json.dumps(ITEM) + "\n",
    "model/config.json": "{}",
    "broken/tokenizer.json": "{",
    "state/files.json": "{}",
}
ITEM_FILES = {
    "empty": "",
    "no JSON": "{'id': 'a'}\n",
    "cut off": json.dumps(ITEM)[:-20],
    "a list": "[1]\n",
    "no UTF-8": b'{"id": "\xff"}\n',
    "a lone surrogate": json.dumps(ITEM | {"question": "\ud83e"}),
    "nested too deep": "[" * 100_000,
    "no answer": json.dumps({k: v for k, v in ITEM.items() if k != "answer"}),
    "an unknown field": json.dumps(ITEM | {"colour": "red"}),
    "the same id twice": (json.dumps(ITEM) + "\n") * 2,
    "one option": json.dumps(ITEM | {"options": {"A": "x"}}),
    "labels out of order": json.dumps(ITEM | {"options": {"B": "x", "A": "y"}}),
    "an answer that is no label": json.dumps(ITEM | {"answer": "x"}),
    "a number for a text": json.dumps(ITEM | {"question": 3}),
    "a path of pairs": json.dumps(ITEM | {"path": [["a", "b"]]}),
    "a broken provenance": json.dumps(ITEM | {"provenance": {"hidden": 3}}),
}



SYNTH = ["--n", "5", "--out", "precious.jsonl"]


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A folder with good and bad files; it is the working directory."""
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_bad_argument_and_file_is_refused(workplace, capsys):
    """The cases of tests/data/bad_input.json: graphs, flags, recipes, checkpoints, model folders."""
    refusals = Refusals(workplace, capsys)
    for case in json.loads((ROOT / "tests" / "data" / "bad_input.json").read_text()):
        refusals.check(" ".join(case["argv"]), COMMANDS[case["command"]], case["argv"], case["reason"])
    refusals.report(least=95)


def test_every_broken_item_file_is_refused_with_its_line(workplace, capsys):
    refusals = Refusals(workplace, capsys)
    places = {"empty": "items.jsonl: no items", "the same id twice": "items.jsonl:2: id 'a' "}
    for name, content in ITEM_FILES.items():
        (workplace / "items.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
        place = places.get(name, "items.jsonl:1: ")
        refusals.check(f"check: {name}", proof.main, ["--items", "items.jsonl"], place)
        argv = ["--items", "items.jsonl", "--out", "precious.jsonl"]
        refusals.check(f"teacher: {name}", teacher.main, argv, place)
    refusals.report(least=32)


def test_a_place_where_traces_cannot_be_written(workplace, capsys):
    assert run_cli(synth_kg.main, ["--n", "4", "--out", "some.jsonl"]) == 0
    refusals = Refusals(workplace, capsys)
    refusals.check("", teacher.main, ["--items", "some.jsonl", "--out", "model"], "model: is a folder")
    refusals.report()


def test_a_run_that_fails_keeps_existing_files(workplace, capsys):
    """A graph of one disease gives no item: status 1 and the count, and the old file is unchanged."""
    before = snapshot(workplace)
    assert run_cli(synth_kg.main, [*SYNTH, "--graph", "good.tsv"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("minifleming: the graph gave 0 different items of the 5 asked for; 0 of 1 hops, ")
    assert snapshot(workplace) == before


@pytest.mark.slow
def test_as_a_process(workplace):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    for argv in (["synth_kg.py", "--graph", "short.tsv", *SYNTH], ["synth_kg.py", "--frobnicate"],
                 ["train_grpo.py", "--set", "run.out=run", "--set", "model.base=none"]):
        before = snapshot(workplace)
        done = subprocess.run([sys.executable, ROOT / argv[0], *argv[1:]], capture_output=True, text=True,
                              timeout=120, env=environment)
        assert done.returncode == 2 and done.stdout == "", argv
        assert done.stderr.startswith("minifleming: ") and done.stderr.count("\n") == 1 and done.stderr.endswith("\n")
        assert snapshot(workplace) == before
