"""Analyses of an evaluation beyond its scores."""

from typing import NamedTuple


class Analysis(NamedTuple):
    """A table for the page: file name, heading, one row per benchmark, and the table in markdown."""

    name: str
    heading: str
    rows: dict[str, dict]
    text: str
