"""Reads the log of a run and checks its hash chain (written by rlvr/log.py)."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path

from minifleming.rlvr import log
from minifleming.run.errors import BadInput, RunFailed

HASHED = re.compile(r'^(.*), "hash": "([0-9a-f]{64})"\}$', re.DOTALL)


class LogReader:
    """Reads the log in order and checks that each line is the next link of the chain."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.chain = self.start = check_format(folder)
        self.lines: dict[str, list[tuple[int, str]]] = {}
        for name in ("mining.jsonl", "metrics.jsonl"):
            path = folder / name
            lines = read_lines(path) if path.exists() else []
            # lines of the cold start are not links
            self.lines[name] = [(number, line) for number, line in enumerate(lines, 1)
                                if '"stage": "cold_start"' not in line][::-1]

    def more(self, name: str) -> bool:
        return bool(self.lines[name])

    def next(self, name: str) -> tuple[dict, str]:
        """Returns the next entry of a file and its place, as FILE:LINE."""
        path = self.folder / name
        if not self.more(name):
            raise RunFailed(f"{path}: ends too early")
        number, line = self.lines[name].pop()
        entry, self.chain = check_hash(line, self.chain, path, number)
        return entry, f"{path}:{number}"

    def samples(self, step: int) -> list[tuple[dict, str]]:
        """Returns the records of a step with their places."""
        path = log.step_path(self.folder, step)
        if not path.exists():
            raise RunFailed(f"{path}: is missing")
        found = []
        for number, line in enumerate(read_lines(path), 1):
            entry, self.chain = check_hash(line, self.chain, path, number)
            found.append((entry, f"{path}:{number}"))
        return found

    def check_end(self, last_step: int) -> None:
        """Raises RunFailed if the log continues after the end of the run."""
        for name, lines in self.lines.items():
            if lines:
                raise RunFailed(f"{self.folder / name}:{lines[-1][0]}: after the end of the run")
        path = log.step_path(self.folder, last_step + 1)
        if path.exists():
            raise RunFailed(f"{path}: after the end of the run")


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a log. Raises BadInput if there is none, RunFailed if it is damaged.

    An uncompressed log may end in a line that a killed run left incomplete; that line is left out.
    """
    if not path.is_file():
        raise BadInput("no such file", path)
    raw = path.read_bytes()
    try:
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        lines = raw.decode().split("\n")  # str.splitlines would also split at U+2028
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise RunFailed(f"{path}: damaged: {error}") from None
    if lines.pop() and path.suffix == ".gz":
        raise RunFailed(f"{path}: damaged: its last line is incomplete")
    return lines


def read_step(folder: Path, step: int) -> list[dict]:
    """Returns the records of a step without checking their hashes."""
    path = log.step_path(folder, step)
    return [parse_record(line, path, number) for number, line in enumerate(read_lines(path), 1)]


def check_format(folder: Path) -> str:
    """Returns the hash that a log continues from, "" if it begins there.

    Raises RunFailed if the log has no intact first record, BadInput if it has another format.
    """
    path = folder / "mining.jsonl"
    lines = read_lines(path) if path.exists() else []
    if not lines:
        raise RunFailed(f"{path}: has no first record")
    start = parse_record(lines[0], path, 1).get("from")
    genesis, _ = check_hash(lines[0], str(start), path, 1)
    if genesis.get("format") != log.FORMAT:
        raise BadInput(f"a log of format {genesis.get('format', 1)}, from another version of "
                       f"minifleming; this one reads format {log.FORMAT}", path)
    return str(start)


def check_hash(line: str, chain: str, path: Path, number: int) -> tuple[dict, str]:
    """Returns the entry of a line, and its hash. Raises RunFailed if a byte was changed."""
    match = HASHED.match(line)
    if not match or log.sha256_text(f"{chain}{match[1]}}}") != match[2]:
        raise RunFailed(f"{path}:{number}: the hash does not match: this line, or the one "
                        "before it, was changed")
    return parse_record(f"{match[1]}}}", path, number), match[2]


def parse_record(line: str, path: Path, number: int) -> dict:
    """Returns the JSON object of a line. Raises RunFailed if it is something else."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RunFailed(f"{path}:{number}: not valid JSON: {error}") from None
    if not isinstance(entry, dict):
        raise RunFailed(f"{path}:{number}: not a record")
    return entry
