"""What the readers of public sets share: files to records, records to rows, and the two ways a row can fail.

    Row(file=Path("test.jsonl"), n=3, line=3, own="q17", question="Which vitamin ...", options=("B1", "C"), answer="B",
        language="en", facts={"subject": "Nutrition"}, fault="")

A reader gives `each` a function from a record to a `Draft`. It may raise `Damaged` (the file is not what it should be:
a field is missing, a label is out of range) or `Unfit` (the set is like that: no gold label, several answers). Either
way the row keeps the reason in `fault`. When more than 1 % of a file's rows are damaged the file is refused.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from minifleming.rods.item import LABELS
from minifleming.run.errors import BadInput

DAMAGE_LIMIT = 0.01  # of a file's rows
BOM = b"\xef\xbb\xbf"
ZIP = b"PK\x03\x04"  # what every .xlsx begins with


class Damaged(ValueError):
    """A row that does not follow its set's layout."""


class Unfit(ValueError):
    """A row that follows the layout and still is no item with one right answer."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a set's own file makes of a record: the texts in the order of the labels, and the right label."""

    question: str
    options: tuple[str, ...]
    answer: str
    facts: dict = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a set: ``n`` counts from 1, ``line`` is None in files that are one JSON document."""

    file: Path
    n: int
    line: int | None
    own: str = ""  # the set's id of it, or empty
    question: str = ""
    options: tuple[str, ...] = ()
    answer: str = ""
    language: str = "en"
    facts: dict = field(default_factory=dict)
    fault: str = ""


Record = tuple[int | None, object]  # (line, what stands there, or the Damaged that says why it cannot be read)


def each(path: Path, records: Iterator[Record], build: Callable[[object], Draft], *, key: str = "",
         language: str = "en") -> Iterator[Row]:
    """One row a record; ``key`` names the field with the set's own id.

    Raises BadInput at the end of the file if it has no rows or more than 1 % damaged ones, with the first of them.
    """
    rows, damaged = 0, []
    for n, (line, record) in enumerate(records, 1):
        rows, own, draft, fault = n, "", Draft("", (), ""), ""
        try:
            if isinstance(record, Damaged):
                raise record
            own = own_id(record, key)
            draft = build(record)
        except (Damaged, Unfit) as error:
            fault = str(error)
            if isinstance(error, Damaged):
                damaged.append((n, line, fault))
        yield Row(path, n, line, own, draft.question, draft.options, draft.answer, language, draft.facts, fault)
    if not rows:
        raise BadInput("no rows", path)
    if len(damaged) > DAMAGE_LIMIT * rows:
        n, line, fault = damaged[0]
        reason = fault if line else f"row {n}: {fault}"
        raise BadInput(f"{reason} ({len(damaged)} of {rows} rows are damaged)", path, line)


def own_id(record, key: str) -> str:
    """The set's id of a record: a text or a whole number; empty where there is none."""
    value = record.get(key) if key and isinstance(record, dict) else None
    if value is None:
        return ""
    if type(value) not in (str, int):
        raise Damaged(f"'{key}' must be a text or a whole number")
    return readable(str(value), key)


# Files to records


def load(path: Path) -> bytes:
    """The bytes of a file without a byte order mark."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", path) from None
    if data.startswith(ZIP):
        raise BadInput("a spreadsheet (.xlsx) or an archive, not text; evaluation/sets/jmed.py says how to export one", path)
    return data.removeprefix(BOM)


def jsonl(path: Path) -> Iterator[Record]:
    """A JSON object a line; blank lines are passed over."""
    for number, line in enumerate(load(path).split(b"\n"), 1):
        if line.strip():
            yield number, _json_line(line)


def _json_line(line: bytes) -> dict | Damaged:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return Damaged("not UTF-8 text")
    except (ValueError, RecursionError):
        return Damaged("not valid JSON")
    return record if isinstance(record, dict) else Damaged("not a JSON object")


def document(path: Path, kind: type):
    """A file that is one JSON value of the given type, dict or list."""
    try:
        value = json.loads(load(path).decode("utf-8"))
    except UnicodeDecodeError:
        raise BadInput("not UTF-8 text", path) from None
    except (ValueError, RecursionError):
        raise BadInput("not valid JSON", path) from None
    if not isinstance(value, kind):
        raise BadInput(f"not a JSON {'object' if kind is dict else 'list'}", path)
    return value


def table(path: Path) -> Iterator[Record]:
    """The rows of a CSV file as lists of cells, each with the line where it begins.

    Quotes are read strictly: read laxly, one that is never closed swallows the rest of the file as a single cell.
    """
    text = load(path).decode("utf-8", errors="surrogateescape")
    reader, line = csv.reader(io.StringIO(text, newline=""), strict=True), 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise BadInput(f"not valid CSV: {error}", path, line) from None
        if cells is None:
            return
        if cells:
            yield line, cells if all(map(_encodes, cells)) else Damaged("not UTF-8 text")
        line = reader.line_num + 1


# Fields of a record


def need(record: dict, name: str):
    if name not in record:
        raise Damaged(f"missing '{name}'")
    return record[name]


def text(record: dict, name: str) -> str:
    """A field that must be text, without white space at its ends."""
    return readable(need(record, name), name)


def readable(value, name: str) -> str:
    if not isinstance(value, str):
        raise Damaged(f"'{name}' must be text")
    if "\0" in value or not _encodes(value):
        raise Damaged(f"'{name}' holds a NUL or half a character")
    return value.strip()


def _encodes(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def texts(values, name: str) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(values, list):
        raise Damaged(f"'{name}' must be a list")
    return tuple(readable(value, name) for value in values)


def labelled(options, name: str = "options") -> tuple[str, ...]:
    """The texts of {label: text}, in the order of the labels, which must be A, B, C ... without a gap."""
    if not isinstance(options, dict):
        raise Damaged(f"'{name}' must map labels to texts")
    if sorted(options) != list(LABELS[: len(options)]):
        raise Damaged(f"the labels of '{name}' are not A, B, C ... up to Z at most")
    return tuple(readable(options[label], name) for label in sorted(options))


def letter(value, options: tuple[str, ...], name: str) -> str:
    """A label that must be one of the options'."""
    if not isinstance(value, str) or value.strip() not in tuple(LABELS[: len(options)]):
        raise Damaged(f"'{name}' is no label of the {len(options)} options")
    return value.strip()


def counted(value, options: tuple[str, ...], first: int, name: str) -> str:
    """The label of a gold that is counted from ``first``: 0 or 1, as a whole number, also written 2.0.

    Raises Unfit for null, NaN and -1, with which sets mark a gold that is not told.
    """
    if type(value) not in (int, float, type(None)):
        raise Damaged(f"'{name}' must be a number")
    if value is None or value == -1 or value != value:
        raise Unfit(f"no gold label: '{name}' is {value}")
    place = value - first
    if place not in range(len(options)):
        raise Damaged(f"'{name}' is {value}, not one of {first} to {first + len(options) - 1}")
    return LABELS[int(place)]


def agree(answer: str, label: str, options: tuple[str, ...]) -> None:
    """The text of the answer must be that of the option with its label."""
    if options[LABELS.index(label)] != answer:
        raise Damaged(f"the answer's text is not that of option {label}")


def facts(record: dict, **names: str) -> dict:
    """Small facts for the provenance: ``subject="category"`` keeps the field 'category', if it is there, as subject."""
    kept = {}
    for name, key in names.items():
        value = record.get(key)
        if isinstance(value, str) and value.strip():
            kept[name] = readable(value, key)
        elif type(value) is int:
            kept[name] = value
    return kept
