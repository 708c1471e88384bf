"""A server's answers on disk, written as they arrive: no request is paid twice. One line each:

    {"request": "5d41...", "content": "Fever and rash point to lupus. <answer>B</answer>",
     "reasoning": "", "finish": "stop", "prompt_tokens": 212, "completion_tokens": 31}

``request`` is the sha256 of the request body (model, messages, settings), without the server's
address or key. A last line left half-written by a killed run is cut; other damage is refused.
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
FIELDS = {"request": str, "content": str, "reasoning": str, "finish": str,
          "prompt_tokens": int, "completion_tokens": int}


@dataclass(frozen=True, slots=True)
class Answer:
    content: str
    reasoning: str  # returned by the server in a separate field
    finish: str  # why the text ends: "stop", "length", ...
    prompt_tokens: int = 0
    completion_tokens: int = 0


def digest(request: dict) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """Answers by the digest of their request. Threads may share it; two runs may not."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.lock = threading.Lock()
        self.answers: dict[str, Answer] = {}
        ensure_writable(self.path)
        if self.path.exists():
            cut_torn_line(self.path)
            for number, record in read_jsonl(self.path):
                key, answer = parse_record(record, self.path, number)
                self.answers.setdefault(key, answer)

    def get(self, key: str) -> Answer | None:
        return self.answers.get(key)

    def add(self, key: str, answer: Answer) -> None:
        """Appends and syncs. Raises OSError, with the file unchanged, if the disk is full."""
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
            self.answers.setdefault(key, answer)


def cut_torn_line(path: Path) -> None:
    """Cuts an unfinished last line if it begins like one of ours; other files stay untouched."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", path) from None
    end = data.rfind(b"\n") + 1
    torn = data[end : end + len(START)]
    if torn and START.startswith(torn):
        os.truncate(path, end)


def parse_record(record: dict, path: Path, number: int) -> tuple[str, Answer]:
    types = {name: type(value) for name, value in record.items()}
    if list(types.items()) != list(FIELDS.items()):
        reason = "not an answer of a server: fields are missing, unknown or of the wrong type"
        raise BadInput(reason, path, number)
    key = record.pop("request")
    if not re.fullmatch("[0-9a-f]{64}", key):
        raise BadInput("'request' is no sha256", path, number)
    return key, Answer(**record)
