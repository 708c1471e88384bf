"""Tests for extras/teachers/endpoint.py with a real server: requests, answers and resumed runs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from chat_server import ChatServer, chat, good

from minifleming.cold_start.trace import new_trace
from minifleming.extras.teachers.answer_cache import Answer, AnswerCache
from minifleming.extras.teachers.endpoint import Endpoint, EndpointSettings, read, read_reply, seed_of
from minifleming.rods.item import Item
from minifleming.run.errors import RunFailed

ROOT = Path(__file__).parents[3]
ITEMS = [Item(f"i{n}", f"What helps in case {n} ?", {"A": "rest", "B": "tea"}, "AB"[n % 2]) for n in range(12)]
PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("MINIFLEMING_API_KEY", raising=False)


def teacher(server, path, **settings):
    chosen = {"first_wait": 0.01, "timeout": 5.0, "retries": 2} | settings
    return Endpoint(server.url, "m", AnswerCache(path), EndpointSettings(**chosen))


def lines(path):
    return path.read_text().splitlines()


# What is asked

def test_the_request(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIFLEMING_API_KEY", "sk-0123456789")
    for name in PROXIES:
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # would refuse every connection
    with ChatServer() as server:
        one = teacher(server, tmp_path / "a", seed=3, temperature=0.5, max_tokens=77)
        one.propose(ITEMS[:1])
        one.resolve(ITEMS[:1], ["tea warms {question}"])
    asked, judged = server.requests
    text = ("What helps in case 0 ?\n\nA. rest\nB. tea\n\nReason first, concisely, in plain sentences. Then end with "
            "the label of one option, like this: <answer>A|B</answer>")
    assert asked == {"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0.5, "n": 1,
                     "max_tokens": 77, "seed": seed_of(3, "i0", "blind", 0)}
    hidden = judged["messages"][0]["content"]
    assert judged["temperature"] == 0 and "case 0" not in hidden and "B. tea\n\nReason first" in hidden
    assert "tea warms {question}\n\nA. rest" in hidden
    path, headers = server.headers[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer sk-0123456789"


def test_no_key_no_header(tmp_path):
    with ChatServer() as server:
        teacher(server, tmp_path / "a").propose(ITEMS[:1])
    assert "Authorization" not in server.headers[0][1]


def test_the_seed_of_a_request_is_that_of_its_sample():
    keys = [(seed, item, strategy, sample) for seed in (0, 1) for item in ("a", "b")
            for strategy in ("blind", "explore") for sample in range(8)]
    seeds = [seed_of(*key) for key in keys]
    assert len(set(seeds)) == len(keys) and all(0 <= seed < 2**31 for seed in seeds)


def test_equal_prompts_of_two_samples_are_two_requests_and_equal_requests_are_one(tmp_path):
    with ChatServer() as server:
        one = teacher(server, tmp_path / "a")
        (first, second), = one.propose(ITEMS[:1], samples=2)
        assert len(server.requests) == 2 and server.requests[0]["messages"] == server.requests[1]["messages"]
        assert first.reasoning != second.reasoning
        twice = one.resolve([ITEMS[0], ITEMS[0]], ["same", "same"])
    assert len(server.requests) == 3 and twice[0] == twice[1] in "AB"


def test_a_round_shows_the_earlier_reasoning(tmp_path):
    earlier = [new_trace(ITEMS[0], "it was the cold", "A", "conditioned", "m")]
    with ChatServer() as server:
        (trace,), = teacher(server, tmp_path / "a").propose(ITEMS[:1], "backtrack", earlier=earlier)
    assert "it was the cold" in server.requests[0]["messages"][0]["content"] and trace.strategy == "backtrack"


# What is read

def answer_of(body) -> Answer | None:
    return read_reply(json.dumps(body).encode())


@pytest.mark.parametrize(("body", "expected"), [
    (chat("Warm. <answer>B</answer>"), ("Warm.", "B")),
    (chat("<think>Warm.</think><answer>B</answer>"), ("Warm.", "B")),
    (chat("Warm. <answer>C</answer>"), ("Warm.", "")),  # no label of the item
    (chat("Warm."), ("Warm.", "")),
    (chat("Warm. <answer>B</answer>", "length"), ("Warm.", "")),
    (chat("<answer>B</answer>", reasoning_content="Long thought."), ("Long thought.", "B")),
    (chat("\n<answer>B</answer>", reasoning="Long thought."), ("Long thought.", "B")),
    (chat("Warm. <answer>B</answer>", reasoning_content="Long thought."), ("Warm.", "B")),
    (chat(None, "length", reasoning_content="Long"), ("Long", "")),
    (chat(None), ("", "")),
    (chat("\ud83d ? <answer>A</answer>"), ("\ufffd" * 3 + " ?", "A")),
])
def test_reading(body, expected):
    assert read(answer_of(body), "AB") == expected


WRONG = [{}, [], 3, None, {"choices": []}, {"choices": {}}, {"choices": ["x"]}, {"choices": [{"message": "x"}]},
         {"choices": [{"message": {}}]}, {"choices": [{"message": {"content": 3}}]}, chat(["a"]),
         chat("a", finish=3), chat("a", reasoning=[1]), chat("a") | {"usage": [1]}, {"error": {"message": "busy"}}]


@pytest.mark.parametrize("body", WRONG)
def test_another_shape_is_no_answer(body):
    assert answer_of(body) is None


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"<html>"])
def test_no_json_is_no_answer(body):
    assert read_reply(body) is None


@pytest.mark.parametrize(("usage", "counts"), [({}, (0, 0)), (None, (0, 0)), ({"prompt_tokens": -1}, (0, 0)), (
    {"prompt_tokens": True, "completion_tokens": 4}, (0, 4))])
def test_usage_may_be_missing(usage, counts):
    answer = answer_of(chat("x") | {"usage": usage})
    assert (answer.prompt_tokens, answer.completion_tokens) == counts


# What goes wrong

def slow(handler, request, number):
    time.sleep(4)
    return good(handler, request, number)


def drops(handler, request, number):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        time.sleep(0.05)


def cut_short(handler, request, number):
    data = json.dumps(chat("a <answer>A</answer>")).encode()
    handler.tell(200, {"Content-Length": str(len(data))}, data[:20])


def hangs_up(handler, request, number):
    handler.connection.close()


def huge(handler, request, number):
    return 200, {}, chat("x" * (5 << 20) + "<answer>A</answer>")


FAULTS = {"slow": slow, "drops": drops, "cut short": cut_short, "hangs up": hangs_up, "huge": huge,
          "no JSON": lambda *a: (200, {}, b"<html>"), "no status": lambda h, *a: h.wfile.write(b"hello\n\n") and None,
          **{f"shape {n}": lambda *a, body=body: (200, {}, body) for n, body in enumerate(WRONG[:3])},
          **{str(n): lambda *a, n=n: (n, {}, {"error": "later"}) for n in (408, 409, 429, 500, 502, 503)}}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_is_asked_again(fault, tmp_path):
    def behave(handler, request, number):
        return (good if number else FAULTS[fault])(handler, request, number)

    with ChatServer(behave) as server:
        start = time.monotonic()
        (trace,), = teacher(server, tmp_path / "a", timeout=0.5).propose(ITEMS[:1])
        assert time.monotonic() - start < 3, "else it takes 4 or 5"
    assert trace.answer in ("A", "B") and trace.answer and server.requests[0] == server.requests[1]
    assert len(server.requests) == 2 and len(lines(tmp_path / "a")) == 1


@pytest.mark.parametrize("fault", ["no JSON", "500", "hangs up"])
def test_a_lasting_fault_ends_the_run_with_one_line_and_keeps_what_was_answered(fault, tmp_path):
    def behave(handler, request, number):
        return (FAULTS[fault] if "case 5 " in str(request) else good)(handler, request, number)

    with ChatServer(behave) as server:
        with pytest.raises(RunFailed) as caught:
            teacher(server, tmp_path / "a", workers=1).propose(ITEMS)
        assert len(server.requests) == 5 + 3
    said = str(caught.value)
    assert "\n" not in said and "asked 3 times" in said and len(said) < 300
    assert {"no JSON": "200: <html>", "500": '500: {"error": "later"}', "hangs up": "no reply: "}[fault] in said
    with ChatServer() as server:
        teacher(server, tmp_path / "a").propose(ITEMS)
        assert len(server.requests) == 7


def test_a_server_that_is_not_there(tmp_path):
    with ChatServer() as server:
        pass
    with pytest.raises(RunFailed, match="no reply.*refused"):
        teacher(server, tmp_path / "a", retries=1).propose(ITEMS[:1])


@pytest.mark.parametrize(("status", "says"), [(401, "MINIFLEMING_API_KEY"), (403, "MINIFLEMING_API_KEY"), (404, "/v1"),
                                              (402, "402"), (302, "redirect"), (307, "redirect"), (204, "204")])
def test_what_no_patience_mends_ends_the_run_at_once(status, says, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIFLEMING_API_KEY", "sk-0123456789")
    with ChatServer() as other, ChatServer(lambda *a: (status, {"Location": other.url}, b"")) as server:
        with pytest.raises(RunFailed, match=says):
            teacher(server, tmp_path / "a", workers=1).propose(ITEMS)
        assert len(server.requests) == 1 and not other.requests and not other.gets


def refuse(*which):
    def behave(handler, request, number):
        wanted = any(f"case {n} " in str(request) for n in which)
        return (400, {}, {"error": "too long"}) if wanted else good(handler, request, number)
    return behave


@pytest.mark.parametrize("which", [0, 4, 11])
def test_a_refused_request_beside_good_ones_is_an_answer_that_cannot_be_read(which, tmp_path):
    with ChatServer(refuse(which)) as server:
        one = teacher(server, tmp_path / "a", workers=1)
        found = one.propose(ITEMS)
        assert [n for n, (trace,) in enumerate(found) if not trace.answer] == [which]
        assert one.num_refused == 1 and len(lines(tmp_path / "a")) == 11
        again = teacher(server, tmp_path / "a")
        assert again.propose(ITEMS) == found and len(server.requests) == 13
    with ChatServer() as server:  # more room for prompts
        assert all(trace.answer for trace, in teacher(server, tmp_path / "a").propose(ITEMS))


def test_where_nothing_succeeds_a_refusal_ends_the_run(tmp_path):
    with ChatServer(lambda *a: (400, {}, {"error": "no such field"})) as server:
        with pytest.raises(RunFailed, match="no such field"):
            teacher(server, tmp_path / "a").propose(ITEMS[:1])
        with pytest.raises(RunFailed, match="no such field"):
            teacher(server, tmp_path / "a", workers=2).propose(ITEMS, samples=10)
    assert not (tmp_path / "a").exists()


# When it is asked

def test_429_makes_all_workers_wait(tmp_path):
    def behave(handler, request, number):
        time.sleep(0.03)
        return (429, {"Retry-After": "1"}, b"") if number == 4 else good(handler, request, number)

    with ChatServer(behave) as server:
        teacher(server, tmp_path / "a", workers=4).propose(ITEMS, samples=2)
    since = [t - server.times[4] for t in server.times]
    assert len(since) == 25 and sum(t > 0.1 for t in since) >= 12, "most were still to be asked"
    assert not [t for t in since if 0.3 < t < 1.0]


def test_a_server_of_few_answers_a_second_is_waited_for_without_end_of_retries(tmp_path):
    """One answer every 0.5 s and a 429 that says when for all others: 8 workers, 12 requests, one retry allowed."""
    free, lock = [0.0], threading.Lock()

    def behave(handler, request, number):
        with lock:
            if time.monotonic() < free[0]:
                return 429, {"Retry-After": "0.5"}, b""
            free[0] = time.monotonic() + 0.5
        return good(handler, request, number)

    with ChatServer(behave) as server:
        start = time.monotonic()
        told = teacher(server, tmp_path / "a", workers=8, retries=1).propose(ITEMS)
        assert time.monotonic() - start < 20
    assert all(trace.answer for trace, in told) and len(server.requests) > 24


def test_but_not_longer_than_patience(tmp_path):
    with ChatServer(lambda *a: (429, {"Retry-After": "0.1"}, b"")) as server:
        with pytest.raises(RunFailed, match="429"):
            teacher(server, tmp_path / "a", total_retry_seconds=0.5).propose(ITEMS[:1])
    assert 3 < len(server.requests) < 9


def test_a_server_that_asks_for_too_much_patience_ends_the_run(tmp_path):
    with ChatServer(lambda *a: (429, {"Retry-After": "100000"}, b"")) as server:
        with pytest.raises(RunFailed, match="429.*at most 600 are waited"):
            teacher(server, tmp_path / "a").propose(ITEMS[:1])


@pytest.mark.parametrize("workers", [1, 3, 6])
def test_as_many_requests_at_a_time_as_there_are_workers(workers, tmp_path):
    barrier = threading.Barrier(workers)

    def behave(handler, request, number):
        barrier.wait(5)  # none is answered before ``workers`` of them are there
        time.sleep(0.01)
        return good(handler, request, number)

    with ChatServer(behave) as server:
        teacher(server, tmp_path / "a", workers=workers).propose(ITEMS)
    assert server.peak == workers and len(server.requests) == 12


def test_the_order_of_arrival_and_the_number_of_workers_change_nothing(tmp_path):
    rng = random.Random(0)

    def behave(handler, request, number):
        time.sleep(rng.random() * 0.03)
        return good(handler, request, number)

    found, usages = [], []
    for workers in (1, 8):
        with ChatServer(behave) as server:
            one = teacher(server, tmp_path / str(workers), workers=workers)
            found.append((one.propose(ITEMS, samples=2), one.resolve(ITEMS, ["why"] * 12)))
            usages.append((one.num_answers, one.num_refused))
    assert found[0] == found[1] and usages[0] == usages[1]
    for item, pair in zip(ITEMS, found[0][0]):  # and each answer is that of its own request
        for sample, trace in enumerate(pair):
            assert (trace.item, trace.reasoning) == (item.id, f"It has {seed_of(0, item.id, 'blind', sample)}.")
    assert sorted(lines(tmp_path / "1")) == sorted(lines(tmp_path / "8")) != lines(tmp_path / "8")


# What a resumed run costs

def test_what_is_on_disk_is_not_asked_again(tmp_path):
    with ChatServer() as server:
        first = teacher(server, tmp_path / "a")
        found = first.propose(ITEMS, samples=2), first.resolve(ITEMS, ["why"] * 12)
        assert len(server.requests) == 36
    again = teacher(server, tmp_path / "a")  # this server is gone
    assert (again.propose(ITEMS, samples=2), again.resolve(ITEMS, ["why"] * 12)) == found
    assert first.num_answers == again.num_answers == 36
    with ChatServer() as server:
        teacher(server, tmp_path / "a", seed=1).propose(ITEMS[:2])
        teacher(server, tmp_path / "a", max_tokens=9).propose(ITEMS[:2])
        teacher(server, tmp_path / "a").propose(ITEMS[:2], samples=3)
        assert len(server.requests) == 2 + 2 + 2, "other requests are other requests"


SCRIPT = """
import sys
from minifleming.extras.teachers.answer_cache import AnswerCache
from minifleming.extras.teachers.endpoint import Endpoint, EndpointSettings
from minifleming.rods.item import Item
from minifleming.run.errors import run_cli
def main(argv):
    items = [Item(f"i{n}", f"What helps in case {n} ?", {"A": "rest", "B": "tea"}, "AB"[n % 2]) for n in range(12)]
    print(Endpoint(sys.argv[1], "m", AnswerCache(sys.argv[2]), EndpointSettings(workers=2)).propose(items))
