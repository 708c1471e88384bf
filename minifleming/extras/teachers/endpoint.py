"""A served model as teacher: one request a sample to a server of chat completions (server.py).

    user: <prompt of the strategy>

          A. prednisone
          B. colchicine

          Reason first, concisely, in plain sentences. Then end with ... <answer>A|B</answer>

What a request samples depends on (seed, item, strategy, sample), what is returned not on the order of arrival.

    no connection, time-out, 408, 409, 429, 5xx, a reply that is no chat completion     asked again, later each time
    429, or a Retry-After                    all workers wait, as long as the header says; that spends no retry
    400, 413, 422                            a prompt too long for the model, say: counts as an answer that cannot be
                                             read, but only beside requests that succeed; if none does, the run fails
    401, 403, 404, redirects, the rest       the run fails

Every answer is in answers.py's file before it is used. A 400 is not: it cost nothing, and a server with more room for
the prompt may answer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from minifleming.cold_start.trace import Trace, new_trace
from minifleming.extras.teachers.answers import Answer, Answers, digest
from minifleming.extras.teachers.pace import Pace, Stopped, backoff, retry_after
from minifleming.extras.teachers.prompts import ask, fill, listing, read_completion
from minifleming.extras.teachers.server import Reply, Server
from minifleming.rods.item import Item
from minifleming.run.errors import BadInput, RunFailed

AGAIN = (0, 200, 408, 409, 429)  # 200 stands for a body that is no chat completion
REFUSED = (400, 413, 422)
HOPELESS = 16  # requests refused, and none answered


def open_endpoint(url: str, args: argparse.Namespace, progress: Callable[[int], None]) -> Endpoint:
    """Returns the teacher behind a URL, with the command's arguments; its answers are kept next to --out."""
    if not args.model:
        raise BadInput(f"--model: which model of {url}?")
    answers = Answers(args.out.with_name(f"{args.out.name}.answers.jsonl"))
    return Endpoint(url, args.model, answers, temperature=args.temperature, max_tokens=args.max_new_tokens,
                    seed=args.seed, workers=args.workers, timeout=args.timeout, retries=args.retries,
                    requests_per_minute=args.requests_per_minute, done=progress)


