"""Tests for extras/tour.py: it shows all ten stops, and its figures agree with each other."""

import math
import re
from pathlib import Path

import pytest

from minifleming.extras import tour

DOCS = Path(__file__).parents[2] / "docs" / "tour.md"
PACKAGE = Path(tour.__file__).parents[1]
STOP = re.compile(r"^\[(\d+)/10\] (\S+): ", re.MULTILINE)


@pytest.fixture(scope="module")
def output():
    """What the tour prints with a short cold start."""
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert tour.main([]) == 0
    return text.getvalue()


def numbers(pattern: str, text: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, text)]


def test_the_ten_files_in_order_each_with_its_number_in_its_docstring(output):
    stops = STOP.findall(output)
    assert [int(number) for number, _ in stops] == list(range(1, 11))
    for number, file in stops:
        assert f"[{number}/10]" in (PACKAGE / file).read_text().splitlines()[0], file


def test_the_question_has_eight_options_and_its_proof_holds(output):
    assert len(re.findall(r"^  \(([A-H])\) ", output, re.MULTILINE)) == 8
    assert output.count("the masked node") == 1
    assert "the proof holds" in output


def test_rewards_advantages_coefficients_and_loss_agree(output):
    rewards = numbers(r"= ([0-9.]+)$", output.split("[7/10]")[1].split("[8/10]")[0])
    rewards = numbers(r"(?m)^  y_\d+  verdict.*?= ([0-9.]+)$", output.replace("\n    ", " "))
    advantages = numbers(r"A_\d+ = [0-9.]+ - [0-9.]+ = ([+-][0-9.]+)", output)
    coefficients = numbers(r"-A / 8 = ([+-][0-9.]+)", output)
    products = numbers(r"A log pi = ([+-][0-9.]+)", output)
    loss = numbers(r"A_i log pi\(y_i\|x\) = (-?[0-9.]+)", output)[0]
    assert len(rewards) == len(advantages) == len(coefficients) == len(products) == 8
    mean = sum(rewards) / 8
    assert set(rewards) <= {0.0, 0.1, 1.1} and len(set(rewards)) > 1
    for reward, advantage, coefficient in zip(rewards, advantages, coefficients):
        assert advantage == pytest.approx(reward - mean, abs=1e-4)
        assert coefficient == pytest.approx(-advantage / 8, abs=1e-5)
    assert loss == pytest.approx(-math.fsum(products) / 8, abs=1e-3)


def test_the_pass_rate_is_that_of_the_rewards_and_decides_the_pool(output):
    rewards = numbers(r"(?m)^  y_\d+  verdict.*?= ([0-9.]+)$", output.replace("\n    ", " "))
    num_correct = sum(reward > 1 for reward in rewards)
    assert f"pass rate {num_correct}/8" in output
    pool = re.search(r"goes to the pool '(\w+)'", output)[1]
    rate = num_correct / 8
    assert pool == ("wrong" if rate <= 0.5 else "right" if rate >= 0.9 else "middle")


def test_the_page_lists_the_same_files_in_the_same_order(output):
    listed = re.findall(r"minifleming/([a-z_/]+\.py)\)", DOCS.read_text())
    assert listed[:10] == [file for _, file in STOP.findall(output)]


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--model", "missing"]])
def test_bad_arguments_are_refused(arguments, capsys):
    from minifleming.run.errors import run_cli

    assert run_cli(tour.main, arguments) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