sys.exit(run_cli(main))
"""


def process(server, path) -> subprocess.Popen:
    """With SIGINT as a terminal leaves it: what a shell starts in the background ignores it, and hands that on."""
    return subprocess.Popen([sys.executable, "-c", SCRIPT, server.url, str(path)], cwd=ROOT, stderr=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def hanging_after(count):
    there = threading.Event()

    def behave(handler, request, number):
        if number < count:
            return good(handler, request, number)
        there.set()
        time.sleep(30)
    behave.there = there
    return behave


def test_kill_in_the_middle_and_resume_asks_only_what_is_missing(tmp_path):
    path, behave = tmp_path / "a", hanging_after(7)
    with ChatServer(behave) as server:
        run = process(server, path)
        assert behave.there.wait(20)
        until = time.monotonic() + 5
        while len(lines(path)) < 7 and time.monotonic() < until:  # the other worker's answer is still on its way
            time.sleep(0.01)
        run.kill()
        assert run.wait(5) == -signal.SIGKILL and len(lines(path)) == 7
        run.communicate()
    with open(path, "a") as stream:
        stream.write('{"request": "12')  # what a kill within a write would leave
    with ChatServer() as server:
        found = teacher(server, path, max_tokens=4096).propose(ITEMS)
        assert len(server.requests) == 5
    with ChatServer() as server:
        assert teacher(server, tmp_path / "b", max_tokens=4096).propose(ITEMS) == found


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_does_not_wait_for_the_server(number, status, tmp_path):
    behave = hanging_after(3)
    with ChatServer(behave) as server:
        run = process(server, tmp_path / "a")
        assert behave.there.wait(20)
        time.sleep(0.1)
        start = time.monotonic()
        run.send_signal(number)
        out, err = run.communicate(timeout=10)
    assert run.returncode == status and time.monotonic() - start < 5 and len(err.splitlines()) == 1 and not out
    assert len(lines(tmp_path / "a")) == 3


def test_after_a_failure_no_more_is_asked(tmp_path):
    def behave(handler, request, number):
        time.sleep(0.05)
        return (401, {}, b"") if number == 1 else good(handler, request, number)

    with ChatServer(behave) as server:
        with pytest.raises(RunFailed):
            teacher(server, tmp_path / "a", workers=3).propose(ITEMS)
        time.sleep(0.3)
        assert len(server.requests) <= 7

