"""What needs care is done in one module each, so that it is done in one way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
PACKAGES = [PROJECT / "bionemo_core", *sorted((PROJECT / "plugins").glob("*/bionemo_*"))]
RENAMES = {"rename", "renames", "replace", "fsync", "fdatasync"}
DOORS = {
    "hashlib": "bionemo_core/io/hashing.py",
    "fcntl": "bionemo_core/io/locks.py",
    "rich.progress": "bionemo_core/io/progress.py",
    "matplotlib": "bionemo_core/io/plots.py",
    "fsspec": "bionemo_core/io/object_storage.py",
    "rename or flush": "bionemo_core/io/atomic.py",
}


def uses(source: str) -> Iterator[tuple[str, int]]:
    """What of `DOORS` a module uses, and in which line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call):
            names = ["rename or flush"] if _renames_or_flushes(node) else _imported(node)
        else:
            continue
        for name in names:
            for door in DOORS:
                if f"{name}.".startswith(f"{door}."):
                    yield door, node.lineno


def _renames_or_flushes(call: ast.Call) -> bool:
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr not in {*RENAMES, "move"}:
        return False
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    if owner in {"os", "shutil"} or function.attr in {"fsync", "fdatasync"}:
        return True
    # `path.rename(new)` and `path.replace(new)`; `text.replace(old, new)` has two, `datetime.replace` has keywords.
    return function.attr in RENAMES and len(call.args) == 1 and not call.keywords


def _imported(call: ast.Call) -> list[str]:
    """The module that a call such as `import_module("hashlib")` names."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name not in {"import_module", "__import__"} or not call.args or not isinstance(call.args[0], ast.Constant):
        return []
    return [str(call.args[0].value)]


def test_each_is_used_in_one_module_of_io():
    found: dict[str, set[str]] = {door: set() for door in DOORS}
    for package in PACKAGES:
        for path in package.rglob("*.py"):
            for door, line in uses(path.read_text()):
                place = path.relative_to(PROJECT).as_posix()
                found[door].add(place if place == DOORS[door] else f"{place}:{line}")
    assert found == {door: {module} for door, module in DOORS.items()}, "use the functions of that module"


@pytest.mark.parametrize(
    ("source", "door"),
    [
        ("import hashlib", "hashlib"),
        ("from hashlib import sha256", "hashlib"),
        ("def f():\n    import hashlib as h", "hashlib"),
        ("import_module('hashlib')", "hashlib"),
        ("import fcntl", "fcntl"),
        ("from rich.progress import Progress", "rich.progress"),
        ("from rich import progress", "rich.progress"),
        ("import rich.progress", "rich.progress"),
        ("import matplotlib.pyplot as plt", "matplotlib"),
        ("from matplotlib.figure import Figure", "matplotlib"),
        ("os.replace(a, b)", "rename or flush"),
        ("os.rename(a, b)", "rename or flush"),
        ("os.fsync(file.fileno())", "rename or flush"),
        ("shutil.move(a, b)", "rename or flush"),
        ("temporary.replace(path)", "rename or flush"),
        ("(folder / name).rename(folder / other)", "rename or flush"),
    ],
)
def test_a_second_one_is_found(source, door):
    assert [found for found, _ in uses(source)] == [door]


@pytest.mark.parametrize(
    "source",
    [
        "text.replace('a', 'b')",
        "replace(spec, seed=1)",
        "dataclasses.replace(spec, seed=1)",
        "now.replace(microsecond=0)",
        "parts._replace(path='')",
        "atomic.move(a, b)",
        "find_spec('matplotlib')",
        "from rich.console import Console",
        "import hashlib_of_ours",
    ],
)
def test_others_are_not(source):
    assert not list(uses(source))
