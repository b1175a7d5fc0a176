"""Kernel tests need Triton, which GPU builds of torch include and `nox -s kernels` installs; else they are skipped."""

import os
from importlib.util import find_spec

import pytest

if find_spec("triton") is None:
    collect_ignore_glob = ["test_*.py"]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        wanted = item.get_closest_marker("interpreted") is not None
        if item.path.parent.name == "kernels" and wanted != INTERPRETED:
            item.add_marker(pytest.mark.skip(reason=f"TRITON_INTERPRET is {'' if INTERPRETED else 'not '}set"))
