"""What a server answered, on disk the moment it arrives: no paid answer is asked for twice. One line a request:

    {"request": "5d41...", "content": "Fever and rash point to lupus. <answer>B</answer>", "reasoning": "",
     "finish": "stop", "prompt_tokens": 212, "completion_tokens": 31}

``request`` is the sha256 of what was asked (model, messages, settings; neither the server's address nor a key), the
rest is the raw answer. A last line that a killed run left half written is cut; any other damage is refused.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from minifleming.rods.item import read_jsonl
from minifleming.run.checkpoint import ensure_writable
from minifleming.run.errors import BadInput

START = b'{"request": "'
KINDS = {"request": str, "content": str, "reasoning": str, "finish": str,
         "prompt_tokens": int, "completion_tokens": int}


@dataclass(frozen=True, slots=True)
class Answer:
    content: str
    reasoning: str  # what the server kept apart as thinking
    finish: str  # why the text ends: "stop", "length", ...
    prompt_tokens: int = 0
    completion_tokens: int = 0


def digest(request: dict) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


class Answers:
    """The answers in a file, by the digest of their request. Threads may share it, two runs at one time may not."""

    def __init__(self, path: str | Path):
        self.path, self.lock = Path(path), threading.Lock()
        self.known: dict[str, Answer] = {}
        ensure_writable(self.path)
        if self.path.exists():
            cut_torn_line(self.path)
            for number, record in read_jsonl(self.path):
                key, answer = of_record(record, self.path, number)
                self.known.setdefault(key, answer)

    def get(self, key: str) -> Answer | None:
        return self.known.get(key)

    def add(self, key: str, answer: Answer) -> None:
        """Append and sync. Raises OSError, with the file as it was, if there is no room for the line."""
        line = (json.dumps({"request": key} | dataclasses.asdict(answer)) + "\n").encode()
        with self.lock, open(self.path, "ab", buffering=0) as stream:
            end = stream.tell()
            try:
                if stream.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                os.fsync(stream.fileno())
            except OSError:
                stream.truncate(end)  # half a line would spoil the next one
                raise
            self.known.setdefault(key, answer)


def cut_torn_line(path: Path) -> None:
    """Cut what follows the last line end, if it begins like a line of ours: another file is not touched."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", path) from None
    end = data.rfind(b"\n") + 1
    if end < len(data) and data[end : end + len(START)] == START[: len(data) - end]:
        os.truncate(path, end)


def of_record(record: dict, path: Path, number: int) -> tuple[str, Answer]:
    if list(record) != list(KINDS) or any(type(record[name]) is not kind for name, kind in KINDS.items()):
        raise BadInput("not an answer of a server: fields are missing, surplus or of the wrong kind", path, number)
    key = record.pop("request")
    if not re.fullmatch("[0-9a-f]{64}", key):
        raise BadInput("'request' is no sha256", path, number)
    return key, Answer(**record)
