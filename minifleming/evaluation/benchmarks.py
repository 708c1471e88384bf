"""Reads the public benchmarks (§4) as items: one table of file formats, answer rules and fields.

    medqa=test.jsonl  ->  Item(id="medqa:1", question="...", options={"A": "...", ...}, answer="C",
                               source="medqa", language="en", provenance={"set": "medqa", "row": 1,
                               "file": "test.jsonl", "sha256": "...", "step": "step1"})

A row that breaks the layout is Damaged; a file with more than 1 % of damaged rows is refused. A row
that keeps it but has no single right answer is Unfit. Both kinds are returned with their reasons.
White space at the ends of texts is removed; explanations are not kept. JMED is published as .xlsx:
pandas.read_excel("jmed.xlsx", dtype=str).to_json("jmed.json", orient="records", force_ascii=False)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from minifleming.evaluation import layouts
from minifleming.evaluation.layouts import Damaged, Draft, Fields, Record
from minifleming.rods.item import LABELS, Item, read_items
from minifleming.run.checkpoint import read_json, sha256
from minifleming.run.errors import BadInput

DAMAGE_LIMIT = 0.01  # share of the rows of a file


@dataclass(slots=True)
class Row:
    """A row of a file, and its item or the reason why it has none."""

    row: int  # its line; in a JSON document its number
    number: int  # from 1
    id: str = ""
    item: Item | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark: the rule that reads a row, the format of its file, and what is kept of a row.

    id       the field with the row's own id
    facts    name in the provenance -> field
    only     a field, and its value in the rows that are kept
    shuffle  reorder the options by a hash of the row's id
    name     the benchmark's name in ids and sources, where it is not that of the table
    """

    rule: Callable[[Fields], Draft]
    records: Callable[[Path], Iterator[Record]] = layouts.json_rows
    id: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    language: str = "en"
    only: tuple[str, str] = ("", "")
    shuffle: bool = False
    name: str = ""


