"""Tests for kills: a run that is killed at random instants ends with the same bits (bench/kills.py has more)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "trials"), [("KILL", 8), ("TERM", 1), ("INT", 1)])
def test_killed_at_random_instants_the_run_ends_as_if_nobody_had(how, trials, tmp_path):
    """kill -9, every fourth time inside a save; and asked to end, with status 143 or 130 after a unit of work."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, ROOT / "bench" / "kills.py", "--quick", "--signal", how, "--trials",
                           str(trials)], capture_output=True, text=True, timeout=900, env=environment)
    told = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert told["trials"] == trials and told["files"] > 50
    assert told["not_bit_identical"] == told["not_ended"] == told["other_status"] == 0
    assert told["longest_until_end"] < 10
    if how == "KILL":
        assert told["in_a_save"] >= 2 and len(told["by_stage"]) >= 2
