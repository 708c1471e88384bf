"""Tests for run/errors.py: exit statuses, and at most one line on stderr."""

import argparse
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minifleming.run.errors import BadInput, Parser, RunFailed, Terminated, run_cli

ROOT = Path(__file__).parents[2]


def ends_with(action):
    def main(argv):
        return action(argv) if callable(action) else action
    return main


def raising(error):
    def action(argv):
        raise error
    return ends_with(action)


@pytest.mark.parametrize("result, status", [(None, 0), (0, 0), (3, 3)])
def test_a_main_that_returns_gives_its_status_and_says_nothing(result, status, capsys):
    assert run_cli(ends_with(result)) == status
    assert capsys.readouterr() == ("", "")


def test_the_arguments_arrive():
    seen = []
    run_cli(ends_with(lambda argv: seen.append(argv)), ["--n", "3"])
    run_cli(ends_with(lambda argv: seen.append(argv)))
    assert seen == [["--n", "3"], None]


@pytest.mark.parametrize("error, status, line", [
    (BadInput("reason"), 2, "reason"),
    (BadInput("reason", "f.tsv"), 2, "f.tsv: reason"),
    (BadInput("reason", Path("f.tsv"), 7), 2, "f.tsv:7: reason"),
    (BadInput("reason", line=7), 2, "reason"),
    (BadInput("two\nlines\tand \u2028 more", "a\nb"), 2, "a b: two lines and more"),
    (RunFailed("it\nfailed"), 1, "it failed"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (Terminated(), 143, "terminated"),
    (OSError(errno.ENOSPC, "No space left on device", "out.jsonl"), 1, "out.jsonl: No space left on device"),
    (PermissionError(errno.EACCES, "Permission denied", "out"), 1, "out: Permission denied"),
    (OSError("bare"), 1, "input or output: bare"),
])
def test_an_exception_gives_its_status_and_one_line(error, status, line, capsys):
    assert run_cli(raising(error)) == status
    assert capsys.readouterr() == ("", f"minifleming: {line}\n")


@pytest.mark.parametrize("error", [ValueError("bug"), ZeroDivisionError(), AssertionError(), SystemExit(0)])
def test_a_bug_is_not_hidden(error):
    with pytest.raises(type(error)):
        run_cli(raising(error))


def test_only_rank_0_speaks(monkeypatch, capsys):
    for rank, said in (("0", "minifleming: x\n"), ("1", ""), ("7", "")):
        monkeypatch.setenv("RANK", rank)
        assert run_cli(raising(BadInput("x"))) == 2
        assert capsys.readouterr().err == said


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_unwinds_through_finally_blocks(number, status, capsys):
    closed = []

    def action(argv):
        try:
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 5)  # the handler runs here at the latest
        finally:
            closed.append(True)

    old = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
    try:
        assert run_cli(ends_with(action)) == status and closed == [True]
    finally:
        signal.signal(signal.SIGINT, old)
    assert capsys.readouterr().err.startswith("minifleming: ")


def test_the_callers_signal_handler_comes_back():
    for action in (None, raising(BadInput("x"))):
        before = signal.getsignal(signal.SIGTERM)
        run_cli(action or ends_with(0))
        assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_leaves_early_gets_no_traceback():
    """As in ``python eval.py ... | head -1``. This module needs no torch, so the process is quick."""
    code = ("from minifleming.run.errors import run_cli\n"
            "def main(argv):\n    for _ in range(100000): print('line')\n"
            "raise SystemExit(run_cli(main))")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(60) == 1
    process.stderr.close()


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="p", allow_abbrev=False)
    made.add_argument("--n", type=int)
    made.add_argument("--device", choices=["cpu", "cuda"])
    made.add_argument("--items", required=True)
    return made


@pytest.mark.parametrize("argv, line", [
    (["--items", "f", "--n", "x"], "--n: invalid int value: 'x'"),
    (["--items", "f", "--n"], "--n: expected one argument"),
    (["--items", "f", "--devi", "cpu"], "unrecognized arguments: --devi cpu"),
    (["--items", "f", "stray\nline"], "unrecognized arguments: stray line"),
    ([], "the following arguments are required: --items"),
])
def test_the_command_line_fails_in_one_line_without_a_usage_block(argv, line, capsys):
    assert run_cli(lambda argv: parser().parse_args(argv) and 0, argv) == 2
    assert capsys.readouterr() == ("", f"minifleming: {line}\n")


def test_help_is_no_error(capsys):
    with pytest.raises(SystemExit) as caught:
        run_cli(lambda argv: parser().parse_args(argv) and 0, ["--help"])
    assert caught.value.code == 0 and capsys.readouterr().out.startswith("usage: p ")
