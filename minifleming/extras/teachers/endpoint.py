"""A served model as teacher: one chat-completion request per sample (server.py).

    user: <prompt of the strategy>

          A. prednisone
          B. colchicine

          Reason first, concisely, in plain sentences. Then end with ... <answer>A|B</answer>

The seed of a request depends on (seed, item, strategy, sample); results do not depend on the order
in which answers arrive.

    no connection, time-out, 408, 409, 429,   retried, with growing delays
    5xx, a reply that is no chat completion
    429 with Retry-After                      all workers wait that long; uses up no retry
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
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from minifleming.cold_start.trace import Trace, new_trace
from minifleming.extras.teachers.answer_cache import Answer, AnswerCache, digest
from minifleming.extras.teachers.prompts import ask, fill, listing, read_completion
from minifleming.extras.teachers.rate_limit import Cancelled, RateLimiter, backoff, retry_after
from minifleming.extras.teachers.server import KEY_VARIABLE, Reply, Server
from minifleming.rods.item import Item
from minifleming.run.errors import BadInput, RunFailed

RETRIED = (0, 200, 408, 409, 429)  # 200: the body was no chat completion
REFUSED = (400, 413, 422)
MAX_REFUSED = 16  # refused requests before any answer, after which the run fails


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
    requests_per_minute: float = math.inf


def open_endpoint(url: str, args: argparse.Namespace) -> Endpoint:
    """Returns the teacher behind a URL; its answers are cached next to ``args.out``."""
    if not args.model:
        raise BadInput(f"--model: which model of {url}?")
    cache = AnswerCache(args.out.with_name(f"{args.out.name}.answers.jsonl"))
    settings = EndpointSettings(temperature=args.temperature, max_tokens=args.max_new_tokens,
                                seed=args.seed, workers=args.workers, timeout=args.timeout,
                                retries=args.retries, requests_per_minute=args.requests_per_minute)
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
        self.limiter = RateLimiter(self.settings.requests_per_minute)
        self.num_answers = 0
        self.num_refused = 0

    def propose(self, items: Sequence[Item], strategy: str = "blind", samples: int = 1,
                earlier: Sequence[Trace] = ()) -> list[list[Trace]]:
        requests = []
        for item, trace in zip(items, earlier or [None] * len(items)):
            text = ask(item, strategy, trace)
            for sample in range(samples):
                key = (item.id, strategy, sample)
                requests.append(self.request(text, item, self.settings.temperature, key))
        answers = iter(self.answers_to(requests))
        proposals = []
        for item in items:
            traces = []
            for _ in range(samples):
                reasoning, label = read(next(answers), item.labels)
                traces.append(new_trace(item, reasoning, label, strategy, self.name))
            proposals.append(traces)
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
        keys = [digest(request) for request in requests]
        missing = {}
        for key, request in zip(keys, requests):
            if not self.cache.get(key):
                missing[key] = request
        self.num_answers += len(set(keys)) - len(missing)
        refused = {}
        with closing(self.outcomes(missing)) as arriving:
            for key, outcome in arriving:
                if isinstance(outcome, Reply):
                    refused[key] = outcome
                else:
                    self.num_answers += 1
                if len(refused) >= MAX_REFUSED and not self.num_answers:
                    break
        if refused and not self.num_answers:
            first = refused[min(refused, key=keys.index)]
            raise RunFailed(f"no request succeeds: {self.server.describe(first)}")
        self.num_refused += len(refused)
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
            self.limiter.wait(stop)
            reply = self.server.post(body)
            answer = read_reply(reply.body, self.server.hide_key) if reply.status == 200 else None
            if answer:
                self.cache.add(key, answer)
                return answer
            if reply.status in REFUSED:
                return reply
            if reply.status not in RETRIED and reply.status < 500:
                raise RunFailed(self.server.describe(reply) + hint(reply.status))
            requested = retry_after(reply.retry_after)
            if (not requested and attempt == self.settings.retries) or time.monotonic() > until:
                raise RunFailed(f"{self.server.describe(reply)} (asked {attempt + 1} times)")
            self.wait(reply, requested, backoff(key, attempt, self.settings.first_wait), stop)
            if not requested:
                attempt += 1

    def wait(self, reply: Reply, requested: float, seconds: float, stop: threading.Event) -> None:
        """Waits before a retry: all workers if the server limits the rate, else this one."""
        longest = self.settings.longest_wait
        if requested > longest:
            reason = f"asks to wait {requested:.0f} seconds; at most {longest:.0f} are waited"
            raise RunFailed(f"{self.server.describe(reply)} ({reason})")
        if reply.status == 429 or requested:
            self.limiter.pause(requested or seconds)
        elif stop.wait(seconds):
            raise Cancelled


def hint(status: int) -> str:
    if status in (401, 403):
        return f" (the key is read from the environment variable {KEY_VARIABLE})"
    if 300 <= status < 400:
        return " (redirects are not followed: give the final address)"
    if status == 404:
        return " (does the address end as in http://localhost:8000/v1?)"
    return ""


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
    texts = [hide_key(without_surrogates(text or "")) for text in texts]
    counts = [n if type(n) is int and n >= 0 else 0 for n in counts]
    return Answer(*texts, *counts)


def without_surrogates(text: str) -> str:
    """Replaces lone surrogates, which JSON allows and UTF-8 files do not."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def read(answer: Answer | None, labels: str) -> tuple[str, str]:
    """Returns reasoning and label. An answer that was cut at max_tokens has no label."""
    if answer is None:
        return "", ""
    reasoning, label = read_completion(answer.content, labels)
    if not reasoning.strip():
        reasoning = answer.reasoning.strip()
    return reasoning, "" if answer.finish == "length" else label
