"""Layouts of the public benchmarks: file formats, and the rules that read a row.

A row that cannot be read is a ``Damaged`` in place of its fields, so that it can be counted.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

from minifleming.rods.item import LABELS
from minifleming.run.errors import BadInput

BROKEN = re.compile("[\0\ud800-\udfff]")
CHOICE = re.compile(r"(?:^|(?<=\s))\(([A-Z])\)(?=\s|$)")
LINE = re.compile(r"([A-Z])(?:[.．、:：]|\s|$)\s*(.*)", re.DOTALL)
SEVERAL = re.compile(r"[A-Z](?:[\s,，、;；']*[A-Z])+")
Draft = tuple[str, list[str], str]  # question, options in the order of their labels, right label
Record = tuple[int | None, object, str]  # line (None in a JSON document), fields, id ("" if none)


class Damaged(ValueError):
    """A row that breaks the layout of its benchmark."""


class Unfit(ValueError):
    """A row that keeps the layout and has no single right answer."""


def read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", path) from None
    if data.startswith(b"PK\x03\x04"):
        raise BadInput("a spreadsheet (.xlsx); docs/evaluation.md: how to export one", path)
    return data.removeprefix(b"\xef\xbb\xbf")


def parse_json(data: bytes, subject: str = "") -> object:
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise Damaged(f"{subject}not UTF-8 text") from None
    except (ValueError, RecursionError):
        raise Damaged(f"{subject}not valid JSON") from None


def json_rows(path: Path) -> Iterator[Record]:
    """A JSON list of rows, an object {id: row}, one of columns {field: {id: value}}, or JSONL."""
    data = read_bytes(path)
    try:
        rows = parse_json(data)
    except Damaged:
        rows = None
    if isinstance(rows, dict) and isinstance(rows.get("question"), dict):
        rows = transposed(rows)
    if isinstance(rows, list):
        yield from ((None, fields, "") for fields in rows)
    elif isinstance(rows, dict) and not any(isinstance(value, str) for value in rows.values()):
        yield from ((None, fields, id) for id, fields in rows.items())
    else:
        for number, line in enumerate(data.split(b"\n"), 1):
            if line.strip():
                yield number, line, ""


def fields_of(content) -> Fields:
    """The fields of a record: of a line of JSONL, or of what a format gave in their place."""
    if isinstance(content, Damaged):
        raise content
    if isinstance(content, bytes):
        content = parse_json(content)
    if not isinstance(content, dict):
        raise Damaged("not a JSON object")
    return Fields(content)


def transposed(columns: dict) -> list:
    rows: dict[str, dict] = {}
    for name, column in columns.items():
        if not isinstance(column, dict):
            return [Damaged("a column is not a JSON object")]
        for id, value in column.items():
            rows.setdefault(id, {})[name] = value
    return list(rows.values())


def csv_rows(path: Path, header: list[str] | None = None) -> Iterator[Record]:
    """Rows as {column: cell}; without a ``header`` the first row is the header.

    Quotes are read strictly: one that is never closed would take the rest of the file as a cell.
    """
    stream = io.StringIO(read_bytes(path).decode("utf-8", "surrogateescape"), newline="")
    reader = csv.reader(stream, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells and header is None:
                header = cells
            elif cells and len(cells) != len(header):
                yield line, Damaged(f"{len(cells)} columns, not {len(header)}"), ""
            elif cells:
                yield line, dict(zip(header, cells)), ""
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(f"not valid CSV: {error}", path, line) from None


class Fields(dict):
    """The fields of a row. Its methods raise Damaged for a value that breaks the layout."""

    def __missing__(self, name: str):
        raise Damaged(f"missing '{name}'")

    def text(self, name: str) -> str:
        return clean(self[name], name)

    def texts(self, name: str) -> list[str]:
        if not isinstance(self[name], list):
            raise Damaged(f"'{name}' must be a list")
        return [clean(value, name) for value in self[name]]

    def options(self, name: str = "options") -> list[str]:
        """The texts of {label: text}, [text, ...] or [{"letter": label, "content": text}, ...]."""
        options = self[name]
        if isinstance(options, list):
            options = by_label(options)
        if not isinstance(options, dict):
            raise Damaged(f"'{name}' must map labels to texts")
        if sorted(options) != list(LABELS[: len(options)]):
            raise Damaged(f"the labels of '{name}' are not A, B, C ... up to Z at most")
        return [clean(options[label], name) for label in sorted(options)]


def clean(value, name: str) -> str:
    """Returns a text without white space at its ends."""
    if not isinstance(value, str):
        raise Damaged(f"'{name}' must be text")
    if BROKEN.search(value):
        raise Damaged(f"'{name}' holds a NUL or half a character, or is not UTF-8 text")
    return value.strip()


def label_of(value, name: str, options: list[str]) -> str:
    """Returns the label if one of the options has it."""
    if not isinstance(value, str) or value.strip() not in tuple(LABELS[: len(options)]):
        raise Damaged(f"'{name}' is no label of the {len(options)} options")
    return value.strip()


def by_label(options: list) -> dict:
    found = {}
    for place, option in enumerate(options):
        label = chr(ord("A") + place)
        if isinstance(option, dict):
            label, option = str(option.get("letter")), option.get("content")
        if label in found:
            raise Damaged("a letter of 'options' comes twice")
        found[label] = option
    return found


# Rules: a row -> its question, options and right label


def medqa(row: Fields) -> Draft:
    context = row.texts("context") if "context" in row else []
    options = row.options()
    label = label_of(row["answer_idx"], "answer_idx", options)
    question = " ".join([*context, row.text("question")])
    return question, options, same_text(row, options, label)


def medbullets(row: Fields) -> Draft:
    names = ("opa", "opb", "opc", "opd", "ope")[: 4 + (row.get("ope") is not None)]
    options = [row.text(name) for name in names]
    label = label_of(row["answer_idx"], "answer_idx", options)
    return row.text("question"), options, same_text(row, options, label)


def same_text(row: Fields, options: list[str], label: str) -> str:
    if row.text("answer") != options[LABELS.index(label)]:
        raise Damaged(f"the answer's text is not that of option {label}")
    return label


def numbered(row: Fields, names: tuple[str, ...], first: int) -> Draft:
    """``cop`` counts the options from ``first``; NaN, null and -1: the gold label is not given."""
    options = [row.text(name) for name in names]
    gold = row["cop"]
    if type(gold) not in (int, float, type(None)):
        raise Damaged("'cop' must be a number")
    if gold is None or gold == -1 or gold != gold:
        raise Unfit(f"no gold label: 'cop' is {gold}")
    if gold - first not in range(4):
        raise Damaged(f"'cop' is {gold}, not one of {first} to {first + 3}")
    return row.text("question"), options, LABELS[int(gold) - first]


def pubmedqa(row: Fields) -> Draft:
    context, options = row.texts("CONTEXTS"), ["yes", "no", "maybe"]
    question = "\n".join([*context, row.text("QUESTION")])
    decision = row.text("final_decision")
    if decision not in options:
        raise Damaged("'final_decision' is none of yes, no, maybe")
    if row.get("listed", decision) != decision:
        raise Damaged("'final_decision' is not what the test list says")
    if not any(context):
        raise Unfit("no abstract to ask about")
    return question, options, LABELS[options.index(decision)]


def mmlu(row: Fields) -> Draft:
    options = [row.text(label) for label in "ABCD"]
    return row.text("question"), options, label_of(row["letter"], "letter", options)


def mmlu_pro(row: Fields) -> Draft:
    options = row.options()
    label = label_of(row["answer"], "answer", options)
    if type(row["answer_index"]) is not int or row["answer_index"] != LABELS.index(label):
        raise Damaged("'answer' and 'answer_index' point to different options")
    return row.text("question"), options, label


def medxpertqa(row: Fields) -> Draft:
    """The choices follow the question; where ``options`` are given, both must agree."""
    question, mark, choices = row.text("question").rpartition("\nAnswer Choices:")
    if not mark:
        question, choices = choices, ""
    parts = CHOICE.split(choices)
    options = [part.strip() for part in parts[2::2]]
    if row.get("options"):
        options = row.options()
        shown = " ".join(f"({label}) {option}" for label, option in zip(LABELS, options))
        if choices and choices.split() != shown.split():
            raise Damaged("the choices in the question are not its options")
    elif len(options) < 2 or parts[0].strip() or "".join(parts[1::2]) != LABELS[: len(options)]:
        raise Damaged("no options, and the question does not list them as (A) ... (B) ...")
    if row.get("images"):
        raise Unfit("needs an image")
    gold = row["label"] if isinstance(row["label"], list) else [row["label"]]
    if len(gold) != 1:
        raise Unfit("several answers" if gold else "no gold label")
    return question.strip(), options, label_of(gold[0], "label", options)


def cmexam(row: Fields) -> Draft:
    """One cell has one option a line; some copies write backslash and n for the line break."""
    found = {}
    for line in re.split(r"\n|\\n(?=[A-Z])", row.text("Options")):
        match = LINE.fullmatch(line.strip())
        if line.strip() and (not match or match[1] in found):
            raise Damaged("'Options' is not one option a line, each with a label of its own")
        if match:
            found[match[1]] = match[2]
    options = Fields(Options=found).options("Options")
    answer = row.text("Answer")
    if answer.lower() in ("", "nan"):
        raise Unfit("no gold label: 'Answer' is empty")
    return row.text("Question"), options, one_of(answer, "Answer", options)


def jmed(row: Fields) -> Draft:
    """The options are a JSON text within the row, the gold label is a list within a text."""
    inner = parse_json(row.text("final_options").encode(), "'final_options' is ")
    if not isinstance(inner, dict):
        raise Damaged("'final_options' is not a JSON object")
    options = Fields(inner).options()
    match = re.fullmatch(r"\['(.*)'\]", row.text("final_correct_answer"))
    answer = one_of(match[1] if match else "", "final_correct_answer", options)
    return row.text("final_question"), options, answer


def one_of(value: str, name: str, options: list[str]) -> str:
    labels = set(re.findall("[A-Z]", value))
    if SEVERAL.fullmatch(value) and labels <= set(LABELS[: len(options)]):
        raise Unfit(f"several answers: {value}")
    return label_of(value, name, options)
