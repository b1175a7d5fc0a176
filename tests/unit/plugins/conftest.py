"""Throw-away plugins: a module and its dist-info in a temporary folder on `sys.path`."""

import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bionemo_core import builtin
from bionemo_core.config.model_defaults import problem_with_defaults
from bionemo_core.plugins import Registry

HEAD = """
from bionemo_core import Component, configure, hookimpl
BIONEMO_PLUGIN_API = 1
"""
_numbers = itertools.count()

Install = Callable[..., str]
Load = Callable[..., Registry]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that installs a plugin from its source and returns the name of its module."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules: list[str] = []

    def _install(
        distribution: str,
        source: str,
        *,
        version: str = "1.0",
        requires: str | None = None,
        head: str = HEAD,
        extra_entry_point: bool = False,
    ) -> str:
        module = f"throwaway_{next(_numbers)}"
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(head + textwrap.dedent(source))
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requires}"] if requires else []
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        points = [f"{distribution} = {module}"] + ([f"second = {module}"] if extra_entry_point else [])
        (info / "entry_points.txt").write_text("\n".join(["[bionemo.plugins]", *points]) + "\n")
        return module

    yield _install
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def load() -> Load:
    """Return a function that loads a registry with all installed plugins but the throw-away ones blocked."""

    def _load(**environ: str) -> Registry:
        blocked = (
            environ.pop("BIONEMO_BLOCK_PLUGINS", "") + ",bionemo-esm,bionemo-huggingface,bionemo-t5,bionemo-molbart"
        )
        return Registry.load(
            builtin, environ={"BIONEMO_BLOCK_PLUGINS": blocked, **environ}, check_defaults=problem_with_defaults
        )

    return _load
