"""A multiple-choice item and its JSONL file.

    {"id": "kg-2-5d41a2c07be9", "question": "A patient has fever , rash and joint pain . Which ...",
     "options": {"A": "prednisone", "B": "colchicine", ...}, "answer": "B", "source": "embedded",
     "language": "en", "tier": "moderate", "hops": 2, "rarity": 0.31,
     "path": [["familial Mediterranean fever", "has_symptom", "fever"], ...], "visible": [...],
     "absent": [], "masked": "colchicine", "discriminating": {"A": [head, relation, tail], ...},
     "provenance": {...}}

Items from question banks have the first fields only; the rest stay empty.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from minifleming.run.checkpoint import write_text
from minifleming.run.errors import BadInput

SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # in JSON, half of a character beyond the first plane
LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TIERS = ("easy", "moderate", "difficult")

KINDS = {str: ("id", "question", "answer", "source", "language", "tier", "masked"),
         dict: ("options", "discriminating", "provenance")}

Triple = tuple[str, str, str]


@dataclass(slots=True)
class Item:
    id: str
    question: str
    options: dict[str, str]
    answer: str
    source: str = ""
    language: str = "en"
    tier: str = ""
    hops: int = 0
    rarity: float = 0.0
    path: list[Triple] = field(default_factory=list)
    visible: list[Triple] = field(default_factory=list)
    absent: list[Triple] = field(default_factory=list)
    masked: str = ""
    discriminating: dict[str, Triple] = field(default_factory=dict)
    provenance: dict = field(default_factory=dict)

    def __post_init__(self):
        """Raises ValueError with the reason if the item is not usable."""
        for kind, names in KINDS.items():
            for name in names:
                if not isinstance(getattr(self, name), kind):
                    raise ValueError(f"'{name}' must be {kind.__name__}")
        count = len(self.options)
        if not self.id or not self.question.strip():
            raise ValueError("'id' and 'question' must not be empty")
        if not 2 <= count <= len(LABELS):
            raise ValueError(f"{count} options; 2 to {len(LABELS)} are possible")
        if self.labels != LABELS[:count]:
            raise ValueError(f"option labels must be {LABELS[0]}..{LABELS[count - 1]} in order")
        if not all(isinstance(text, str) and text.strip() for text in self.options.values()):
            raise ValueError("every option must be a non-empty text")
        if self.answer not in self.options:
            raise ValueError(f"answer '{self.answer}' is not among the options")
        if self.tier and self.tier not in TIERS:
            raise ValueError(f"tier '{self.tier}' is not one of {', '.join(TIERS)}")
        if type(self.hops) is not int or self.hops < 0:
            raise ValueError("'hops' must be a whole number")
        if type(self.rarity) not in (int, float) or not math.isfinite(self.rarity):
            raise ValueError("'rarity' must be a finite number")
        _check_provenance(self.provenance, self.options)
        for name in ("path", "visible", "absent"):
            setattr(self, name, _triples(name, getattr(self, name)))
        lacked = _triples("discriminating", list(self.discriminating.values()))
        self.discriminating = dict(zip(self.discriminating, lacked))

    @property
    def labels(self) -> str:
        return "".join(map(str, self.options))

    @property
    def evidence(self) -> list[Triple]:
        """The visible triples that determine the root: those before the chain and its pins."""
        others = len(self.path) - 1 + len(self.provenance.get("pins", []))
        return self.visible[: len(self.visible) - others]

    def nodes(self, label: str) -> list[str]:
        """Returns the graph's names of an option: two if the question asks for two nodes."""
        return self.provenance.get("nodes", {}).get(label) or [self.options[label]]


def read_items(path: str | Path) -> list[Item]:
    """Returns the items of a JSONL file. Raises BadInput with line and reason for a bad line."""
    path = Path(path)
    items, seen = [], {}
    names = {f.name for f in dataclasses.fields(Item)}
    required = ("id", "question", "options", "answer")
    for number, record in read_jsonl(path):
        missing = [name for name in required if name not in record]
        if missing:
            raise BadInput(f"missing '{missing[0]}'", path, number)
        unknown = record.keys() - names
        if unknown:
            raise BadInput(f"unknown field '{min(unknown)}'", path, number)
        try:
            item = Item(**record)
        except ValueError as error:
            raise BadInput(str(error), path, number) from None
        if item.id in seen:
            raise BadInput(f"id '{item.id}' is already on line {seen[item.id]}", path, number)
        seen[item.id] = number
        items.append(item)
    if not items:
        raise BadInput("no items", path)
    return items


def write_items(path: str | Path, items: Iterable[Item]) -> None:
    """Writes one JSON object per line, keys in a fixed order, replacing the file in one step."""
    lines = [json.dumps(dataclasses.asdict(item), ensure_ascii=False) for item in items]
    write_text(Path(path), "".join(line + "\n" for line in lines))


def read_jsonl(path: Path) -> Iterable[tuple[int, dict]]:
    """Yields line number and object of every line that is not blank."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", path) from None
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "not valid JSON"
            raise BadInput(reason, path, number) from None
        if not isinstance(record, dict):
            raise BadInput("not a JSON object", path, number)
        if SURROGATE.search(line):
            try:
                json.dumps(record, ensure_ascii=False).encode("utf-8")
            except UnicodeEncodeError:
                reason = "half a character: a lone surrogate"
                raise BadInput(reason, path, number) from None
        yield number, record


def _check_provenance(provenance: dict, options: dict[str, str]) -> None:
    """Checks the fields that the checker and the teachers read, if they are there."""
    if not isinstance(provenance.get("root", ""), str):
        raise ValueError("'provenance.root' must be a name")
    if not _is_names(provenance.get("hidden", [])):
        raise ValueError("'provenance.hidden' must be a list of names")
    if not _maps_labels(provenance.get("rivals", {}), options, lambda v: isinstance(v, str)):
        raise ValueError("'provenance.rivals' must map labels to names")
    for name in ("lacks", "nodes"):
        if not _maps_labels(provenance.get(name, {}), options, _is_names):
            raise ValueError(f"'provenance.{name}' must map labels to lists of names")
    told = provenance.get("told", {})
    if not isinstance(told, dict) or not _is_names(list(told.values())) or "" in told.values():
        raise ValueError("'provenance.told' must map names to texts")
    if "pins" in provenance:
        provenance["pins"] = _triples("provenance.pins", provenance["pins"])


def _maps_labels(values, options: dict[str, str], is_valid: Callable) -> bool:
    return isinstance(values, dict) and values.keys() <= options.keys() and all(
        map(is_valid, values.values()))


def _is_names(values) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _triples(name: str, values) -> list[Triple]:
    if not isinstance(values, list):
        raise ValueError(f"'{name}' must be a list of triples")
    for value in values:
        if not isinstance(value, list | tuple) or len(value) != 3 or not _is_names(list(value)):
            raise ValueError(f"'{name}' must hold triples [head, relation, tail]")
    return list(map(tuple, values))
