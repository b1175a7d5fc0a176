"""Where the core came from, and how packages were installed, as `bionemo-run doctor` says it."""

import json
import os
import subprocess
from importlib.util import spec_from_file_location
from types import SimpleNamespace

import pytest

from bionemo_core import _metadata, machine
from bionemo_core.cli import doctor

CORE, PLUGIN = "bionemo-run", "bionemo-esm"


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ({CORE: "file:///src", PLUGIN: "file:///src/plugins/bionemo-esm"}, ["ok: installed from file:///src"]),
        ({CORE: None, PLUGIN: None}, ["ok: installed by its name"]),
        ({CORE: None, PLUGIN: "file:///src"}, ["ok: installed by its name", "note: by its name from an index"]),
        ({PLUGIN: "file:///src"}, []),
    ],
    ids=["checkout", "wheels", "foreign core", "no metadata"],
)
def test_a_core_that_came_by_its_name_is_noticed_beside_plugins_of_a_checkout(monkeypatch, addresses, expected):
    def distribution(name: str) -> SimpleNamespace:
        if name not in addresses:
            raise _metadata.PackageNotFoundError(name)
        text = addresses[name] and json.dumps({"url": addresses[name], "dir_info": {}})
        return SimpleNamespace(read_text=lambda file: text if file == "direct_url.json" else "")

    records = (SimpleNamespace(distribution=CORE), SimpleNamespace(distribution=PLUGIN))
    monkeypatch.setattr(_metadata, "distribution", distribution)
    monkeypatch.setattr(doctor, "load_registry", lambda: SimpleNamespace(records=records))
    found = [f"{one.level}: {one.text}" for one in doctor._origins()]
    assert len(found) == len(expected)
    for line, words in zip(found, expected, strict=True):
        level, _, part = words.partition(": ")
        assert line.startswith(level) and part in line


@pytest.mark.parametrize("text", ["{", "[]", '{"url": 3}', "", None])
def test_damaged_metadata_has_no_origin(monkeypatch, text):
    monkeypatch.setattr(_metadata, "distribution", lambda name: SimpleNamespace(read_text=lambda file: text))
    assert _metadata.origin(CORE) is None


@pytest.mark.parametrize("file", ["torch.py", "torch/__init__.py"])
def test_a_package_without_bytecode_is_noticed_until_it_is_compiled(monkeypatch, tmp_path, file):
    source = tmp_path / file
    source.parent.mkdir(exist_ok=True)
    source.write_text("")
    monkeypatch.setattr(machine, "find_spec", lambda name: spec_from_file_location(name, source))
    (found,) = [one for one in doctor._torch() if "bytecode" in one.text]
    command = found.advice.partition(": ")[2].split()
    assert command[-1] == str(tmp_path)
    subprocess.run(command, check=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert not [one for one in doctor._torch() if "bytecode" in one.text]
