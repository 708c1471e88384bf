"""The command: the funnel, the files beside the output, the same bytes for any number of workers, bad input."""

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bank import bank, item
from planting import plant

from minifleming.extras.curate.__main__ import main
from minifleming.extras.curate.data_card import cell, chi_square_tail, uneven
from minifleming.extras.curate.step import each
from minifleming.extras.curate.steps import Settings, curate
from minifleming.rods.item import read_items, write_items
from minifleming.run.errors import BadInput, RunFailed, run_cli

ENDS = ("", ".dropped.jsonl", ".quarantine.jsonl", ".card.md")
BROKEN = [item("dirty", "The patientâ€™s fever is high?"), item("double", options=("Iron", "iron", "Tin")),
          item("claim"), item("counterclaim", answer="B"),
          item("person", "Mr. Smith, what is a mineral?", ("Tin", "Gum"))]


def votes(items, letters) -> str:
    return "".join(json.dumps({"id": i.id, "sample": s, "finish_reason": "stop", "text":
                               f"<think>so</think><answer>{i.answer if right else wrong(i)}</answer><|im_end|>"}) + "\n"
                   for i, rights in zip(items, letters) for s, right in enumerate(rights))


def wrong(one) -> str:
    return next(label for label in one.options if label != one.answer)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pool = bank(150, 1, "pool")
    write_items("a.jsonl", [*pool, *BROKEN])
    write_items("b.jsonl", [*plant(bank(20, 2, "bench"), 1), *bank(30, 3, "pool")])
    write_items("bench.jsonl", bank(80, 2, "bench"))
    Path("votes.jsonl").write_text(votes(pool[:40], [[i % 4 > 0] * 3 + [i % 3 > 1] * 2 for i in range(40)]))
    Path("tiers.jsonl").write_text("".join(json.dumps({"id": i.id, "tiers": ["easy", "easy", "difficult"]}) + "\n"
                                           for i in pool[:30]))
    return tmp_path


ALL = ["a=a.jsonl", "b=b.jsonl", "--decontaminate", "bench=bench.jsonl", "--votes", "votes.jsonl",
       "--tier-votes", "tiers.jsonl"]


def run(*argv) -> int:
    return run_cli(main, [*ALL, "--out", "out/F.jsonl", *argv])


def read(name="out/F.jsonl") -> list[dict]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def test_the_whole_funnel(folder, capsys):
    assert run() == 0
    items, dropped = read_items("out/F.jsonl"), read("out/F.jsonl.dropped.jsonl")
    quarantine = read("out/F.jsonl.quarantine.jsonl")
    assert len(items) + len(dropped) + len(quarantine) == 155 + 50
    said = capsys.readouterr().out
    assert "votes.jsonl: votes on 40 of 205 items (19.5%)" in said and "of 205 items in out" in said
    assert "tiers.jsonl: votes on 30 of 205 items (14.6%)" in said
    why = {d["item"]["id"]: (d["step"], d["reason"]) for d in dropped + quarantine}
    assert why["dirty"] == ("format", "mojibake") and why["double"] == ("format", "duplicate options")
    assert why["claim"] == why["counterclaim"] == ("duplicates", "label conflict")
    assert all(why[f"planted-{i}"] == ("contamination", "in bench") for i in range(20))
    assert {d["step"] for d in quarantine} == {"duplicates", "labels"} and all(d["evidence"] for d in quarantine)
    doubted = {d["item"]["id"] for d in quarantine if d["step"] == "labels"}
    assert doubted == {f"pool-{i}" for i in range(40) if i % 4 == 0 and i % 3 <= 1} - set(why.keys() - doubted)
    person = next(i for i in items if i.id == "person")
    assert person.question == "Mr. [NAME], what is a mineral?" and person.source == "a"
    assert [e["step"] for e in person.provenance["lineage"]] == ["read", "anonymise", "format", "duplicates",
                                                                 "contamination", "labels", "tiers"]
    assert next(i for i in items if i.id == "pool-1").tier == "easy"
    card = Path("out/F.jsonl.card.md").read_text(encoding="utf-8")
    held = [line.split(" | ") for line in card.splitlines() if line.startswith(("| duplicates |", "| labels |"))]
    assert sum(int(row[3]) for row in held) == len(quarantine)
    order = [i.id for i in items]
    assert order == sorted(order, key=[*(f"pool-{i}" for i in range(150)), "person",
                                       *(f"pool-{i}~2" for i in range(30))].index)


