"""The house keeps its order: no circles, no crowded folders, one name a thing, functions that fit a screen."""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = [PROJECT / "bionemo_core", *sorted((PROJECT / "plugins").glob("*/bionemo_*"))]
MOST_FILES = 20
MOST_LINES = 50


def modules() -> dict[str, Path]:
    """The modules of the core and of every plugin, by dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports_of(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules that a file imports, in function bodies too, but not for type checking alone."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield from (name for name in (full if full in known else node.module,) if name in known)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: set(imports_of(path, known)) - {name} for name, path in known.items()}


def test_no_import_circles(graph):
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_no_two_test_files_have_one_name():
    """Pytest imports a test file by its name alone, and leaves out the second of two."""
    names = Counter(path.name for folder in ("tests", "plugins") for path in (PROJECT / folder).rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_folder_is_crowded():
    code = [path.parent for path in modules().values()]
    tests = [path.parent for folder in ("tests", "plugins") for path in (PROJECT / folder).rglob("test_*.py")]
    crowded = {str(folder.relative_to(PROJECT)): n for folder, n in Counter(code + tests).items() if n > MOST_FILES}
    assert not crowded


def test_no_file_imports_two_modules_of_one_name(graph):
    for name, others in graph.items():
        by_name = defaultdict(set)
        for other in others:
            by_name[other.rpartition(".")[2]].add(other)
        assert not {key: twins for key, twins in by_name.items() if len(twins) > 1}, name


def test_public_class_names_are_used_once():
    places = defaultdict(list)
    for name, path in modules().items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert not {key: where for key, where in places.items() if len(where) > 1}


def test_long_functions_say_why():
    """A function of more than 50 lines has the reason in a comment above it: `# Long: ...`."""
    for path in modules().values():
        text = path.read_text()
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > MOST_LINES:
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                above = lines[first - 2].strip() if first > 1 else ""
                assert above.startswith("# Long:"), f"{path.relative_to(PROJECT)}:{node.lineno} {node.name}"
