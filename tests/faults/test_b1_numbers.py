"""B1: numeric keys of the core and of plugins outside their range: status 2 with name, value and range, no folder."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from matrix import row

from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import CORE_GROUPS
from bionemo_core.plugins.configure import keys_of_dataclass
from bionemo_core.ranges import Range

pytestmark = pytest.mark.faults

VALUES = (0, -1, 2, 1_000_000_000, math.nan)
GROUPS = ("model", "optim", "scheduler")
"""Groups whose components a run of any model can have."""


class Key(NamedTuple):
    """A numeric key, and what to type so that a run has it."""

    choice: str
    name: str
    limits: Range


def keys() -> Iterator[Key]:
    for group, schema in CORE_GROUPS.items():
        yield from (
            Key("model=esm1nv_tiny", f"{group}.{one.name}", one.limits)
            for one in keys_of_dataclass(schema)
            if one.limits is not None
        )
    for component in load_registry().components():
        if component.group not in GROUPS or component.name == "finetuned":
            continue
        chosen = f"{component.group}={component.name}"
        yield from (
            Key(chosen, f"{component.group}.{one.name}", one.limits) for one in component.keys if one.limits is not None
        )


def outside() -> list[tuple[Key, float]]:
    return [(key, value) for key in keys() for value in VALUES if not key.limits.admits(value)]


def test_b1_numbers_outside_their_range(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    cases = outside()
    assert len(cases) > 300, "many keys have a range"
    matrix = row("B1", subset=20, full=len(cases))
    for number in range(matrix.n):
        key, value = cases[number] if matrix.n == len(cases) else matrix.draw(number).choice(cases)
        model = [] if key.choice.startswith("model=") else ["model=esm1nv_tiny"]
        with matrix.case(f"{number}: {key.choice} {key.name}={value}"):
            assert cli.main([*model, key.choice, f"{key.name}={value}"]) == 2
            said = capsys.readouterr().err
            assert said.startswith("error[config]: ") or "\nerror[config]: " in said
            assert key.name in said
            assert str(value) in said
            assert not (tmp_path / "home/runs").exists()
    matrix.check()