def test_the_same_bytes_for_any_number_of_workers_and_hash_seed(folder):
    found = []
    for workers, seed in (("1", "0"), ("2", "1"), ("3", "2")):
        out = f"w{workers}/F.jsonl"
        done = subprocess.run([sys.executable, "-m", "minifleming.rods.curate", *ALL, "--out", out, "--workers",
                               workers, "--mix", "a=2,b=1", "--examples", "2"], capture_output=True, text=True,
                              env={**os.environ, "PYTHONHASHSEED": seed,
                                   "PYTHONPATH": str(Path(__file__).parents[3])})
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        found.append({end: Path(out + end).read_bytes() for end in ENDS if Path(out + end).exists()})
    assert found[0] == found[1] == found[2] and set(ENDS) <= set(found[0])


def test_a_slow_worker_changes_no_order_and_a_fault_in_one_is_not_lost():
    def slow(one):
        time.sleep(0.3 if one.id == "bank-0" else 0)
        return one

    def broken(one):
        raise BadInput("planted")

    assert [i.id for i in each(slow, bank(300), 2)] == [f"bank-{i}" for i in range(300)]
    with pytest.raises(BadInput, match="planted"):
        each(broken, bank(300), 2)


def test_the_card(folder):
    assert run("--seed", "7") == 0
    card = Path("out/F.jsonl.card.md").read_text(encoding="utf-8")
    for part in ("not for clinical use", "as upstream", "| a | a.jsonl |", "| bench | bench.jsonl |", "| seed | 7 |",
                 "label conflict: 2", "Cohen's kappa", "| votes | pass rate | ", "NAME 1", "| en | "):
        assert part in card, part
    for secret in (str(folder), "scurvy", "notices", "patient", "workers"):
        assert secret not in card
    steps = tuple(f"| {name} |" for name in ("anonymise", "format", "duplicates", "contamination", "labels", "tiers"))
    funnel = [line.split(" | ") for line in card.splitlines() if line.startswith(steps)]
    for row in funnel:
        came, dropped, quarantined, out = map(int, row[1:5])
        assert came == dropped + quarantined + out
    assert [int(r[1]) for r in funnel[1:]] == [int(r[4]) for r in funnel[:-1]] and len(funnel) == 6
    assert run("--examples", "1") == 0
    shown = Path("out/F.jsonl.card.md").read_text(encoding="utf-8").split("## Examples")[1].split("## Arguments")[0]
    assert "planted-0" in shown and "planted-1 " not in shown
    assert all(len(line.split(" | ")[-1]) <= 122 for line in shown.splitlines())


def test_the_card_says_which_steps_were_left_out(folder):
    assert run_cli(main, ["a=a.jsonl", "--out", "F.jsonl"]) == 0
    card = Path("F.jsonl.card.md").read_text(encoding="utf-8").split("## Funnel")[1].split("##")[0]
    for step, reason in (("contamination", "no benchmark was given"), ("labels", "no votes were given"),
                         ("blend", "no ratio and no size were given")):
        assert f"| {step} |  |  |  |  | left out: {reason} |" in card
    assert run("--mix", "a=1,b=1") == 0
    card = Path("out/F.jsonl.card.md").read_text(encoding="utf-8")
    assert card.count("left out") == 0 and "| blend | " in card


