"""Finds keys of a component that nothing reads, in its factory and in the functions that the factory calls."""

import ast
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from bionemo_core.plugins import RegisteredComponent
from bionemo_core.plugins.configure import ComponentConfig
from bionemo_core.protocols import RUNTIME_ARGUMENTS
from bionemo_core.testing.subject import fail

READ_BY_A_RUN = {"do_training", "do_testing"}
"""Keys of a task that `run_training` reads."""


def check_keys_are_read(registered: RegisteredComponent) -> None:
    """Check that each key of a component is read somewhere, so that none is without effect.

    Raises:
        ConformanceError: one is not; the message names it, and the function that gets it.
    """
    config = registered.component.config
    if not isinstance(config, ComponentConfig):
        return  # made by another library: its factory may be any callable
    keys = {key.name for key in registered.keys} - (READ_BY_A_RUN if registered.group == "task" else set())
    for owner in config.explained_by:
        modules = list(package_of(owner).rglob("*.py"))
        for name, place in unread_keys(owner, modules):
            if name in keys:
                fail(
                    f"{registered.group} {registered.name!r}: nothing reads the key {name!r}, which {place} gets. Use "
                    "it, or remove it: a user who sets it expects an effect."
                )


def unread_keys(owner: Any, modules: Sequence[Path]) -> list[tuple[str, str]]:
    """Return each key of a factory or a dataclass that nothing reads, and the name of the function that gets it last.

    Args:
        owner: the factory; or a dataclass, whose fields `modules` may read anywhere.
        modules: the Python files that may read the fields.
    """
    if dataclasses.is_dataclass(owner):
        read = frozenset().union(*(names_read(path) for path in modules))
        return [(one.name, owner.__qualname__) for one in dataclasses.fields(owner) if one.name not in read]
    names = [name for name in inspect.signature(owner).parameters if name not in RUNTIME_ARGUMENTS]
    return [(name, place) for name in names if (place := _last_without_effect(owner, name))]


def package_of(owner: Any) -> Path:
    """Return the folder of the package that an object is from; of the core, the folder inside it."""
    top = sys.modules[owner.__module__.partition(".")[0]]
    file = Path(inspect.getfile(owner))
    package = Path(top.__path__[0]) if hasattr(top, "__path__") else file.parent
    inner = file.relative_to(package).parts
    return package / inner[0] if top.__name__ == "bionemo_core" and len(inner) > 1 else package


@cache
def names_read(path: Path) -> frozenset[str]:
    """Return the attributes and variables that a module reads, and its texts that are names, as in `getattr`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            found.add(node.value)
    return frozenset(found)


def _last_without_effect(function: Callable[..., Any], name: str) -> str:
    """Return the function in which a parameter ends without being read; empty: something reads it."""
    body = _body_of(function)
    if body is None:
        return ""
    loads = [node for node in ast.walk(body) if isinstance(node, ast.Name) and node.id == name]
    if not any(isinstance(node.ctx, ast.Load) for node in loads):
        return function.__qualname__
    passed = list(_calls_with(body, name))
    if len(passed) < len(loads):
        return ""  # it is more than an argument of calls
    for call, slot in passed:
        callee = _callee(call.func, body, function)
        parameter = None if callee is None else _parameter(callee, slot)
        if callee is None or parameter is None:
            return ""
        place = _last_without_effect(callee, parameter)
        if not place:
            return ""
    return place


def _body_of(function: Callable[..., Any]) -> ast.Module | None:
    """Return the statements of a function without its signature; None: there is no source, as of a built-in one."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None
    return ast.Module(tree.body, []) if isinstance(tree, ast.FunctionDef) else None


def _calls_with(body: ast.AST, name: str) -> Iterator[tuple[ast.Call, int | str]]:
    """Yield the calls whose argument a variable is, with the position or the keyword of that argument."""
    for call in ast.walk(body):
        if not isinstance(call, ast.Call):
            continue
        slots: list[tuple[int | str | None, ast.expr]] = [*enumerate(call.args)]
        starred = any(isinstance(one, ast.Starred) for one in call.args)
        slots += [(keyword.arg, keyword.value) for keyword in call.keywords]
        for slot, value in slots:
            if isinstance(value, ast.Name) and value.id == name and slot is not None and not starred:
                yield call, slot


def _callee(target: ast.expr, body: ast.AST, caller: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return the function that a call names, if it is one of the caller's package; None: it cannot be told."""
    if not isinstance(target, ast.Name):
        return None
    found = getattr(sys.modules[caller.__module__], target.id, None)
    for node in ast.walk(body):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == target.id:
                    package = caller.__module__ if "." in caller.__module__ else f"{caller.__module__}."
                    name = f"{'.' * node.level}{node.module or ''}"
                    found = getattr(import_module(name, package.rpartition(".")[0]), alias.name, None)
    own = caller.__module__.partition(".")[0]
    return found if inspect.isfunction(found) and found.__module__.partition(".")[0] == own else None


def _parameter(callee: Callable[..., Any], slot: int | str) -> str | None:
    """Return the parameter of a function that an argument becomes; None: it cannot be told."""
    parameters = inspect.signature(callee).parameters
    if isinstance(slot, int):
        names = [name for name, one in parameters.items() if one.kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD]
        return names[slot] if slot < len(names) else None
    return slot if slot in parameters else None
