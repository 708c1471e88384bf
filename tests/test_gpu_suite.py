"""The GPU suite without a GPU: its arguments, its table, what survives a part that is killed, and the limits."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench.gpu import limits, rows, suite
from bench.gpu.limits import H200
from minifleming.extras.plan.model_shapes import shape_of
from minifleming.run.errors import run_cli

SMALL, LARGE = shape_of("Qwen2.5-0.5B-Instruct"), shape_of("Qwen2.5-7B-Instruct")


def near(wanted: float):
    """A number of the tables, which have three digits."""
    return pytest.approx(wanted, rel=6e-3)


# The limits: notes on performance, sections 2.1 to 2.5


@pytest.mark.parametrize("config, body, head, kv", [(SMALL, 0.358e9, 0.136e9, 12288), (LARGE, 6.525e9, 0.545e9, 57344)])
def test_weights_and_keys_of_a_token(config, body, head, kv):
    assert limits.body(config) == near(body) and limits.head(config) == near(head) and limits.kv_bytes(config) == kv


@pytest.mark.parametrize("config, rows, context, alone, shared", [
    (SMALL, 1, 512, 4325, None), (SMALL, 64, 512, 198e3, 227e3), (SMALL, 256, 1024, 239e3, 282e3),
    (LARGE, 1, 512, 303, None), (LARGE, 64, 512, 17.2e3, 18.1e3), (LARGE, 256, 1024, 31.6e3, 34.9e3)])
def test_decode_limits(config, rows, context, alone, shared):
    assert rows / limits.decode_seconds(config, H200, rows, context) == near(alone)
    assert rows / limits.decode_seconds(config, H200, rows, 0, context) == near(alone), "a group of one shares nothing"
    if shared:
        assert rows / limits.decode_seconds(config, H200, rows, context - 256, 256, 8) == near(shared)


@pytest.mark.parametrize("config, length, speed", [(SMALL, 1024, 254e3), (SMALL, 4096, 226e3), (LARGE, 1024, 18.3e3)])
def test_training_limits(config, length, speed):
    assert H200.rate / limits.training_flop(config, 1, 1, length) == near(speed)


@pytest.mark.parametrize("width, tokens, three, four, held", [
    (896, 8192, 8.5e-3, 11.3e-3, 0.56e9), (896, 65536, 68e-3, 91e-3, 0.66e9),
    (3584, 8192, 34e-3, 45e-3, 2.24e9), (3584, 65536, 272e-3, 363e-3, 2.65e9)])
def test_head_limits(width, tokens, three, four, held):
    assert limits.head_seconds(H200, tokens, 151936, width) == pytest.approx(three, rel=0.01)
    assert limits.head_seconds(H200, tokens, 151936, width, products=4) == pytest.approx(four, rel=0.01)
    assert limits.head_bytes(tokens, 151936, width) == pytest.approx(held, rel=0.01)


@pytest.mark.parametrize("config, prompts, rollout, update", [(SMALL, 64, 1.47, 2.13), (LARGE, 32, 6.6, 14.8)])
def test_limits_of_a_whole_step(config, prompts, rollout, update):
    size = prompts * 8, 1024, 256, 8
    assert limits.rollout_seconds(config, H200, *size) == near(rollout)
    assert limits.update_seconds(config, H200, *size) == near(update)


def test_pairs_of_attention():
    """A prompt of 3, answers of 2 and 1, a document of 4."""
    from minifleming.kernels.segments import Segments

    assert limits.pairs(Segments([3, 2, 1, 4], [-1, 0, 0, -1]).table().tolist()) == 6 + (3 + 6) + (1 + 3) + 10


# Rows and the table


def test_shares_ratios_and_aims():
    slow = rows.judged({"measured": 2.0, "unit": "ms", "limit": 1.0, "peer": 30.0, "aim": {"share": 0.5, "ratio": 12}})
    assert slow["share"] == 0.5 and slow["ratio"] == 15 and slow["reached"]
    rate = rows.judged({"measured": 40.0, "unit": "tokens/s", "limit": 100.0, "peer": 80.0, "aim": {"share": 0.45}})
    assert rate["share"] == 0.4 and rate["ratio"] == 0.5 and rate["reached"] is False
    assert rows.judged({"measured": 300.0, "unit": "MiB", "aim": {"most": 256.0}})["reached"] is False
    assert rows.judged({"measured": 5.0, "unit": "ms", "aim": {"ratio": 12.0}})["reached"] is False, "no peer"
    toy = {"measured": 1.0, "unit": "", "aim": {"most": 2.0}, "toy": True}
    assert "reached" not in rows.judged(dict(toy)) and rows.judged(toy | {"must": True})["reached"]
    assert "reached" not in rows.judged({"unit": "ms", "aim": {"share": 1.0}, "measured": None})


def test_what_is_bad():
    """An error, and a bound of correctness that is missed; a missed aim of speed is a result."""
    missed = {"measured": 2.0, "unit": "", "aim": {"most": 1.0}}
    assert not rows.bad(rows.judged(dict(missed))) and rows.bad(rows.judged(missed | {"must": True}))
    assert rows.bad({"error": "x"})
    assert rows.bad(rows.judged({"measured": float("nan"), "unit": "", "aim": {"most": 1.0}, "must": True}))


def test_the_table(tmp_path):
    rows.append(tmp_path, {"begin": "x", "part": "decode"})
    rows.append(tmp_path, rows.judged({"what": "a decode step", "measurement": "x", "shape": "0.5B",
                                       "measured": 0.5, "unit": "ms", "limit": 0.3, "aim": {"share": 0.5},
                                       "peer": 20.0, "peer_name": "generate",
                                       "note": "128,000 tokens/s", "command": "bench/gpu.sh"}))
    rows.append(tmp_path, {"what": "broken", "shape": "", "error": "RuntimeError: a | b\nc", "command": "bench/gpu.sh"})
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"what": "cut off by a ki')
    rows.write_results(tmp_path, {"kind": "gpu", "name": "NVIDIA H200", "toy": False}, ["decode: timed out in 'x'"])
    text = (tmp_path / "gpu.md").read_text()
    assert ("| a decode step | x | 0.5B | 0.5 ms (128,000 tokens/s) | 0.3 ms | 60 % | 50 % | yes | 20 ms generate | "
            "40 | `bench/gpu.sh` |") in text
    assert "| broken |  |  | **failed**: RuntimeError: a / b c |" in text and "- decode: timed out in 'x'" in text
    assert "not results" not in text and "NVIDIA H200" in text
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["what"] for row in result["rows"]] == ["a decode step", "broken"] and result["machine"]["kind"] == "gpu"
    assert "**Toy sizes, CPU: not results.**" in rows.markdown({"kind": "cpu", "toy": True}, [], [])


def test_the_command_of_a_row_names_no_place_of_this_machine():
    begin = "bench/gpu.sh --out DIR --parts"
    assert rows.command("grpo", True, Path("/a/b/SmolLM2")) == f"{begin} grpo --toy --model SmolLM2"
    assert rows.command("head", False, None) == f"{begin} head"


# The suite


@pytest.mark.parametrize("argv, reason", [
    ([], "--out"), (["--out", "x", "--parts", "decoding"], "invalid choice"),
    (["--out", "x", "--limit", "0"], "--limit"), (["--out", "x", "--limit", "nan"], "--limit"),
    (["--out", "x", "--limit", "soon"], "--limit"),
    (["--out", "x", "--model", "nowhere"], "--model"), (["--out", "x", "--fast"], "--fast")])
def test_bad_arguments(argv, reason, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_cli(suite.main, argv) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("minifleming: ") and reason in said
    assert not (tmp_path / "x").exists()


PART = """
import json, os, signal, sys, time
out, what = sys.argv[1:3]
def line(**row):
    with open(out + "/rows.jsonl", "a") as file:
        file.write(json.dumps(row) + "\\n")
