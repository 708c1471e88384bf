"""Tests for the layout: which package may import which, how long a file may be, what no file may do."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minifleming"
SCRIPTS = sorted(ROOT.glob("*.py"))
ROOMS = ("audit", "cold_start", "rlvr", "evaluation", "rods", "lm", "run", "kernels", "extras")
LIST = ROOT / "tests" / "data" / "core_to_extras.tsv"
MAY_USE = {
    "extras": {"audit", "cold_start", "rlvr", "evaluation", "rods", "lm", "kernels", "run"},
    "audit": {"cold_start", "rlvr", "evaluation", "rods", "lm", "kernels", "run"},
    "cold_start": {"rods", "lm", "kernels", "run"},
    "rlvr": {"rods", "lm", "kernels", "run"},
    "evaluation": {"rods", "lm", "kernels", "run"},
    "rods": {"kernels", "run"},
    "lm": {"kernels", "run"},
    "run": set(),
    "kernels": {"run"},
}


def files_of(room: str) -> list[Path]:
    return sorted(((ROOT if room == "kernels" else PACKAGE) / room).rglob("*.py"))


CODE = [*SCRIPTS, *sorted(PACKAGE.glob("*.py")), *(path for room in ROOMS for path in files_of(room)),
        *sorted((ROOT / "bench").rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def ours(tree: ast.AST, path: Path) -> set[str]:
    """Every dotted name of ours that a module imports, anywhere in it, relative imports resolved."""
    place = path.relative_to(ROOT).with_suffix("").parts
    place = ("minifleming", *place) if place[0] == "kernels" else place
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*place[: len(place) - node.level]] if node.level else []
            module = ".".join(base + (node.module.split(".") if node.module else []))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    scripts = {script.stem for script in SCRIPTS}
    return {name for name in names if name.split(".")[0] in {"minifleming", "kernels"} | scripts}


def allowed(name: str, room: str) -> bool:
    parts = name.split(".")
    if parts[0] != "minifleming":
        return False  # a script, or the folder of kernels by its outer name
    if parts[1:] in ([], ["__version__"]):
        return True
    return parts[1] == room or parts[1] in MAY_USE[room]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_a_package_imports_only_the_packages_below_it():
    found = []
    for room in ROOMS:
        for path in files_of(room):
            for name in ours(parsed(path), path):
                if not to_extras(name) and not allowed(name, room):
                    found.append(f"{name_of(path)}: {name}")
    assert not found


def to_extras(name: str) -> bool:
    """An import that only the list allows: of extras, or by the forwarding module of `rlvr.audit`."""
    return name.startswith("minifleming.extras") or name == "minifleming.audit.__main__.main"


def test_the_core_imports_extras_only_where_the_list_says_so():
    """Each line of the list: a file of the core, and the module of extras that it imports."""
    listed = {tuple(line.split("\t")) for line in LIST.read_text().splitlines() if not line.startswith("#")}
    found = set()
    core = [p for room in ROOMS if room != "extras" for p in files_of(room)]
    for path in [*SCRIPTS, *sorted(PACKAGE.glob("*.py")), *core]:
        for name in ours(parsed(path), path):
            if to_extras(name):
                parts = name.split(".")
                module = parts[:-1] if not (ROOT.joinpath(*parts).with_suffix(".py")).is_file() else parts
                found.add((name_of(path), ".".join(module)))
    assert sorted(found) == sorted(listed)


def test_scripts_and_the_recipe_do_not_import_each_other():
    above = {script.stem for script in SCRIPTS}
    for path in [*SCRIPTS, PACKAGE / "recipe.py"]:
        used = ours(parsed(path), path)
        assert not {name.split(".")[0] for name in used} & above, path
        assert path.name != "recipe.py" or not {name for name in used if name.startswith("minifleming.recipe")}


def test_the_package_itself_imports_nothing():
    assert ours(ast.parse((PACKAGE / "__init__.py").read_text()), PACKAGE / "__init__.py") == set()


def test_no_module_is_imported_by_a_computed_name():
    """Otherwise the arrows above would prove nothing."""
    for path in CODE:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("__import__", "importlib.import_module", "import_module"), path


IMPORTS = [
    ("from minifleming.rlvr import reward", {"minifleming.rlvr.reward"}),
    ("import minifleming.evaluation.grade as g", {"minifleming.evaluation.grade"}),
    ("from minifleming import rlvr", {"minifleming.rlvr"}),
    ("from ..rlvr.reward import reward", {"minifleming.rlvr.reward.reward"}),
    ("from .. import evaluation", {"minifleming.evaluation"}),
    ("def f():\n    from minifleming import recipe", {"minifleming.recipe"}),
    ("import train_grpo", {"train_grpo"}),
    ("import kernels.reference", {"kernels.reference"}),
    ("from .refine import detour\nfrom minifleming.rods.item import Item\nimport torch", set()),
]


def test_these_tests_would_see_a_wrong_import():
    for code, wrong in IMPORTS:
        used = ours(ast.parse(code), PACKAGE / "cold_start" / "planted.py")
        assert {name for name in used if not allowed(name, "cold_start")} == wrong, code


def test_every_room_is_in_the_list_and_in_the_wheel():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"assets", "__pycache__"}
    assert folders == set(ROOMS)
    listed = re.findall(r'"(minifleming(?:\.\w+)?)"', (ROOT / "pyproject.toml").read_text())
    assert set(listed) >= {"minifleming"} | {f"minifleming.{room}" for room in ROOMS}


def test_no_file_is_longer_than_300_lines():
    """microfleming.py is one file on purpose, and has its own limit."""
    found = []
    for path in CODE:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > 300 and path.name != "microfleming.py":
            found.append(f"{name_of(path)}: {lines}")
    assert not found


FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "torch.load", "torch.save", "yaml.load"}
FORBIDDEN_OPTIONS = {"shell", "allow_pickle", "trust_remote_code"}


def dangers(tree: ast.AST) -> list[str]:
    """What could run foreign code: unpickling, evaluation of text, a shell, remote code."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or "").split(".")[0] in FORBIDDEN_MODULES else []
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found += sorted(names & FORBIDDEN_CALLS)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found += [name] if name in FORBIDDEN_CALLS or re.search(r"_object(_list)?$", name) else []
            found += [f"{k.arg}=" for k in node.keywords if k.arg in FORBIDDEN_OPTIONS
                      and not (isinstance(k.value, ast.Constant) and k.value.value is False)]
        elif isinstance(node, ast.Constant) and node.value == "trust_remote_code":
            found.append(node.value)
    return found


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell():
    found = {name_of(path): dangers(parsed(path)) for path in CODE}
    assert not {name: what for name, what in found.items() if what}