def test_answers_far_from_even_are_told():
    def items(*counts):
        return [item(f"{label}{i}", answer=label) for label, n in zip("ABCD", counts) for i in range(n)]

    [line] = uneven(items(328, 262, 225, 185))
    assert line == ("The answers of items with 4 options are far from even: A 32.8%, D 18.5%, even is 25.0% "
                    "(chi-square 44.3, p < 0.001).")
    assert uneven(items(26, 24, 25, 25)) == [] == uneven(items(33, 26, 22, 19))
    assert uneven(items(9, 0, 0, 0)) == []  # too few to say
    assert uneven([item(f"{i}", options=("yes", "no"), answer="AB"[i % 2]) for i in range(99)]) == []
    two = [item(f"{i}", options=("yes", "no"), answer="A") for i in range(99)]
    assert uneven([*items(25, 25, 25, 25), *two])[0].startswith("The answers of items with 2 options")


@pytest.mark.parametrize("value, degrees, tail", [  # critical values of the printed tables
    (10.828, 1, 0.001), (13.816, 2, 0.001), (16.266, 3, 0.001), (18.467, 4, 0.001), (7.815, 3, 0.05),
    (18.307, 10, 0.05)])
def test_the_tail_of_chi_square(value, degrees, tail):
    assert chi_square_tail(value, degrees) == pytest.approx(tail, rel=1e-3) and chi_square_tail(0, degrees) == 1


def test_cells_cannot_break_a_table():
    assert cell("a|b\n<i>`x` & y") == "a\\|b &lt;i>'x' &amp; y"


def test_curating_the_output_again_changes_no_question_and_drops_nothing(folder):
    assert run() == 0
    first = read_items("out/F.jsonl")
    assert run_cli(main, ["again=out/F.jsonl", "--decontaminate", "bench=bench.jsonl", "--out", "two.jsonl"]) == 0
    second = read_items("two.jsonl")
    assert [(i.id, i.question, i.options, i.answer, i.tier) for i in first] == [
        (i.id, i.question, i.options, i.answer, i.tier) for i in second]
    assert Path("two.jsonl.dropped.jsonl").read_text() == ""


def test_the_blend_is_of_the_asked_size_and_says_what_is_short(folder, capsys):
    assert run("--mix", "a=1,b=1", "--n", "100") == 0
    assert "the blend is short of" in capsys.readouterr().out
    assert "| a | 50 |" in Path("out/F.jsonl.card.md").read_text(encoding="utf-8")
    assert run("--mix", "a=1,b=1") == 0
    sources = [i.source for i in read_items("out/F.jsonl")]
    assert abs(sources.count("a") - sources.count("b")) <= 1


def test_ids_that_come_again_are_told_apart_and_sources_of_their_own_stay(folder):
    for name, id, source in (("x", "same", "graph"), ("y", "same~2", ""), ("z", "same", "")):
        write_items(f"{name}.jsonl", [item(id, f"What does the letter {name} stand for here?", source=source)])
    assert run_cli(main, ["x=x.jsonl", "y=y.jsonl", "z=z.jsonl", "--out", "F.jsonl"]) == 0
    items = read_items("F.jsonl")
    assert [(i.id, i.source) for i in items] == [("same", "graph"), ("same~2", "y"), ("same~3", "z")]
    assert items[2].provenance["lineage"][0] == {"step": "read", "set": "z", "was": "same"}


def test_benchmarks_are_anonymised_as_the_items_are():
    one = item("x", "Mr. Alexander Montgomery and Mrs. Wilhelmina Featherstone call Dr. Bartholomew Cunningham: why?",
               ("yes", "no"))
    assert [d.step for d in curate([one], Settings(), against=[("b", [one, *bank(40)])]).left] == ["contamination"]


def test_curate_changes_no_input():
    items, bench = [*bank(30), *BROKEN], bank(30, 5)
    before = copy.deepcopy((items, bench))
    curated = curate([*items], Settings(), against=[("bench", bench)], votes={"bank-0": list("AAAAA")})
    assert (items, bench) == before and len(curated.items) + len(curated.left) == len(items)


