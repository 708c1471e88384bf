"""Loads english.toml: the words and phrases that the extractor reads."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ENGLISH = tomllib.loads((Path(__file__).parent / "english.toml").read_text(encoding="utf-8"))


def compile_pattern(text: str) -> re.Pattern:
    """Returns the regular expression of an entry of english.toml."""
    text = text.replace("<verb>", ENGLISH["patterns"]["verb"])
    text = text.replace("<modal>", ENGLISH["patterns"]["modal"])
    return re.compile(text.replace("\n", ""), re.IGNORECASE)


def pattern(name: str) -> re.Pattern:
    return compile_pattern(ENGLISH["patterns"][name])