def listed_rows(path: Path) -> Iterator[Record]:
    """PubMedQA with its test list: its rows get the "listed" decision and a "split"."""
    files = sorted(path.parent.glob("*test_ground_truth.json"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        reason = f"needs one file *test_ground_truth.json in its folder; there: {names}"
        raise BadInput(reason, path)
    listed = read_json(files[0])
    for line, fields, id in layouts.json_rows(path):
        if isinstance(fields, dict):
            fields |= {"split": "test" if id in listed else ""}
            fields |= {"listed": listed.get(id, fields.get("final_decision"))}
        listed.pop(id, None)
        yield line, fields, id
    if listed:
        raise BadInput(f"'{next(iter(listed))}' is in the test list and not in this file", path)


def mmlu_rows(path: Path) -> Iterator[Record]:
    """MMLU: the file name gives subject and split, and the rows are numbered within their file."""
    subject, _, split = path.stem.rpartition("_")
    if split not in ("test", "val", "dev", "train"):
        subject, split = path.stem, ""
    rows = layouts.csv_rows(path, ["question", "A", "B", "C", "D", "letter"])
    for number, (line, fields, _) in enumerate(rows, 1):
        if isinstance(fields, dict):
            fields |= {"subject": subject, "split": split}
        yield line, fields, f"{path.stem}-{number}"


MEDMCQA = {"subject": "subject_name", "topic": "topic_name", "choice_type": "choice_type"}
MEDXPERTQA = {"subject": "body_system", "task": "medical_task", "question_type": "question_type"}
CMEXAM = {"subject": "Medical Discipline", "department": "Clinical Department"}
MMLU_PRO = Benchmark(layouts.mmlu_pro, id="question_id",
                     facts={"subject": "category", "origin": "src"})
from0 = partial(layouts.numbered, names=("opa", "opb", "opc", "opd"), first=0)
from1 = partial(layouts.numbered, names=("opa", "opb", "opc", "opd"), first=1)
careqa = partial(layouts.numbered, names=("op1", "op2", "op3", "op4"), first=1)

BENCHMARKS = {
    "medqa": Benchmark(layouts.medqa, id="id", facts={"step": "meta_info"}),
    "medmcqa": Benchmark(from1, id="id", facts=MEDMCQA),  # or from0: see number_of_option_a
    "medmcqa_from0": Benchmark(from0, id="id", facts=MEDMCQA, name="medmcqa"),
    "medmcqa_from1": Benchmark(from1, id="id", facts=MEDMCQA, name="medmcqa"),
    "cmexam": Benchmark(layouts.cmexam, layouts.csv_rows, facts=CMEXAM, language="zh"),
    "pubmedqa": Benchmark(layouts.pubmedqa, facts={"year": "YEAR"}),
    "pubmedqa_test": Benchmark(layouts.pubmedqa, listed_rows, name="pubmedqa",
                               facts={"split": "split", "year": "YEAR"}, only=("split", "test")),
    "mmlu": Benchmark(layouts.mmlu, mmlu_rows, facts={"subject": "subject", "split": "split"}),
    "mmlu_pro": MMLU_PRO,
    "mmlu_pro_biology": replace(MMLU_PRO, only=("category", "biology"), name="mmlu_pro"),
    "mmlu_pro_health": replace(MMLU_PRO, only=("category", "health"), name="mmlu_pro"),
    "careqa": Benchmark(careqa, id="unique_id", facts={"subject": "category"}),
    "medxpertqa": Benchmark(layouts.medxpertqa, id="id", facts=MEDXPERTQA),
    "medbullets": Benchmark(layouts.medbullets),
    "jmed": Benchmark(layouts.jmed, id="diagId", language="zh", shuffle=True),
}


def read_named(named: list[str]) -> dict[str, list[Item]]:
    """Returns the items of each NAME=PATH, and prints how many rows of a benchmark give none."""
    sets: dict[str, list[Item]] = {}
    for text in named:
        name, equals, path = text.partition("=")
        if not equals or not name.isidentifier():
            raise BadInput(f"--benchmark: '{text}' is not NAME=PATH")
        if name in sets:
            raise BadInput(f"--benchmark: '{name}' comes twice")
        sets[name], unusable = read_benchmark(name, path)
        if unusable:
            count = f"{len(unusable)} of {len(sets[name]) + len(unusable)}"
            print(f"{name}: {count} rows are unusable; the first, row {unusable[0].row}: "
                  f"{unusable[0].reason}")
    return sets


def read_benchmark(name: str, path: str | Path) -> tuple[list[Item], list[Row]]:
    """Reads a public benchmark if BENCHMARKS has the name, otherwise a JSONL file of our items."""
    return read_set(name, path) if name in BENCHMARKS else (read_items(path), [])


def read_set(name: str, path: str | Path) -> tuple[list[Item], list[Row]]:
    """Returns the items of a public benchmark in the order of its file, and the rows without item.

    Rows keep their own ids if all have one and no two are equal; otherwise they are numbered.
    Raises BadInput for a file that cannot be read or has no usable row, or if more than 1 % of its
    rows are damaged.
    """
    path = Path(path)
    if name == "medmcqa":
        name = f"medmcqa_from{number_of_option_a(path)}"
    benchmark = BENCHMARKS[name]
    set_name = benchmark.name or name
    files = sorted(path.glob("*.csv")) if name == "mmlu" and path.is_dir() else [path]
    if not files:
        raise BadInput("no .csv files in this folder", path)
    rows = []
    for file in files:
        rows += rows_of(file, benchmark, set_name)
    ids = [row.id for row in rows if row.item]
    keep_ids = all(ids) and len(set(ids)) == len(ids)
    for row in rows:
        row.id = f"{set_name}:{row.id if keep_ids and row.id else row.number}"
        if row.item:
            row.item.id = row.id
    items = [row.item for row in rows if row.item]
    unusable = [row for row in rows if not row.item]
    if not items:
        reason = f"no usable row; the first: {unusable[0].reason}" if unusable else "no usable row"
        raise BadInput(reason, path)
    return items, unusable


def number_of_option_a(path: Path) -> int:
    """Copies of MedMCQA count the options from 0 or from 1: a 0 or a 4 in the file decides."""
    golds = set(map(float, re.findall(rb'"cop":\s*(-?\d+(?:\.\d+)?)', layouts.read_bytes(path))))
    if not any(gold >= 0 for gold in golds):
        return 1  # no gold label at all, as every row will say
    if (0 in golds) == (4 in golds):
        why = "both 0 and 4 occur" if 0 in golds else "neither 0 nor 4 occurs"
        reason = f"'cop' is ambiguous: {why}; read the set as medmcqa_from0 or medmcqa_from1"
        raise BadInput(reason, path)
    return 0 if 0 in golds else 1


def rows_of(path: Path, benchmark: Benchmark, set_name: str) -> list[Row]:
    """The rows of one file. Raises BadInput if it has none, or too many damaged ones."""
    records = list(benchmark.records(path))
    if not records:
        raise BadInput("no rows", path)
    place = {"set": set_name, "file": path.name, "sha256": sha256(path)}
    where, value = benchmark.only
    rows, damaged = [], []
    for number, (line, content, id) in enumerate(records, 1):
        row = Row(line or number, number, id)
        fields = Fields()
        try:
            fields = layouts.fields_of(content)
            row.item = item_of(row, fields, benchmark, place | {"row": number})
        except ValueError as error:  # Damaged, Unfit, or the reason why it is no Item
            row.reason = str(error)
            if isinstance(error, Damaged):
                damaged.append((line, row.reason if line else f"row {number}: {row.reason}"))
        if fields.get(where, value) == value:
            rows.append(row)
    if len(damaged) > DAMAGE_LIMIT * len(records):
        line, reason = damaged[0]
        reason += f" ({len(damaged)} of {len(records)} rows are damaged)"
        raise BadInput(reason, path, line)
    return rows


def item_of(row: Row, fields: Fields, benchmark: Benchmark, provenance: dict) -> Item:
    """Sets ``row.id``. Raises Damaged, Unfit or ValueError with the reason if there is no item."""
    own_id = fields.get(benchmark.id)
    if type(own_id) not in (str, int, type(None)):
        raise Damaged(f"'{benchmark.id}' must be a text or a whole number")
    if own_id is not None:
        row.id = layouts.clean(str(own_id), benchmark.id)
    question, options, answer = benchmark.rule(fields)
    for name, key in benchmark.facts.items():
        value = fields.get(key)
        if isinstance(value, str) and value.strip():
            provenance[name] = layouts.clean(value, key)
        elif type(value) is int:
            provenance[name] = value
    if benchmark.shuffle:
        order = shuffled_labels(LABELS[: len(options)], row.id or str(row.number))
        options = [options[LABELS.index(label)] for label in order]
        provenance |= {"order": order, "label": answer}
        answer = LABELS[order.index(answer)]
    return Item(str(row.number), question, dict(zip(LABELS, options)), answer,
                source=provenance["set"], language=benchmark.language, provenance=provenance)


def shuffled_labels(labels: str, id: str) -> str:
    """The labels in the order of a hash: the gold label of JMED is A in 85 % of its rows."""
    return "".join(sorted(labels, key=lambda x: hashlib.sha256(f"{id}:{x}".encode()).hexdigest()))