def row(name):
    line(begin=name, part=what)
    line(part=what, what=what + " " + name, shape="", measured=1.0, unit="ms", command="c")
row("second" if sys.argv[3:] else "first")
line(begin="third" if sys.argv[3:] else "second", part=what)
if what == "slow": time.sleep(60)
if what == "dies" and not sys.argv[3:]: os.kill(os.getpid(), signal.SIGSEGV)
if what == "broken": sys.exit(0 if sys.argv[3:] else 3)
if what == "startless": sys.exit(1)
if what == "failing": sys.exit(4)
"""


@pytest.fixture
def parts(monkeypatch):
    """Trivial parts in the place of the real ones."""
    def put(**weights: int) -> None:
        monkeypatch.setattr(suite, "PARTS", weights)
        monkeypatch.setattr(suite, "command_of", lambda part, args, until, after, number: [
            sys.executable, "-c", PART, str(args.out), part, *([after] if after else [])])
    return put


def whats(out) -> list[str]:
    return [row["what"] for row in json.loads((out / "gpu.json").read_text())["rows"]]


@pytest.mark.slow
def test_what_a_killed_part_had_measured_survives(parts, tmp_path, capsys):
    parts(quick=2, slow=2, last=6)
    assert run_cli(suite.main, ["--out", str(tmp_path), "--limit", "10"]) == 1
    assert whats(tmp_path) == ["quick first", "slow first", "second", "last first"]
    text = (tmp_path / "gpu.md").read_text()
    assert "- slow: timed out in 'second'" in text and "**failed**: timed out" in text
    assert "last: 1 rows" in capsys.readouterr().out


def test_a_part_that_dies_goes_on_behind_the_measurement_that_did_it(parts, tmp_path):
    parts(dies=1, broken=1)
    assert run_cli(suite.main, ["--out", str(tmp_path), "--limit", "20"]) == 1
    assert whats(tmp_path) == ["dies first", "second", "dies second", "broken first", "broken second"]
    assert "dies: killed by signal 11 in 'second'" in (tmp_path / "gpu.md").read_text()


def test_all_is_well_or_not(parts, tmp_path):
    parts(quick=1)
    assert run_cli(suite.main, ["--out", str(tmp_path), "--limit", "20"]) == 0
    assert whats(tmp_path) == ["quick first"]
    assert run_cli(suite.main, ["--out", str(tmp_path), "--limit", "20"]) == 2, "there are results already"
    assert whats(tmp_path) == ["quick first"]
    parts(startless=1)
    assert run_cli(suite.main, ["--out", str(tmp_path / "other"), "--limit", "20"]) == 1


def test_no_time_at_all(parts, tmp_path):
    parts(quick=1, slow=1)
    assert run_cli(suite.main, ["--out", str(tmp_path), "--limit", "0.5"]) == 1
    assert whats(tmp_path) == [] and "quick: not run: no time was left" in (tmp_path / "gpu.md").read_text()


def test_an_interruption_leaves_the_results(parts, tmp_path, monkeypatch):
    parts(quick=1, slow=1)
    real = suite.started
    children = []

    def interrupted(command, out):
        if children:
            raise KeyboardInterrupt
        children.append(real(command, out))
        return children[-1]

    monkeypatch.setattr(suite, "started", interrupted)
    assert run_cli(suite.main, ["--out", str(tmp_path), "--limit", "20"]) == 130
    assert whats(tmp_path) == ["quick first"] and children[0].poll() is not None


def test_a_part_in_several_processes(parts, tmp_path, monkeypatch):
    parts(quick=1)
    monkeypatch.setattr(suite, "AT_ONCE", {"quick": 3})
    monkeypatch.setattr(suite.os, "cpu_count", lambda: 16)
    assert run_cli(suite.main, ["--out", str(tmp_path), "--limit", "20"]) == 0
    assert whats(tmp_path) == ["quick first"] * 3


def test_the_real_parts_are_there():
    """Each part has a file with measurements, and takes what the suite hands it."""
    args = type("Args", (), {"out": "o", "toy": True, "model": "m"})
    for part in suite.PARTS:
        text = (suite.ROOT / "bench" / "gpu" / f"{part}.py").read_text()
        assert "MEASUREMENTS = {" in text and f'main("{part}", MEASUREMENTS, argv)' in text
        assert " ".join(suite.command_of(part, args, 10.0, "x", "1/8")[2:]) == (
            f"-m bench.gpu.{part} --out o --until 10.0 --toy --model m --worker 1/8 --after x")
    assert sum(suite.PARTS.values()) == suite.LIMIT < 600