DANGERS = [
    "import pickle", "from pickle import loads", "import torch\ntorch.load('x')", "from torch import load", "eval('1')",
    "exec('1')", "import subprocess\nsubprocess.run('ls', shell=True)", "f(trust_remote_code=True)",
    "f(**{'trust_remote_code': True})", "np.load('x', allow_pickle=True)", "os.system('ls')",
    "dist.all_gather_object(a, b)", "dist.broadcast_object_list(a)",
]


def test_these_tests_would_see_a_danger():
    assert all(dangers(ast.parse(code)) for code in DANGERS)
    assert not dangers(ast.parse("model.eval()\nload(x)\nrun(['ls'], shell=False)"))


def test_no_file_names_a_place_on_one_machine():
    """Home folders and absolute paths of whoever wrote it, in code, recipes, settings and tests."""
    pattern = re.compile("|".join(["/" + "home/", "/" + "Users/", "/" + "root/", "/" + "work/", "/" + "mnt/",
                                   "[A-Z]:" + r"\\\\?Users"]))
    files = [*CODE, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "recipes").glob("*.toml")),
             ROOT / "pyproject.toml", *(p for p in sorted((ROOT / ".ci").glob("*")) if p.is_file())]
    found = [f"{name_of(path)}:{n}" for path in files
             for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if pattern.search(line)]
    assert found == []
