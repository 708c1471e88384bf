"""Tests for extras/teachers/server.py: the key is sent to one host only, and waits are respected."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
import time

import pytest
from chat_server import ChatServer, chat

from minifleming.extras.teachers.answer_cache import AnswerCache
from minifleming.extras.teachers.endpoint import LONGEST_BACKOFF, Cancelled, Endpoint, EndpointSettings, backoff
from minifleming.extras.teachers.server import Server
from minifleming.rods.item import Item
from minifleming.run.errors import BadInput, RunFailed

CANARY = "sk-canary/5d41a2c07be9"
ITEM = Item("i", "What helps ?", {"A": "rest", "B": "tea"}, "A")


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("MINIFLEMING_API_KEY", raising=False)


@pytest.mark.parametrize(("status", "body"), [
    (200, lambda key: chat(f"I was called with {key}. <answer>A</answer>", reasoning_content=f"{key}")),
    (200, lambda key: {"you sent": key}),
    (200, lambda key: b'{"you sent": "%s"}' % key.replace("/", "\\/").encode()),
    (200, lambda key: b"x" * 180 + key.encode()),
    (400, lambda key: {"error": f"bad key {key}"}),
    (401, lambda key: {"error": f"Incorrect API key provided: {key}"}),
    (500, lambda key: key.encode()),
])
def test_canary(status, body, tmp_path, monkeypatch, capfd):
    """A server that repeats the key in every way, and no trace of it in a file, a message or an object."""
    monkeypatch.setenv("MINIFLEMING_API_KEY", CANARY)
    said = []
    with ChatServer(lambda h, *a: (status, {}, body(h.headers["Authorization"].split()[1]))) as server:
        teacher = Endpoint(server.url, "m", AnswerCache(tmp_path / "a"),
                           EndpointSettings(first_wait=0.01, retries=1))
        try:
            said.append(teacher.propose([ITEM]))
        except RunFailed as error:
            said.append(error)
        assert server.headers[0][1]["Authorization"] == f"Bearer {CANARY}", "it was sent"
        assert isinstance(said[0], list) == (status == 200 and len(server.requests) == 1)
    text = [str(said[0]), *map(repr, (said, teacher, vars(teacher), vars(teacher.server), vars(teacher.cache)))]
    text += [file.read_text() for file in tmp_path.rglob("*") if file.is_file()] + list(capfd.readouterr())
    for part in text:
        assert not [piece for piece in CANARY.split("/") if piece in part]


def test_a_placeholder_of_a_key_is_not_cut_from_texts(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIFLEMING_API_KEY", "none")
    with ChatServer(lambda *a: (200, {}, chat("of these none fits <answer>A</answer>"))) as server:
        (trace,), = Endpoint(server.url, "m", AnswerCache(tmp_path / "a")).propose([ITEM])
    assert server.headers[0][1]["Authorization"] == "Bearer none" and trace.reasoning == "of these none fits"


@pytest.mark.parametrize("key", ["sk-abcdefgh\n", "sk-abc\r\nX: y", "sk abcdefgh", "sk-abcdéfgh", "sk-abc\x7f"])
def test_a_key_that_cannot_be_sent_is_refused_without_repeating_it(key, monkeypatch):
    monkeypatch.setenv("MINIFLEMING_API_KEY", key)
    with pytest.raises(BadInput) as caught:
        Server("http://localhost:1/v1")
    assert "MINIFLEMING_API_KEY" in str(caught.value) and "abc" not in str(caught.value)


@pytest.mark.parametrize(("url", "clear"), [
    ("http://localhost:1/v1", False), ("http://127.0.0.1/v1", False), ("http://[::1]:8000/v1", False),
    ("https://example.org/v1", False), ("http://example.org/v1", True), ("http://10.0.0.7:8000/v1", True),
    ("http://localhost.example.org/v1", True), ("http://127.0.0.1.example.org/v1", True)])
def test_a_key_leaves_the_machine_under_https_alone(url, clear, monkeypatch):
    Server(url)  # without a key any address is good
    monkeypatch.setenv("MINIFLEMING_API_KEY", CANARY)
    if clear:
        with pytest.raises(BadInput, match="clear text"):
            Server(url)
    else:
        Server(url)


def test_a_key_that_is_set_later_is_not_sent_in_clear_either(monkeypatch):
    server = Server("http://example.org/v1")
    monkeypatch.setenv("MINIFLEMING_API_KEY", CANARY)
    with pytest.raises(BadInput, match="clear text"):
        server.post(b"{}")


@pytest.mark.parametrize("url", [
    "", "localhost:8000/v1", "ftp://host/v1", "file:///v1", "http:///v1", "http://host:port/v1", "http://host:99999/v1",
    "http://[::1/v1", "http://user:hunter2@host/v1", "https://hunter2@host/v1", "http://host/v1?key=hunter2",
    "http://host/v1#hunter2", "http://host/v1\nhunter2", "http://host/a b", "http://höst/v1"])
def test_other_addresses_are_refused_without_repeating_them(url):
    with pytest.raises(BadInput) as caught:
        Server(url)
    assert "hunter2" not in str(caught.value)


def test_the_path_is_kept():
    assert Server("https://host/a/b/v1/").path == "/a/b/v1/chat/completions"


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_https_and_a_certificate_that_does_not_hold(tmp_path, monkeypatch):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-addext",
                    "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key", "-out", tmp_path / "certificate"],
                   check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    monkeypatch.setenv("MINIFLEMING_API_KEY", CANARY)
    with ChatServer(context=context) as server:
        with pytest.raises(RunFailed, match="certificate"):
            Server(server.url).post(b'{"seed": 1}')
        assert not server.requests
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate"))
        assert Server(server.url).post(b'{"seed": 1}').status == 200
        assert server.headers[0][1]["Authorization"] == f"Bearer {CANARY}"


@pytest.mark.parametrize(("header", "seconds"), [
    ("20", 20), ("0", 0), (" 1.5 ", 1.5), ("", 0), ("soon", 0), ("-3", 0), ("nan", 0),
    ("Wed, 21 Oct 2026 07:28:30 GMT", 0)])
def test_retry_after_is_a_number_of_seconds(header, seconds):
    with ChatServer(lambda *a: (429, {"Retry-After": header}, b"")) as server:
        assert Server(server.url).post(b"{}").retry_after == seconds


def test_backoff_doubles_up_to_a_limit_with_fixed_jitter():
    for attempt in range(40):
        full = min(LONGEST_BACKOFF, 0.5 * 2**attempt)
        found = [backoff(key, attempt, 0.5) for key in "abcdefgh"]
        assert all(full / 2 <= seconds < full for seconds in found) and len(set(found)) == 8
        assert found == [backoff(key, attempt, 0.5) for key in "abcdefgh"]
    assert backoff("a", 10**6, 1.0) < LONGEST_BACKOFF


def test_a_pause_holds_workers_that_wait_already_and_a_stop_ends_it(tmp_path):
    teacher, stop, free = Endpoint("http://localhost:1", "m", AnswerCache(tmp_path / "a")), threading.Event(), []
    start = time.monotonic()
    teacher.paused_until = start + 0.1
    waiting = threading.Thread(target=lambda: (teacher.wait(stop), free.append(time.monotonic())))
    waiting.start()
    teacher.paused_until = start + 0.3
    waiting.join()
    assert free[0] - start >= 0.3
    teacher.paused_until = time.monotonic() + 30
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(Cancelled):
        teacher.wait(stop)
    assert time.monotonic() - free[0] < 2
