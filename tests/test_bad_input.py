"""Bad input to any command: status 2, one line on stderr, no traceback, and nothing that was there is touched."""

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

ROOT = Path(__file__).parents[1]
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


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A folder with good and bad files; it is the working directory, and it must look the same afterwards."""
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything(folder: Path) -> dict:
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def refused(main, argv: list[str], workplace: Path, capsys, reason: str) -> None:
    before = everything(workplace)
    assert run_cli(main, argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("minifleming: ") and "Traceback" not in lines[0]
    assert reason in lines[0]
    assert everything(workplace) == before


SYNTH = ["--n", "5", "--out", "precious.jsonl"]


@pytest.mark.parametrize("argv, reason", [
    (["--graph", "none.tsv"], "none.tsv: No such file"),
    (["--graph", "model"], "model: Is a directory"),
    (["--graph", ""], "directory"),
    (["--graph", "empty.tsv"], "empty.tsv:1: no column 'head' in the header"),
    (["--graph", "header.tsv"], "header.tsv: no triples"),
    (["--graph", "short.tsv"], "short.tsv:3: 2 columns where the header has 5"),
    (["--graph", "long.tsv"], "long.tsv:2: 6 columns where the header has 5"),
    (["--graph", "blank.tsv"], "blank.tsv:2: 1 columns"),
    (["--graph", "cell.tsv"], "cell.tsv:2: an empty cell"),
    (["--graph", "column.tsv"], "column.tsv:1: no column 'relation'"),
    (["--graph", "conflict.tsv"], "conflict.tsv:3: 'fever' is a Disease here and a Symptom above"),
    (["--graph", "latin.tsv"], "latin.tsv:2: not UTF-8 text"),
    (["--graph", "binary.tsv"], "binary.tsv:"),
    (["--graph", "bad\udcffname"], "must be Unicode text"),
    (["--n", "0"], "--n: must be positive"),
    (["--n", "-3"], "--n: must be positive"),
    (["--n", "many"], "--n: invalid int value: 'many'"),
    (["--n", "1.5"], "--n: invalid int value"),
    (["--n"], "--n: expected one argument"),
    (["--seed", "-1"], "run.seed: must be at least 0, not -1"),
    (["--hops", "0"], "data.hops: path lengths go from 1 to 6, not [0]"),
    (["--hops", "7"], "not [7]"),
    (["--hops", ""], "data.hops: path lengths go from 1 to 6, not []"),
    (["--hops", "one"], "data.hops: must be a list"),
    (["--hops", "1.5"], "data.hops: must be int"),
    (["--options", "1"], "data.options: must be at least 2, not 1"),
    (["--options", "27"], "data.options: must be at most 26, not 27"),
    (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    (["--opt", "4"], "unrecognized arguments: --opt 4"),
    (["stray"], "unrecognized arguments: stray"),
    (["--device", "tpu"], "--device: invalid choice: 'tpu'"),
    (["--out", "model"], "model: is a folder"),
    (["--out", "file/items.jsonl"], "file/items.jsonl: "),
    (["--out", ""], "is a folder"),
    (["--config", "none.toml"], "none.toml: No such file"),
    (["--config", "model"], "model: Is a directory"),
    (["--config", "unknown.toml"], "unknown.toml: unknown key 'run.sede'; did you mean 'run.seed'?"),
    (["--config", "section.toml"], "section.toml: unknown key 'runs.seed'; did you mean 'run.seed'?"),
    (["--config", "type.toml"], 'type.toml: run.seed: must be int, not "three"'),
    (["--config", "bound.toml"], "bound.toml: data.options: must be at least 2"),
    (["--config", "syntax.toml"], "syntax.toml: not valid TOML"),
    (["--config", "top.toml"], "top.toml: 'seed' must be a section"),
    (["--config", "latin.toml"], "latin.toml: not UTF-8 text"),
    (["--config", "nul.toml"], "nul.toml: data.graph: must be Unicode text without NUL"),
    (["--config", "deep.toml"], "deep.toml: not valid TOML"),
    (["--set", "run.sede=3"], "unknown key 'run.sede'; did you mean 'run.seed'?"),
    (["--set", "run.seed"], "--set: 'run.seed' is not section.field=value"),
    (["--set", "run.seed=three"], 'run.seed: must be int, not "three"'),
    (["--set", "run.seed=1.0"], "run.seed: must be int, not 1.0"),
    (["--set", "data.rarity=nan"], "data.rarity: must be finite"),
    (["--set", "data.findings=[4,2]"], "data.findings"),
    (["--set", "run.seed=" + "9" * 5000], "run.seed: must be int"),
    (["--dry-run", "--n", "0"], "--n: must be positive"),
    (["--set", "data.evidence=['has_smell']"], "data.evidence: the graph has none of has_smell; its relations are "),
    (["--qualifiers"], "data.qualifiers: only the English styles varied and vignette can tell them"),
    (["--qualifiers", "--style", "vignette", "--language", "zh"], "data.qualifiers: only the English styles"),
    (["--style", "poem"], "data.style"),
    (["--style", "varied", "--language", "zh"], "data.style: in Chinese there is one wording"),
    (["--language", "fr"], "data.language"),
    (["--two-targets", "1.5"], "data.two_targets: must be at most 1"),
    (["--language", "zh", "--names", "none.tsv"], "none.tsv: No such file"),
    (["--language", "zh", "--names", "empty.tsv"], "empty.tsv:1: no column 'name' in the header"),
    (["--language", "zh", "--names", "names.tsv"], "names.tsv:1: no column 'zh' in the header"),
    (["--language", "zh", "--names", "marks.tsv"], "marks.tsv:2: '发、热' is empty"),
    (["--language", "zh", "--names", "alike.tsv"], "alike.tsv:3: '热' is empty, stands there twice"),
    (["--language", "zh", "--names", "strange.tsv"], "strange.tsv: names no node of the graph"),
    (["--support-graph", "short.tsv"], "short.tsv:3: 2 columns where the header has 5"),
], ids=range(67))
def test_synth_kg(argv, reason, workplace, capsys):
    refused(synth_kg.main, SYNTH + argv, workplace, capsys, reason)


def test_synth_kg_without_a_place_to_write(workplace, capsys):
    refused(synth_kg.main, ["--n", "5"], workplace, capsys, "--out: the file to write is missing")


@pytest.mark.parametrize("argv, reason", [
    (["--resume", "none"], "none: no checkpoint; give a folder"),
    (["--resume", "file"], "file: no checkpoint; give a folder"),
    (["--resume", "model"], "model: no checkpoint; give a folder"),
    (["--resume", "state"], "state: no checkpoint; give a folder"),
    (["--resume", "never", "--set", "run.out=model"], "model: the run folder exists and --resume is never"),
    (["--resume"], "--resume: expected one argument"),
    (["--set", "model.base=none"], "none: no such model folder"),
    (["--set", "model.base=file"], "file: no such model folder"),
    (["--set", "model.base=model"], "model/tokenizer.json: no such file"),
    (["--set", "model.base=broken"], "broken/tokenizer.json: not a readable tokenizer"),
    (["--set", "rl.lrr=1"], "unknown key 'rl.lrr'; did you mean 'rl.lr'?"),
    (["--set", "stage1.mix=['hard']"], "stage1.mix: 'hard' is not one of"),
    (["--set", "rl.prompts_per_step=0"], "rl.prompts_per_step: must be at least 1, not 0"),
    (["--config", "none.toml"], "none.toml: No such file"),
    (["--config", "syntax.toml"], "syntax.toml: not valid TOML"),
    (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    (["--dry-run", "--device", "tpu"], "--device: invalid choice"),
    (["--dry-run", "--ranks", "0"], "--ranks: must be positive"),
    (["--dry-run", "--ranks", "8", "--set", "run.fsdp_size=3"], "run.fsdp_size: 8 ranks are no whole number of groups of 3"),
    (["--dry-run", "--set", "model.base=model"], "model/config.json: missing"),
], ids=range(20))
def test_train_grpo(argv, reason, workplace, capsys):
    refused(train_grpo.main, ["--set", "run.out=run", "--device", "cpu", *argv], workplace, capsys, reason)


@pytest.mark.parametrize("name", ITEM_FILES)
def test_a_broken_item_file(name, workplace, capsys):
    """Each command that reads items names the file, and the line where there is one."""
    content = ITEM_FILES[name]
    (workplace / "items.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    place = {"empty": "items.jsonl: no items", "the same id twice": "items.jsonl:2: id 'a' stands"}.get(
        name, "items.jsonl:1: ")
    refused(proof.main, ["--items", "items.jsonl"], workplace, capsys, place)
    refused(teacher.main, ["--items", "items.jsonl", "--out", "precious.jsonl"], workplace, capsys, place)


@pytest.mark.parametrize("main, argv, reason", [
    (proof.main, [], "--items"),
    (proof.main, ["--items", "none.jsonl"], "none.jsonl: No such file"),
    (proof.main, ["--items", "model"], "model: Is a directory"),
    (proof.main, ["--items", "good.jsonl", "--graph", "short.tsv"], "short.tsv:3: "),
    (teacher.main, ["--items", "none.jsonl", "--out", "precious.jsonl"], "none.jsonl: No such file"),
    (teacher.main, ["--items", "good.jsonl", "--out", "x"], "good.jsonl: no item has a path"),
    (teacher.main, ["--items", "good.jsonl", "--out", "x", "--teacher", "gpt"], "--teacher: 'gpt' is not a teacher"),
    (teacher.main, ["--items", "good.jsonl", "--out", "x", "--detour-fraction", "2"], "--detour-fraction: must lie between 0 and 1"),
    (teacher.main, ["--items", "good.jsonl", "--out", "precious.jsonl"], "precious.jsonl: exists already"),
    (teacher.main, ["--items", "good.jsonl"], "--out"),
], ids=range(10))
def test_check_and_teacher(main, argv, reason, workplace, capsys):
    refused(main, argv, workplace, capsys, reason)


def test_a_place_where_traces_cannot_be_written(workplace, capsys):
    assert run_cli(synth_kg.main, ["--n", "4", "--out", "some.jsonl"]) == 0
    capsys.readouterr()
    refused(teacher.main, ["--items", "some.jsonl", "--out", "model"], workplace, capsys, "model: is a folder")


def test_a_run_that_fails_keeps_what_was_there_too(workplace, capsys):
    """A graph of one disease gives no item: status 1 and the count, and the old file stands."""
    before = everything(workplace)
    assert run_cli(synth_kg.main, [*SYNTH, "--graph", "good.tsv"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("minifleming: the graph gave 0 different items of the 5 asked for; 0 of 1 hops, ")
    assert everything(workplace) == before


@pytest.mark.parametrize("argv", [
    ["synth_kg.py", "--graph", "short.tsv", *SYNTH],
    ["synth_kg.py", "--frobnicate"],
    ["train_grpo.py", "--set", "run.out=run", "--set", "model.base=none"],
], ids=["graph", "flag", "model"])
def test_as_a_process(argv, workplace):
    before = everything(workplace)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run([sys.executable, ROOT / argv[0], *argv[1:]], capture_output=True, text=True, timeout=120,
                          env=environment)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("minifleming: ") and done.stderr.count("\n") == 1 and done.stderr.endswith("\n")
    assert everything(workplace) == before
