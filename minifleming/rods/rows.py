"""Rows of text tables: TSV or CSV, plain or gzipped, UTF-8, with their line numbers.

A bad row is passed over and said on stderr with file, line and reason; when more than one row in
a hundred is bad, the read stops with the first of them.
"""

from __future__ import annotations

import csv
import gzip
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from minifleming.run.errors import BadInput

LIMIT = 0.01
SAID = 3


class Table:
    """The rows of one file: ``columns`` is its header; iterating gives (line, cells)."""

    def __init__(self, path: Path, header: bool = True, delimiter: str = ""):
        name = path.name.lower().removesuffix(".gz")
        self.path, self.line, self.good = path, 0, 0
        self.bad: list[tuple[int, str]] = []
        self.delimiter = delimiter or ("," if name.endswith(".csv") else "\t")
        self._cells = self._split(self._lines())
        self.columns: list[str] = []
        if header:
            self.read_header()

    def read_header(self) -> None:
        """Take the next row as the header: once at the start, and again after comment lines."""
        self.columns = [name.strip().lower() for name in next(self._cells, [])]
        self.settle()  # a line passed over here was the header

    def positions(self, names: tuple[str, ...]) -> list[int]:
        """Returns where each of the columns is. Raises BadInput if one is missing."""
        for name in names:
            if name not in self.columns:
                raise BadInput(f"no column '{name}' in the header", self.path, max(self.line, 1))
        return [self.columns.index(name) for name in names]

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """(line, cells) of every row with as many cells as the header."""
        width = len(self.columns)
        for cells in self._cells:
            if width and len(cells) != width:
                self.refuse(self.line, f"{len(cells)} columns where the header has {width}")
            else:
                self.good += 1
                yield self.line, cells

    def refuse(self, line: int, reason: str, counted: bool = False) -> None:
        """Note a bad row; ``counted`` if it was handed out as good before."""
        self.bad.append((line, reason))
        self.good -= counted

    def settle(self) -> None:
        """Say the bad rows, or stop the read if there are too many. Raises BadInput."""
        settle(self.path, self.bad, self.good)

    def _lines(self) -> Iterator[str]:
        try:
            open_file = gzip.open if self.path.name.lower().endswith(".gz") else open
            with open_file(self.path, "rb") as file:
                for self.line, data in enumerate(file, 1):
                    try:
                        text = data.decode("utf-8-sig" if self.line == 1 else "utf-8")
                    except UnicodeDecodeError:
                        self.refuse(self.line, "not UTF-8 text")
                        continue
                    yield text
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise BadInput("damaged gzip data", self.path, self.line + 1) from None
        except OSError as error:
            raise BadInput(error.strerror or "cannot be read", self.path) from None

    def _split(self, lines: Iterable[str]) -> Iterator[list[str]]:
        if self.delimiter == "\t":
            return (line.rstrip("\r\n").split("\t") for line in lines)
        return self._csv(lines)

    def _csv(self, lines: Iterable[str]) -> Iterator[list[str]]:
        try:
            yield from csv.reader(lines, delimiter=self.delimiter, strict=True)
        except csv.Error as error:
            raise BadInput(f"no CSV: {error}", self.path, self.line) from None


def settle(path: Path, bad: list[tuple[int, str]], good: int) -> None:
    """Prints up to three bad rows (line, reason). Raises BadInput if more than 1 % are bad."""
    if not bad:
        return
    line, reason = bad[0]
    if len(bad) > LIMIT * (len(bad) + good):
        more = f" ({len(bad)} bad rows of {len(bad) + good})" if len(bad) > 1 else ""
        raise BadInput(reason + more, path, line)
    for line, reason in bad[:SAID]:
        print(f"minifleming: {path}:{line}: {reason}; passed over", file=sys.stderr)
    if len(bad) > SAID:
        count = f"{len(bad)} bad rows of {len(bad) + good}"
        print(f"minifleming: {path}: {count} passed over", file=sys.stderr)
