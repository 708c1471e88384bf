"""MMLU, CSV without a header: question, four options, letter. The file's name tells subject and split.

    anatomy_test.csv
    "Which bone, of these, is in the arm?",Femur,Humerus,Tibia,Sternum,B

A folder stands for all its .csv files, in the order of their names.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from minifleming.evaluation.sets.layout import Damaged, Draft, Row, each, letter, readable, table
from minifleming.run.errors import BadInput

NAME = re.compile(r"(.+)_(test|val|dev|train)")


def read(path: Path) -> Iterator[Row]:
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not files:
        raise BadInput("no .csv files in this folder", path)
    for file in files:
        match = NAME.fullmatch(file.stem)
        facts = {"subject": match[1], "split": match[2]} if match else {"subject": file.stem}
        for row in each(file, table(file), partial(build, facts=facts)):
            yield dataclasses.replace(row, own=f"{file.stem}-{row.n}")


def build(cells: list[str], facts: dict) -> Draft:
    if len(cells) != 6:
        raise Damaged(f"{len(cells)} columns; six are needed: question, four options, letter")
    question, *options, label = [readable(cell, "cell") for cell in cells]
    return Draft(question, tuple(options), letter(label, tuple(options), "letter"), facts)
