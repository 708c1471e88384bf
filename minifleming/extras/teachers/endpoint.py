"""A served model as teacher: one chat-completion request per sample (server.py).

    user: <prompt of the strategy>

          A. prednisone
          B. colchicine

          Reason first, concisely, in plain sentences. Then end with ... <answer>A|B</answer>

The seed of a request depends on (seed, item, strategy, sample); results do not depend on the order
in which answers arrive.

    no connection, time-out, 408, 409, 429,   retried, with growing delays
    5xx, a reply that is no chat completion
    429 with Retry-After: SECONDS             all workers wait that long; uses up no retry
    400, 413, 422                             (say, the prompt is too long) an unreadable answer, if
                                              other requests succeed; otherwise the run fails
    401, 403, 404, redirects, others          the run fails

Every answer is written to the cache (answer_cache.py) before it is used. A refused request is not
cached: it cost nothing, and a server with a longer context may answer it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from minifleming.cold_start.trace import Trace, new_trace
from minifleming.extras.teachers.answer_cache import Answer, AnswerCache, digest
from minifleming.extras.teachers.prompts import ask, fill, listing, read_completion
from minifleming.extras.teachers.server import KEY_VARIABLE, Reply, Server
from minifleming.rods.item import Item
from minifleming.run.errors import BadInput, RunFailed

RETRIED = (0, 200, 408, 409, 429)  # 200: the body was no chat completion
REFUSED = (400, 413, 422)
LONGEST_BACKOFF = 60.0  # seconds
KEY_HINT = f" (the key is read from the environment variable {KEY_VARIABLE})"
HINTS = {401: KEY_HINT, 403: KEY_HINT,
         404: " (does the address end as in http://localhost:8000/v1?)"}
REDIRECT = " (redirects are not followed: give the final address)"


class Cancelled(Exception):
    """The run ended while a worker was waiting."""


@dataclass(frozen=True)
class EndpointSettings:
    temperature: float = 1.0
    max_tokens: int = 4096
    seed: int = 0
    workers: int = 8  # concurrent requests
    timeout: float = 600.0  # seconds per answer
    retries: int = 8  # attempts after the first
    first_wait: float = 1.0  # seconds before the first retry
    longest_wait: float = 600.0  # a Retry-After beyond this ends the run
    total_retry_seconds: float = 7200.0  # of one request


def open_endpoint(url: str, args: argparse.Namespace) -> Endpoint:
    """Returns the teacher behind a URL; its answers are cached next to ``args.out``."""
    if not args.model:
        raise BadInput(f"--model: which model of {url}?")
    cache = AnswerCache(args.out.with_name(f"{args.out.name}.answers.jsonl"))
    settings = EndpointSettings(args.temperature, args.max_new_tokens, args.seed, args.workers,
                                args.timeout, args.retries)
    return Endpoint(url, args.model, cache, settings)


class Endpoint:
    """A Teacher (see cold_start/trace.py)."""

    def __init__(self, url: str, model: str, cache: AnswerCache,
                 settings: EndpointSettings | None = None):
        """Raises BadInput for a bad URL or API key."""
        self.name = model
        self.cache = cache
        self.settings = settings or EndpointSettings()
        self.server = Server(url, self.settings.timeout)
        self.paused_until = 0.0  # all workers wait until then
        self.num_answers = 0
        self.num_refused = 0

    def propose(self, items: Sequence[Item], strategy: str = "blind", samples: int = 1,
                earlier: Sequence[Trace] = ()) -> list[list[Trace]]:
        requests = []
        owners = []
        for i, item in enumerate(items):
            text = ask(item, strategy, earlier[i] if earlier else None)
            for sample in range(samples):
                key = (item.id, strategy, sample)
                requests.append(self.request(text, item, self.settings.temperature, key))
                owners.append(i)
        proposals = [[] for _ in items]
        for i, answer in zip(owners, self.answers_to(requests)):
            reasoning, label = read(answer, items[i].labels)
            proposals[i].append(new_trace(items[i], reasoning, label, strategy, self.name))
        return proposals

    def resolve(self, items: Sequence[Item], reasonings: Sequence[str]) -> list[str]:
        requests = []
        for item, reasoning in zip(items, reasonings):
            text = fill("resolve", reasoning=reasoning)
            requests.append(self.request(text, item, 0.0, (item.id, "resolve", 0)))
        answers = self.answers_to(requests)
        return [read(answer, item.labels)[1] for item, answer in zip(items, answers)]

    def request(self, text: str, item: Item, temperature: float, key: tuple) -> dict:
        form = fill("format", label="|".join(item.labels))
        text = "\n\n".join((text, listing(item.options), form))
        return {"model": self.name, "max_tokens": self.settings.max_tokens, "n": 1,
                "messages": [{"role": "user", "content": text}], "temperature": temperature,
                "seed": seed_of(self.settings.seed, *key)}

    def answers_to(self, requests: list[dict]) -> list[Answer | None]:
        """Returns answers in the order of the requests; None for a refused request.

        Equal requests are sent once.
        """
        keys = list(map(digest, requests))
        by_key = dict(zip(keys, requests))
        missing = {key: request for key, request in by_key.items() if not self.cache.get(key)}
        refused = {}
        for key, outcome in self.outcomes(missing):
            if isinstance(outcome, Reply):
                refused[key] = outcome
        self.num_answers += len(by_key) - len(refused)
        self.num_refused += len(refused)
        if refused and not self.num_answers:
            first = refused[min(refused, key=keys.index)]
            raise RunFailed(f"no request succeeds: {self.server.describe(first)}")
        return [self.cache.get(key) for key in keys]

    def outcomes(self, missing: dict[str, dict]) -> Iterator[tuple[str, Answer | Reply]]:
        """Yields outcomes as they arrive. Raises the error of a worker and stops the others."""
        todo = queue.SimpleQueue()
        done = queue.SimpleQueue()
        stop = threading.Event()
        for pair in missing.items():
            todo.put(pair)
        for _ in range(min(self.settings.workers, len(missing))):
            # daemon threads: an interrupt does not wait for the server, as a pool's join would
            threading.Thread(target=self.work, args=(todo, done, stop), daemon=True).start()
        try:
            for _ in missing:
                key, outcome = done.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                yield key, outcome
        finally:
            stop.set()

    def work(self, todo: queue.SimpleQueue, done: queue.SimpleQueue,
             stop: threading.Event) -> None:
        """Sends requests until none is left or one fails for good."""
        key = ""
        try:
            while not stop.is_set():
                key, request = todo.get_nowait()
                done.put((key, self.outcome(key, request, stop)))
        except (queue.Empty, Cancelled):
            pass
        except BaseException as error:  # raised again by the main thread
            done.put((key, error))

    def outcome(self, key: str, request: dict, stop: threading.Event) -> Answer | Reply:
        """Returns the cached answer, or the reply that refuses the request. Raises RunFailed."""
        body = json.dumps(request).encode()
        attempt = 0
        until = time.monotonic() + self.settings.total_retry_seconds
        while True:
            self.wait(stop)
            reply = self.server.post(body)
            answer = read_reply(reply.body, self.server.hide_key) if reply.status == 200 else None
            if answer:
                self.cache.add(key, answer)
                return answer
            if reply.status in REFUSED:
                return reply
            if reply.status not in RETRIED and reply.status < 500:
                hint = REDIRECT if 300 <= reply.status < 400 else HINTS.get(reply.status, "")
                raise RunFailed(self.server.describe(reply) + hint)
            seconds = reply.retry_after
            if seconds > self.settings.longest_wait:
                reason = f"at most {self.settings.longest_wait:.0f} are waited"
                reason = f"asks to wait {seconds:.0f} seconds; {reason}"
                raise RunFailed(f"{self.server.describe(reply)} ({reason})")
            if (not seconds and attempt == self.settings.retries) or time.monotonic() > until:
                raise RunFailed(f"{self.server.describe(reply)} (asked {attempt + 1} times)")
            if not seconds:
                seconds = backoff(key, attempt, self.settings.first_wait)
                attempt += 1
            if reply.status == 429 or reply.retry_after:
                self.paused_until = max(self.paused_until, time.monotonic() + seconds)
            elif stop.wait(seconds):
                raise Cancelled

    def wait(self, stop: threading.Event) -> None:
        """Waits until no pause is in effect; a pause may be extended meanwhile."""
        seconds = 0.0
        while not stop.wait(seconds):
            seconds = self.paused_until - time.monotonic()
            if seconds <= 0:
                return
        raise Cancelled


def backoff(key: str, attempt: int, first: float) -> float:
    """Returns seconds before the next attempt: doubled each time, with jitter from a hash."""
    jitter = seed_of(attempt, key) / 2**31
    return min(LONGEST_BACKOFF, first * 2.0 ** min(attempt, 30)) * (0.5 + jitter / 2)


def seed_of(seed: int, *key) -> int:
    """Returns 31 bits, which every server accepts."""
    text = "\x1f".join(map(str, (seed, *key)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") >> 1


def read_reply(body: bytes, hide_key: Callable[[str], str] = str) -> Answer | None:
    """Returns the answer of a chat completion, or None if the body is none.

    Reasoning may come in a separate field, which has two names in use.
    """
    try:
        reply = json.loads(body)
        choice = reply["choices"][0]
        message = choice["message"]
        usage = reply.get("usage") or {}
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        texts = (message["content"], reasoning, choice.get("finish_reason"))
        counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    if not all(text is None or isinstance(text, str) for text in texts):
        return None
    # lone surrogates are possible in JSON and not in UTF-8 files
    texts = [(text or "").encode("utf-8", "surrogatepass").decode("utf-8", "replace")
             for text in texts]
    counts = [n if type(n) is int and n >= 0 else 0 for n in counts]
    return Answer(*map(hide_key, texts), *counts)


def read(answer: Answer | None, labels: str) -> tuple[str, str]:
    """Returns reasoning and label. An answer that was cut at max_tokens has no label."""
    if answer is None:
        return "", ""
    reasoning, label = read_completion(answer.content, labels)
    if not reasoning.strip():
        reasoning = answer.reasoning.strip()
    return reasoning, "" if answer.finish == "length" else label
