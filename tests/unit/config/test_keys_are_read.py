"""Every key has an effect: some code reads it."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import bionemo_core
from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import CORE_GROUPS
from bionemo_core.plugins.configure import ComponentConfig
from bionemo_core.tasks.settings import Embed
from bionemo_core.testing.keys_read import names_read, package_of, unread_keys

CORE = Path(bionemo_core.__file__).parent
NOT_READERS = (CORE / "config/schema.py", CORE / "config/value_checks.py", CORE / "config/batch_plan.py")
"""They declare or check the core's keys."""


def unread(owner: Any) -> list[str]:
    return [name for name, _ in unread_keys(owner, list(package_of(owner).rglob("*.py")))]


def owners() -> list[Any]:
    configs = [one.component.config for one in load_registry().components()]
    found = [owner for config in configs if isinstance(config, ComponentConfig) for owner in config.explained_by]
    return sorted(set(found), key=lambda owner: f"{owner.__module__}.{owner.__qualname__}")


@pytest.mark.parametrize("owner", owners(), ids=lambda owner: f"{owner.__module__}.{owner.__qualname__}")
def test_every_key_of_a_component_or_a_task_is_read(owner):
    assert unread(owner) == []


@pytest.mark.parametrize(
    ("group", "key"), [(group, one.name) for group, schema in CORE_GROUPS.items() for one in dataclasses.fields(schema)]
)
def test_every_key_of_the_core_is_read(group, key):
    readers = [
        path
        for path in CORE.rglob("*.py")
        if path not in NOT_READERS and {key, group} <= names_read(path) | {schema_group(path)}
    ]
    assert readers


def schema_group(path: Path) -> str:
    """The group whose dataclass a module names."""
    return next((group for group, schema in CORE_GROUPS.items() if schema.__name__ in names_read(path)), "")


@dataclasses.dataclass(frozen=True)
class Forgotten:
    """Two keys; the first has a name that tasks read."""

    kept: int = 1
    the_forgotten_one: int = 2


def uses_one(kept: int, the_forgotten_one: int) -> int:
    return kept


def test_a_forgotten_key_is_found():
    assert unread(uses_one) == ["the_forgotten_one"]
    assert unread_keys(Forgotten, list(package_of(Embed).rglob("*.py"))) == [("the_forgotten_one", "Forgotten")]
