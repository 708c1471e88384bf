"""Count the code: files, lines, code lines, functions, comprehensions per 100 statements, longest line.

    python bench/sizes.py              a table of core, extras, scripts, kernels and microfleming
    python bench/sizes.py --json       the same as JSON
    python bench/sizes.py --files      one row per file

A code line is a physical line with a token that is neither a comment nor a docstring. The core is
minifleming/ without kernels/, extras/, `__init__.py` and forwarding modules (at most 6 code lines that only
import and run a main).
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import tokenize
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPTS = ("train_grpo.py", "train_sft.py", "eval.py", "generate.py", "synth_kg.py")
GROUPS = ("core", "extras", "scripts", "kernels", "microfleming")
FORWARDING = 6  # most code lines of a forwarding module

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)
NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
           tokenize.ENCODING, tokenize.ENDMARKER)


@dataclass
class Size:
    """Counts of one file or of a group of files."""

    files: int = 0
    lines: int = 0
    code: int = 0
    functions: int = 0
    statements: int = 0
    comprehensions: int = 0
    longest: int = 0  # characters of the longest line, comments and docstrings included
    nested: list[str] = field(default_factory=list)  # places of nested comprehensions
    wide: list[str] = field(default_factory=list)  # functions with more than eight parameters

    def add(self, other: Size) -> None:
        self.longest = max(self.longest, other.longest)
        for name in ("files", "lines", "code", "functions", "statements", "comprehensions", "nested", "wide"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def density(self) -> float:
        """Comprehensions per 100 statements."""
        return 100 * self.comprehensions / max(1, self.statements)


@cache
def size_of(path: Path) -> Size:
    """The counts of one Python file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    lines = text.splitlines()
    size = Size(files=1, lines=len(lines), code=len(code_lines(text, tree)), longest=max(map(len, lines), default=0))
    for node in ast.walk(tree):
        size.statements += isinstance(node, ast.stmt)
        place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, FUNCTIONS):
            size.functions += 1
            if parameters(node) > 8:
                size.wide.append(f"{place} {node.name}")
        if isinstance(node, COMPREHENSIONS):
            size.comprehensions += 1
            if is_nested(node):
                size.nested.append(place)
    return size


def code_lines(text: str, tree: ast.Module) -> set[int]:
    """Numbers of the lines that hold code."""
    found = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            found.difference_update(range(docstring.lineno, docstring.end_lineno + 1))
    return found


def parameters(function) -> int:
    """The number of parameters, without self and cls."""
    names = [argument.arg for argument in function.args.posonlyargs + function.args.args]
    method = bool(names) and names[0] in ("self", "cls")
    return len(names) - method + len(function.args.kwonlyargs)


def is_nested(comprehension) -> bool:
    """Whether it has two ``for``, or another comprehension inside."""
    inner = [node for node in ast.walk(comprehension) if isinstance(node, COMPREHENSIONS)]
    return len(comprehension.generators) > 1 or len(inner) > 1


def is_forwarding(path: Path) -> bool:
    """Whether a module only imports a main and runs it."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    body = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
    for node in body:
        runs_main = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        if not runs_main and not isinstance(node, ast.Import | ast.ImportFrom):
            return False
    return 0 < len(code_lines(text, tree)) <= FORWARDING


def files_of(group: str) -> list[Path]:
    """The Python files of a group."""
    package = ROOT / "minifleming"
    if group == "scripts":
        return [ROOT / name for name in SCRIPTS]
    if group == "microfleming":
        return [ROOT / "microfleming.py"]
    if group == "kernels":
        return sorted((ROOT / "kernels").glob("*.py"))
    found = []
    for path in sorted(package.rglob("*.py")):
        part = path.relative_to(package).parts[0]
        counted = path.name != "__init__.py" and part != "kernels" and not is_forwarding(path)
        if counted and (part == "extras") == (group == "extras"):
            found.append(path)
    return found


def group_size(group: str) -> Size:
    total = Size()
    for path in files_of(group):
        total.add(size_of(path))
    return total


def table(rows: dict[str, Size]) -> str:
    width = max(map(len, rows))
    lines = [f"{'':<{width}}  files   lines    code  functions  comp/100  longest"]
    for name, size in rows.items():
        lines.append(f"{name:<{width}}  {size.files:>5}  {size.lines:>6}  {size.code:>6}  {size.functions:>9}  "
                     f"{size.density:>8.1f}  {size.longest:>7}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--files", action="store_true", help="one row per file")
    args = parser.parse_args()
    rows = {}
    for group in GROUPS:
        if args.files:
            rows |= {str(path.relative_to(ROOT)): size_of(path) for path in files_of(group)}
        else:
            rows[group] = group_size(group)
    if args.json:
        print(json.dumps({name: asdict(size) for name, size in rows.items()}, indent=1))
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
