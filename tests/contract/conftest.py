"""A fixture of the small plugin, changed by a fault, as the subject of a check."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

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
            requires = others.pop("requires", ("bionemo-run>=0.1,<0.2",))
            plugin = make_plugin(tmp_path / "plugin", "small", code, files=files, requires=requires)
            stack.enter_context(installed(plugin))
            return Subject(KitSettings("small", **others), tmp_path / "work")

        yield make