class Endpoint:
    def __init__(self, url: str, model: str, answers: Answers, *, name: str = "", temperature: float = 1.0,
                 max_tokens: int = 4096, seed: int = 0, workers: int = 8, timeout: float = 600.0, retries: int = 8,
                 first_wait: float = 1.0, longest_wait: float = 600.0, patience: float = 7200.0,
                 requests_per_minute: float = math.inf, key_variable: str = "MINIFLEMING_API_KEY",
                 extra: dict | None = None, done: Callable[[int], None] = lambda count: None):
        """``retries``: attempts after the first. ``first_wait``: seconds before the first of them; ``longest_wait``: a
        server that asks for more ends the run, and so does one that has put a request off for ``patience`` seconds in
        all. ``extra``: more fields of a request, such as {"top_p": 0.95}.
        ``done`` is called with the number of samples that ended. Raises BadInput.
        """
        for setting, value, good in (
                ("temperature", temperature, 0 <= temperature < math.inf), ("max_tokens", max_tokens, max_tokens >= 1),
                ("workers", workers, workers >= 1), ("timeout", timeout, 0 < timeout < math.inf),
                ("retries", retries, retries >= 0), ("requests_per_minute", requests_per_minute,
                                                     requests_per_minute > 0)):
            if not good:
                raise BadInput(f"{setting}: {value} is not possible")
        self.server, self.name, self.answers = Server(url, key_variable, timeout), name or model, answers
        self.settings = (extra or {}) | {"model": model, "max_tokens": max_tokens, "n": 1}
        self.temperature, self.seed, self.workers, self.retries = temperature, seed, workers, retries
        self.first_wait, self.longest_wait, self.pace = first_wait, longest_wait, Pace(requests_per_minute)
        self.patience = patience
        self.done, self.usage = done, Counter()  # answers, of them cached, refused, prompt_tokens, completion_tokens

    def propose(self, items: Sequence[Item], strategy: str = "blind", samples: int = 1,
                earlier: Sequence[Trace] = ()) -> list[list[Trace]]:
        asked = [ask(item, strategy, trace) for item, trace in zip(items, earlier or [None] * len(items))]
        requests = [self.request(text, item, self.temperature, strategy, sample)
                    for item, text in zip(items, asked) for sample in range(samples)]
        found = iter(self.answers_to(requests, self.done))
        return [[new_trace(item, *read(next(found), item.labels), strategy, self.name) for _ in range(samples)]
                for item in items]

    def resolve(self, items: Sequence[Item], reasonings: Sequence[str]) -> list[str]:
        requests = [self.request(fill("resolve", reasoning=reasoning), item, 0.0, "resolve", 0)
                    for item, reasoning in zip(items, reasonings)]
        return [read(answer, item.labels)[1] for item, answer in zip(items, self.answers_to(requests))]

    def request(self, text: str, item: Item, temperature: float, *key) -> dict:
        text = "\n\n".join((text, listing(item.options), fill("format", label="|".join(item.labels))))
        return self.settings | {"messages": [{"role": "user", "content": text}], "temperature": temperature,
                                "seed": seed_of(self.seed, item.id, *key)}

    def answers_to(self, requests: list[dict], done: Callable[[int], None] = lambda count: None) -> list[Answer | None]:
        """In the order of the requests; None where the server refused one. Equal requests are asked once."""
        keys = [digest(request) for request in requests]
        times, asked = Counter(keys), dict(zip(keys, requests))
        missing, refused = {}, {}
        for key, request in asked.items():
            if answer := self.answers.get(key):
                self.count(answer, cached=True)
                done(times[key])
            else:
                missing[key] = request
        with closing(self.outcomes(missing)) as arriving:
            for key, outcome in arriving:
                if isinstance(outcome, Reply):
                    refused[key] = outcome
                else:
                    self.count(outcome)
                if len(refused) >= HOPELESS and not self.usage["answers"]:
                    break
                done(times[key])
        if refused and not self.usage["answers"]:
            raise RunFailed(f"no request succeeds: {self.server.tell(refused[min(refused, key=keys.index)])}")
        self.usage["refused"] += len(refused)
        return [self.answers.get(key) for key in keys]

    def outcomes(self, missing: dict[str, dict]) -> Iterator[tuple[str, Answer | Reply]]:
        """As they arrive. Raises what a worker failed with; the others end after the request they are at."""
        todo, found, stop = queue.SimpleQueue(), queue.SimpleQueue(), threading.Event()
        for pair in missing.items():
            todo.put(pair)
        # Daemons: a pool's threads would be joined at the end of the process, an interrupt would wait for the server.
        for _ in range(min(self.workers, len(missing))):
            threading.Thread(target=self.work, args=(todo, found, stop), daemon=True).start()
        try:
            for _ in missing:
                key, outcome = found.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                yield key, outcome
        finally:
            stop.set()

    def count(self, answer: Answer, cached: bool = False) -> None:
        self.usage.update(answers=1, cached=int(cached), prompt_tokens=answer.prompt_tokens,
                          completion_tokens=answer.completion_tokens)

    def work(self, todo: queue.SimpleQueue, found: queue.SimpleQueue, stop: threading.Event) -> None:
        """A worker: request after request until none is left or one fails for good."""
        key = ""
        try:
            while not stop.is_set():
                key, request = todo.get_nowait()
                found.put((key, self.outcome(key, request, stop)))
        except (queue.Empty, Stopped):
            pass
        except BaseException as error:  # the main thread raises it
            found.put((key, error))

    def outcome(self, key: str, request: dict, stop: threading.Event) -> Answer | Reply:
        """The answer, on disk already, or the reply that refuses the request. Raises RunFailed."""
        body, attempt, until = json.dumps(request).encode(), 0, time.monotonic() + self.patience
        while True:
            self.pace.wait(stop)
            reply = self.server.post(body)
            if reply.status == 200 and (answer := read_reply(reply.body, self.server.hide)):
                self.answers.add(key, answer)
                return answer
            if reply.status in REFUSED:
                return reply
            if reply.status not in AGAIN and reply.status < 500:
                raise RunFailed(self.server.tell(reply) + self.hint(reply.status))
            asked = retry_after(reply.retry_after)
            if not asked and attempt == self.retries or time.monotonic() > until:
                raise RunFailed(f"{self.server.tell(reply)} (asked {attempt + 1} times)")
            self.wait(reply, asked, backoff(key, attempt, self.first_wait), stop)
            attempt += not asked

    def wait(self, reply: Reply, asked: float, seconds: float, stop: threading.Event) -> None:
        if asked > self.longest_wait:
            raise RunFailed(f"{self.server.tell(reply)} (asks to wait {asked:.0f} seconds; at most "
                            f"{self.longest_wait:.0f} are waited)")
        if reply.status == 429 or asked:
            self.pace.pause(asked or seconds)
        elif stop.wait(seconds):
            raise Stopped

    def hint(self, status: int) -> str:
        if status in (401, 403):
            return f" (the key is taken from the environment variable {self.server.key_variable})"
        if 300 <= status < 400:
            return " (redirects are not followed: give the final address)"
        return " (does the address end as in http://localhost:8000/v1?)" if status == 404 else ""


def seed_of(seed: int, *key) -> int:
    """31 bits, which every server takes."""
    text = "\x1f".join(map(str, (seed, *key)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") >> 1


def read_reply(body: bytes, hide: Callable[[str], str] = str) -> Answer | None:
    """The answer in a chat completion; None if the body is none. Thinking may stand apart, in one of two fields."""
    try:
        reply = json.loads(body)
        choice = reply["choices"][0]
        message, usage = choice["message"], reply.get("usage") or {}
        texts = (message["content"], message.get("reasoning_content") or message.get("reasoning"),
                 choice.get("finish_reason"))
        counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    if not all(text is None or isinstance(text, str) for text in texts):
        return None
    # Half of a character beyond the first plane is possible in JSON and in no file.
    return Answer(*(hide((text or "").encode("utf-8", "surrogatepass").decode("utf-8", "replace")) for text in texts),
                  *(n if type(n) is int and n >= 0 else 0 for n in counts))


def read(answer: Answer | None, labels: str) -> tuple[str, str]:
    """Reasoning and label. A text that was cut at max_tokens has no label, whatever it says."""
    if answer is None:
        return "", ""
    reasoning, label = read_completion(answer.content, labels)
    return reasoning.strip() and reasoning or answer.reasoning.strip(), "" if answer.finish == "length" else label
