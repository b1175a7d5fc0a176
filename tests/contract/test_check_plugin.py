"""`bionemo-run check-plugin` as an author types it: a table, an exit status, and what to remove."""

import os
import subprocess
from pathlib import Path

import pytest
from runs import Home
from small_plugin import FILES

from bionemo_core import cli
from bionemo_core.testing import make_plugin

TOKENIZER_ONLY = FILES["__init__.py"].partition("@hookimpl\ndef bionemo_datasets")[0]


def check_plugin(
    home: Home, folder: Path, files: dict[str, str], *arguments: str
) -> "subprocess.CompletedProcess[str]":
    others = dict(files)
    plugin = make_plugin(folder / "plugin", "small", others.pop("__init__.py"), files=others)
    environment = {"BIONEMO_LOAD_PLUGINS": "bionemo-small", "PYTEST_ADDOPTS": "--no-such-option"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(plugin.folder), os.environ.get("PYTHONPATH")]))
    return home.python("-m", "bionemo_core", "check-plugin", "small", *arguments, folder=folder, **environment)


def test_a_good_plugin_passes(home: Home, tmp_path: Path) -> None:
    done = check_plugin(home, tmp_path, {**FILES, "__init__.py": TOKENIZER_ONLY})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok       tokenizer round trip                 letters\n" in done.stdout
    assert "7 checks passed, 0 failed, 0 skipped" in done.stdout
    assert "FAILED" not in done.stdout
    assert "model" not in done.stdout, "a plugin without a model has no line about one"


def test_a_capability_that_does_not_hold_is_named(home: Home, tmp_path: Path) -> None:
    network = FILES["network.py"].replace("own = batch.segment_ids", "own = 0 * batch.segment_ids")
    network = network.replace("== batch.segment_ids[:, None", "== 0 * batch.segment_ids[:, None")
    assert network != FILES["network.py"]
    done = check_plugin(home, tmp_path, {**FILES, "network.py": network}, "model.width=16", "--only", "packed or typed")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "FAILED   packed equals unpacked               bag\n" in done.stdout
    assert "model 'bag' declares 'packing', but sequence" in done.stdout
    assert "Remove 'packing' from the capabilities of bag, or correct the model." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobodys"], "no plugin 'nobodys' is installed"),
        (["bionemo-rum"], "no plugin 'bionemo-rum' is installed. Installed: "),
        (["bionemo-esn"], "Did you mean 'esm'"),
        (["bionemo-run"], "bionemo-run is no plugin. Name one of "),
        (["esm", "model.num_layer=2"], "Did you mean 'model.num_layers'"),
        (["esm", "--models", "esm2"], "bionemo-esm has no model 'esm2'"),
        (["esm", "--quick"], "unrecognized arguments: --quick. Usage: bionemo-run check-plugin NAME"),
    ],
)
def test_arguments_that_name_nothing_are_refused(capsys, arguments: list[str], message: str) -> None:
    pytest.importorskip("bionemo_esm")
    assert cli.main(["check-plugin", *arguments]) == 2
    assert message in capsys.readouterr().err
