"""The kit as an author runs it: a test class in a project of its own, under strict pytest settings."""

import subprocess
from pathlib import Path

from runs import Home
from small_plugin import FILES

from bionemo_core.testing import make_plugin

TOKENIZER_ONLY = FILES["__init__.py"].partition("@hookimpl\ndef bionemo_datasets")[0]
TEST_CLASS = """
from bionemo_core.testing import PluginConformance

class TestSmall(PluginConformance):
    plugin = "small"
"""


def run_kit(home: Home, folder: Path, code: str) -> "subprocess.CompletedProcess[str]":
    """Run pytest on a project that has this plugin and only the test class."""
    plugin = make_plugin(folder / "plugin", "small", code, files={"alphabet.py": FILES["alphabet.py"]})
    (folder / "test_small.py").write_text(TEST_CLASS)
    return home.pytest("-rA", "--strict-markers", folder=folder, PYTHONPATH=str(plugin.folder))


def test_a_good_plugin_passes(home: Home, tmp_path: Path):
    done = run_kit(home, tmp_path, TOKENIZER_ONLY)
    assert done.returncode == 0, done.stdout
    assert "PASSED test_small.py::TestSmall::test_tokenizer_round_trip[letters]" in done.stdout
    assert "PASSED test_small.py::TestSmall::test_parameters_are_typed[tokenizer-letters]" in done.stdout


def test_a_broken_plugin_fails_with_its_reason(home: Home, tmp_path: Path):
    done = run_kit(home, tmp_path, TOKENIZER_ONLY.replace("BIONEMO_PLUGIN_API = 1", "import absent_package"))
    assert done.returncode == 1, done.stdout
    assert (
        "bionemo-small 1.0 (broken): import failed: ModuleNotFoundError: No module named 'absent_package'"
        in done.stdout
    )
    assert "FAILED test_small.py::TestSmall::test_is_found_and_loads" in done.stdout