@pytest.mark.parametrize("argv, reason", [
    (["a"], "'a' must be NAME=PATH"), (["=a.jsonl"], "must be NAME=PATH"), (["a=missing.jsonl"], "missing.jsonl"),
    (["a=a.jsonl", "--decontaminate", "x"], "'x' must be"), (["a=a.jsonl", "--near", "2"], "--near"),
    (["a=a.jsonl", "--near", "0"], "--near"), (["a=a.jsonl", "--near", "nan"], "--near"),
    (["a=a.jsonl", "--covered", "1.5"], "--covered"), (["a=a.jsonl", "--nats", "nan"], "--nats"),
    (["a=a.jsonl", "--workers", "0"], "--workers"), (["a=a.jsonl", "--n", "0"], "--n"),
    (["a=a.jsonl", "--mix", "a"], "--mix"),
    (["a=a.jsonl", "--mix", "a=1,a=2"], "--mix"), (["a=a.jsonl", "--mix", "zz=1"], "no item is of source 'zz'"),
    (["a=a.jsonl", "--mix", "a=0"], "every ratio is 0"), (["a=a.jsonl", "--tiers", "hard=1"], "not one of easy"),
    (["a=a.jsonl", "--easy", "0.2"], "--difficult"), (["a=a.jsonl", "--least", "6"], "--least"),
    (["a=a.jsonl", "--votes", "a.jsonl"], "a.jsonl:1: no completion"),
    (["a=a.jsonl", "--tier-votes", "a.jsonl"], "a.jsonl:1"),
    (["a=a.jsonl", "--votes", "othervotes.jsonl"], "othervotes.jsonl: no vote is on any of the 155 items"),
    (["a=a.jsonl", "--tier-votes", "othertiers.jsonl"], "no line is on any of the 155 items; the first is on 'zz'"),
    (["medqq=public.jsonl"], "public.jsonl:1: missing 'id'"),
    (["medqq=public.jsonl"], "; no public set is called 'medqq': did you mean 'medqa'?"),
    (["a=a.jsonl", "--decontaminate", "MedMCQ=public.jsonl"], "did you mean 'medmcqa'?"),
    (["a=poison.jsonl"], "lineage"), (["a=poison2.jsonl"], "tiers"), (["medqa=a.jsonl"], "a.jsonl"), ([], "required"),
    (["a=a.jsonl", "--seed", "x"], "--seed"), (["a=a.jsonl", "--unknown"], "unrecognized"),
])
def test_bad_input_is_one_line_and_nothing_is_overwritten(folder, capsys, argv, reason):
    write_items("poison.jsonl", [item("a", provenance={"lineage": "x"})])
    write_items("poison2.jsonl", [item("a", provenance={"tiers": {"votes": "hard"}})])
    Path("public.jsonl").write_text('{"question": "Why?", "options": {"A": "so", "B": "no"}, "answer": "so"}\n')
    Path("othervotes.jsonl").write_text(votes([item("zz")], [[True]]))
    Path("othertiers.jsonl").write_text('{"id": "zz", "tiers": ["easy"]}\n')
    Path("F.jsonl").write_text("precious\n")
    assert run_cli(main, [*argv, "--out", "F.jsonl"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("minifleming: ") and reason in error
    assert Path("F.jsonl").read_text() == "precious\n" and not list(Path().glob("F.jsonl.*"))


def test_an_output_that_is_an_input_is_refused(folder):
    for argv in (["a=a.jsonl", "--out", "a.jsonl"], ["a=a.jsonl", "--decontaminate", "b=bench.jsonl", "--out", "bench.jsonl"],
                 ["a=a.jsonl", "--votes", "F.card.md", "--out", "F"]):
        Path("F.card.md").write_text("x")
        with pytest.raises(BadInput, match="is an input, too"):
            main(argv)


def test_nothing_left_and_an_empty_class_are_failed_runs(folder):
    with pytest.raises(RunFailed, match="no item is left: contamination took 80"):
        main(["a=bench.jsonl", "--decontaminate", "bench=bench.jsonl", "--out", "F.jsonl"])
    with pytest.raises(RunFailed, match="has no items"):
        main(["a=a.jsonl", "--tiers", "easy=1", "--out", "F.jsonl"])
    assert not Path("F.jsonl").exists()
