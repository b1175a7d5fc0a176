"""Fixtures of the small plugin and the documented one, changed by a fault, as the subject of a check."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import documented_hooks
import pytest
from small_plugin import FILES, MakeSubject

from bionemo_core.testing import KitSettings, Subject, installed, make_plugin


@pytest.fixture
def small_plugin(tmp_path: Path) -> Iterator[MakeSubject]:
    """Return a function that makes the plugin `small`, with text replaced in `where` and `also` files, as a subject."""
    with ExitStack() as stack:

        def make(
            *changes: str, where: str = "__init__.py", also: Mapping[str, Sequence[str]] | None = None, **others: Any
        ) -> Subject:
            files = dict(FILES)
            for file, pairs in {where: changes, **(also or {})}.items():
                for old, new in zip(pairs[::2], pairs[1::2], strict=True):
                    assert old in files[file], f"the small plugin has no {old!r} in {file}"
                    files[file] = files[file].replace(old, new)
            code = files.pop("__init__.py")
            requires = others.pop("requires", ("bionemo-run>=0.2,<0.3",))
            plugin = make_plugin(tmp_path / "plugin", "small", code, files=files, requires=requires)
            stack.enter_context(installed(plugin))
            return Subject(KitSettings("small", **others), tmp_path / "work")

        yield make


@pytest.fixture
def extras(tmp_path: Path) -> Iterator[Callable[..., Subject]]:
    """Return a function that makes the documented plugin, with text replaced in one file, as a subject."""
    with ExitStack() as stack:

        def make(file: str = "__init__.py", *changes: str, **settings: Any) -> Subject:
            files = dict(documented_hooks.FILES)
            for old, new in zip(changes[::2], changes[1::2], strict=True):
                assert old in files[file], f"{file} has no {old!r}"
                files[file] = files[file].replace(old, new)
            plugin = make_plugin(tmp_path / "plugin", documented_hooks.NAME, files.pop("__init__.py"), files=files)
            stack.enter_context(installed(plugin))
            return Subject(KitSettings(plugin.distribution, **settings), tmp_path / "work")

        yield make
