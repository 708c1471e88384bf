"""Tests for the documents: headings, links, images, and paths and modules named in text exist."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minifleming"
HIDDEN = ("runs", "build", "bench/results")


def documents() -> list[Path]:
    found = []
    for path in sorted(ROOT.rglob("*.md")):
        parts = path.relative_to(ROOT).parts
        if not any(part.startswith(".") for part in parts) and not path.relative_to(ROOT).as_posix().startswith(HIDDEN):
            found.append(path)
    return found


def prose(path: Path) -> str:
    """The text without fenced code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_documents_are_found():
    assert ROOT / "README.md" in documents() and len(documents()) > 8


def test_no_document_has_a_heading_twice():
    failed = []
    for path in documents():
        headings = re.findall(r"^#+ +(.+?) *$", prose(path), flags=re.M)
        for heading in set(headings):
            if headings.count(heading) > 1:
                failed.append(f"{path.relative_to(ROOT)}: {heading}")
    assert not failed


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *$", prose(path), flags=re.M):
        text = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(text.replace(" ", "-"))
    return found


def test_every_relative_link_and_image_exists():
    failed = []
    for path in documents():
        links = re.findall(r"\]\(([^)\s]+)[^)]*\)", prose(path))
        links += re.findall(r'(?:src|href)="([^"]+)"', prose(path))
        for link in links:
            if re.match(r"[a-z]+:", link):
                continue
            target, _, anchor = link.partition("#")
            file = (path.parent / target) if target else path
            if not file.exists():
                failed.append(f"{path.relative_to(ROOT)}: {link}")
            elif anchor and file.suffix == ".md" and anchor not in anchors(file):
                failed.append(f"{path.relative_to(ROOT)}: {link}: no such heading")
    assert not failed


@cache
def texts() -> dict[str, str]:
    """Documents, and the docstrings and comments of our code, by file name."""
    found = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in documents()}
    files = [*ROOT.glob("*.py")]
    for folder in ("minifleming", "kernels", "bench", "tests"):
        files += sorted((ROOT / folder).rglob("*.py"))
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        if name == "tests/test_docs.py" or name.startswith("minifleming/kernels"):
            continue
        text = path.read_text(encoding="utf-8")
        parts = re.findall(r"(?:^|\s)# .*", text)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                parts.append(ast.get_docstring(node) or "")
        found[name] = "\n".join(parts)
    return found


FOLDERS = sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("_"))


def exists(path: str, near: Path) -> bool:
    """Whether ``path`` exists from the root, in tests, in the package, in extras, or next to the file that names it."""
    return any((base / path).exists() for base in (ROOT, ROOT / "tests", PACKAGE, PACKAGE / "extras", near.parent))


def test_every_python_file_named_in_text_exists():
    """`package/module.py`, `tests/…/test_x.py`, `bench/x.py` with at least one folder."""
    failed = []
    for name, text in texts().items():
        for path in re.findall(r"(?<![\w/.:*-])((?:\w+/)+\w+\.py)\b", text):
            if not exists(path, ROOT / name):
                failed.append(f"{name}: {path}")
    assert not failed, "\n".join(failed)


def test_every_module_named_in_text_exists():
    """`minifleming.package.module`, also with an attribute behind it, and `python -m` commands."""
    failed = []
    for name, text in texts().items():
        for dotted in re.findall(r"\bminifleming((?:\.\w+)+)", text):
            parts = dotted.strip(".").split(".")
            if parts[0] in ("egg", "toml", "py") or parts[0].startswith("__"):
                continue
            if not is_module(parts) and not (len(parts) > 1 and is_module(parts[:-1])):
                failed.append(f"{name}: minifleming{dotted}")
    assert not failed, "\n".join(failed)


def is_module(parts: list[str]) -> bool:
    path = PACKAGE.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_every_test_named_in_a_document_exists():
    """Names such as `test_T15_...` in docs/traps.md."""
    defined = set()
    for path in (ROOT / "tests").rglob("*.py"):
        defined |= set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), flags=re.M))
    failed = []
    for path in documents():
        for test in re.findall(r"`(test_\w+)(?:\[[^`]*\])?`", path.read_text(encoding="utf-8")):
            if test not in defined and not list((ROOT / "tests").rglob(f"{test}.py")):
                failed.append(f"{path.relative_to(ROOT)}: {test}")
    assert not failed, "\n".join(failed)
