"""Imports that plugins made of earlier versions still work, and say what to write instead."""

import importlib
import sys

import pytest

from bionemo_core._moved import MOVED_MODULES, RENAMED, RENAMED_IN_PLACE


@pytest.fixture(autouse=True)
def forget_old_names():
    yield
    for name in MOVED_MODULES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("old", MOVED_MODULES)
def test_old_module_name_warns_and_gives_the_new_module(old):
    sys.modules.pop(old, None)
    new = importlib.import_module(MOVED_MODULES[old])
    with pytest.warns(FutureWarning, match=f"has moved to {MOVED_MODULES[old]}"):
        module = importlib.import_module(old)
    assert all(getattr(module, name) is getattr(new, name) for name in vars(new) if not name.startswith("__"))


@pytest.mark.parametrize(
    ("module", "old", "new"), [(m, old, new) for m, d in RENAMED.items() for old, new in d.items()]
)
def test_old_names_are_the_new_ones(module, old, new):
    before = next(name for name, now in MOVED_MODULES.items() if now == module)
    with pytest.warns(FutureWarning):
        assert getattr(importlib.import_module(before), old) is getattr(importlib.import_module(module), new)


@pytest.mark.parametrize(
    ("module", "old", "new"), [(m, old, new) for m, d in RENAMED_IN_PLACE.items() for old, new in d.items()]
)
def test_old_names_in_the_same_module_warn(module, old, new):
    with pytest.warns(FutureWarning, match=f"{module}.{old} is now called {new}"):
        assert getattr(importlib.import_module(module), old) is getattr(importlib.import_module(module), new)
    with pytest.raises(AttributeError, match="Nothing"):
        importlib.import_module(module).Nothing  # noqa: B018 - the access is the test


@pytest.mark.parametrize(
    "statement",
    [
        "from bionemo_core.data.masking import MaskedLanguageObjective",
        "from bionemo_core.nn.recordable import recordable",
        "from bionemo_core.checkpoint.foreign.connector import Connector",
        "from bionemo_core.checkpoint.foreign.settings import Settings",
        "from bionemo_core.testing import Settings",
    ],
)
def test_statements_that_the_documentation_showed(statement):
    with pytest.warns(FutureWarning, match="will stop working in"):
        exec(statement)


def test_a_module_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("bionemo_core.data.nothing_of_the_kind")
