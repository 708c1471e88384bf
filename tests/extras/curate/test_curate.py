"""Tests for the curation command: the funnel, its files, equal bytes, and bad input."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bank import bank, item
from planting import plant

from minifleming.extras.curate.__main__ import main
from minifleming.extras.curate.data_card import cell
from minifleming.extras.curate.steps import curate
from minifleming.rods.item import read_items, write_items
from minifleming.run.errors import BadInput, RunFailed, run_cli

ENDS = ("", ".dropped.jsonl", ".quarantine.jsonl", ".card.md")
ERRORS = json.loads((Path(__file__).parents[2] / "data" / "curate_errors.json").read_text("utf-8"))
BROKEN = [item("dirty", "The patientâ€™s fever is high?"),
          item("double", options=("Iron", "iron", "Tin")),
          item("claim"), item("counterclaim", answer="B"),
          item("person", "Mr. Smith, what is a mineral?", ("Tin", "Gum"))]
SETS = ["a=a.jsonl", "b=b.jsonl", "--decontaminate", "bench=bench.jsonl", "--votes", "votes.jsonl"]


def completions(items, verdicts) -> str:
    """Returns the lines of a votes file; ``verdicts``: for each item, whether each sample is right."""
    lines = []
    for one, rights in zip(items, verdicts):
        wrong = next(label for label in one.options if label != one.answer)
        for sample, right in enumerate(rights):
            letter = one.answer if right else wrong
            text = f"<think>so</think><answer>{letter}</answer><|im_end|>"
            record = {"id": one.id, "sample": sample, "finish_reason": "stop", "text": text}
            lines.append(json.dumps(record) + "\n")
    return "".join(lines)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pool = bank(150, 1, "pool")
    write_items("a.jsonl", [*pool, *BROKEN])
    write_items("b.jsonl", [*plant(bank(20, 2, "bench"), 1), *bank(30, 3, "pool")])
    write_items("bench.jsonl", bank(80, 2, "bench"))
    verdicts = [[i % 4 > 0] * 3 + [i % 3 > 1] * 2 for i in range(40)]
    Path("votes.jsonl").write_text(completions(pool[:40], verdicts))
    return tmp_path


def run(*argv) -> int:
    return run_cli(main, [*SETS, "--out", "out/F.jsonl", *argv])


def read(name) -> list[dict]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def card_of(name="out/F.jsonl") -> str:
    return Path(name + ".card.md").read_text(encoding="utf-8")


def test_the_whole_funnel(folder, capsys):
    assert run() == 0
    items = read_items("out/F.jsonl")
    dropped, quarantine = read("out/F.jsonl.dropped.jsonl"), read("out/F.jsonl.quarantine.jsonl")
    assert len(items) + len(dropped) + len(quarantine) == 155 + 50
    said = capsys.readouterr().out
    assert "votes.jsonl: votes on 40 of 205 items" in said and "of 205 items in out" in said
    why = {d["item"]["id"]: (d["step"], d["reason"]) for d in dropped + quarantine}
    assert why["dirty"] == ("format", "mojibake")
    assert why["double"] == ("format", "duplicate options")
    assert why["claim"] == why["counterclaim"] == ("duplicates", "label conflict")
    assert all(why[f"planted-{i}"] == ("contamination", "in bench") for i in range(20))
    assert {d["step"] for d in quarantine} == {"duplicates", "labels"}
    assert all(d["evidence"] for d in quarantine)
    doubted = {d["item"]["id"] for d in quarantine if d["step"] == "labels"}
    failed = {f"pool-{i}" for i in range(40) if i % 4 == 0 and i % 3 <= 1}
    assert doubted == failed - set(why.keys() - doubted)
    person = next(i for i in items if i.id == "person")
    assert person.question == "Mr. [NAME], what is a mineral?" and person.source == "a"
    assert [e["step"] for e in person.provenance["lineage"]] == [
        "read", "anonymise", "format", "duplicates", "contamination", "labels", "tiers"]
    assert next(i for i in items if i.id == "pool-11").tier == "easy"
    order = [i.id for i in items]
    pools = [f"pool-{i}" for i in range(150)]
    expected = [*pools, "person", *(f"pool-{i}~2" for i in range(30))]
    assert order == sorted(order, key=expected.index)


def test_equal_bytes_for_any_hash_seed(folder):
    found = []
    for seed in ("0", "1"):
        out = f"w{seed}/F.jsonl"
        environment = {**os.environ, "PYTHONHASHSEED": seed,
                       "PYTHONPATH": str(Path(__file__).parents[3])}
        command = [sys.executable, "-m", "minifleming.rods.curate", *SETS, "--out", out,
                   "--mix", "a=2,b=1"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0 and not done.stderr, done.stderr
        found.append([Path(out + end).read_bytes() for end in ENDS])
    assert found[0] == found[1]


def test_the_card(folder):
    assert run("--seed", "7") == 0
    card = card_of()
    for part in ("not for clinical use", "as upstream", "| a | a.jsonl |", "| bench | bench.jsonl |",
                 "| seed | 7 |", "label conflict: 2", "NAME 1", "| en | "):
        assert part in card, part
    for secret in (str(folder), "scurvy", "notices", "patient"):
        assert secret not in card
    funnel = card.split("## Funnel")[1].split("##")[0].splitlines()
    rows = [line.split(" | ") for line in funnel if line.startswith("| ") and "---" not in line][1:]
    rows = [row for row in rows if "left out" not in row[-1]]
    quarantined = 0
    for row in rows:
        came, dropped, held, out = map(int, row[1:5])
        assert came == dropped + held + out
        quarantined += held
    assert quarantined == len(read("out/F.jsonl.quarantine.jsonl"))
    assert len(rows) == 6
    assert [int(row[1]) for row in rows[1:]] == [int(row[4]) for row in rows[:-1]]


def test_the_card_lists_the_steps_that_were_left_out(folder):
    assert run_cli(main, ["a=a.jsonl", "--out", "F.jsonl"]) == 0
    card = card_of("F.jsonl")
    for step, reason in (("contamination", "no benchmark was given"),
                         ("labels", "no votes were given"),
                         ("blend", "no ratio and no size were given")):
        assert f"| {step} |  |  |  |  | left out: {reason} |" in card
    assert run("--mix", "a=1,b=1") == 0
    assert "left out" not in card_of() and "| blend | " in card_of()


def test_cells_cannot_break_a_table():
    assert cell("a|b\n<i>`x` & y") == "a\\|b &lt;i&gt;'x' &amp; y"


def test_curating_the_output_again_changes_no_question_and_drops_nothing(folder):
    assert run() == 0
    first = read_items("out/F.jsonl")
    assert run_cli(main, ["again=out/F.jsonl", "--decontaminate", "bench=bench.jsonl",
                          "--out", "two.jsonl"]) == 0
    second = read_items("two.jsonl")
    for one, two in zip(first, second, strict=True):
        assert (one.id, one.question, one.options, one.answer, one.tier) == (
            two.id, two.question, two.options, two.answer, two.tier)
    assert Path("two.jsonl.dropped.jsonl").read_text() == ""


def test_the_blend_has_the_requested_size_and_reports_a_deficit(folder, capsys):
    assert run("--mix", "a=1,b=1", "--n", "100") == 0
    assert "the blend is short of" in capsys.readouterr().out
    assert "| a | 50 |" in card_of()
    assert run("--mix", "a=1,b=1") == 0
    sources = [i.source for i in read_items("out/F.jsonl")]
    assert abs(sources.count("a") - sources.count("b")) <= 1


def test_repeated_ids_get_a_suffix_and_sources_are_kept(folder):
    for name, id, source in (("x", "same", "graph"), ("y", "same~2", ""), ("z", "same", "")):
        question = f"What does the letter {name} stand for here?"
        write_items(f"{name}.jsonl", [item(id, question, source=source)])
    assert run_cli(main, ["x=x.jsonl", "y=y.jsonl", "z=z.jsonl", "--out", "F.jsonl"]) == 0
    items = read_items("F.jsonl")
    assert [(i.id, i.source) for i in items] == [("same", "graph"), ("same~2", "y"), ("same~3", "z")]
    assert items[2].provenance["lineage"][0] == {"step": "read", "set": "z", "was": "same"}


def test_benchmarks_are_anonymised_like_the_items():
    question = ("Mr. Alexander Montgomery and Mrs. Wilhelmina Featherstone call "
                "Dr. Bartholomew Cunningham: why?")
    one = item("x", question, ("yes", "no"))
    left = curate([one], against=[("b", [one, *bank(40)])]).left
    assert [dropped.step for dropped in left] == ["contamination"]


def test_curate_changes_no_input():
    items, bench = [*bank(30), *BROKEN], bank(30, 5)
    before = copy.deepcopy((items, bench))
    curated = curate([*items], against=[("bench", bench)], votes={"bank-0": list("AAAAA")})
    assert (items, bench) == before
    assert len(curated.items) + len(curated.left) == len(items)


def test_bad_input_is_one_line_and_nothing_is_overwritten(folder, capsys):
    write_items("poison.jsonl", [item("a", provenance={"lineage": "x"})])
    write_items("poison2.jsonl", [item("a", provenance={"tiers": {"votes": "hard"}})])
    Path("public.jsonl").write_text('{"question": "Why?", "options": {"A": "so"}, "answer": "so"}\n')
    Path("othervotes.jsonl").write_text(completions([item("zz")], [[True]]))
    Path("F.jsonl").write_text("precious\n")
    Path("F.card.md").write_text("precious\n")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    wrong = []
    for argv, reason in ERRORS:
        status = run_cli(main, ["--out", "F.jsonl", *argv])
        error = capsys.readouterr().err
        one_line = error.count("\n") == 1 and error.startswith("minifleming: ")
        if status != 2 or not one_line or reason not in error:
            wrong.append((argv, status, error))
    assert not wrong
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_no_item_left_and_an_unknown_class_are_refused(folder):
    with pytest.raises(RunFailed, match="no item of 80 is left"):
        main(["a=bench.jsonl", "--decontaminate", "bench=bench.jsonl", "--out", "F.jsonl"])
    for flag, name in (("--tiers", "easy"), ("--tiers", "hard"), ("--mix", "zz")):
        with pytest.raises(BadInput, match=f"no item has the .* '{name}'"):
            main(["a=a.jsonl", flag, f"{name}=1", "--out", "F.jsonl"])
    assert not Path("F.jsonl").exists()
