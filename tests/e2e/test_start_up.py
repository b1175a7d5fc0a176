"""What must answer at once imports nothing heavy; `benchmarks/bench_start_up.py` times it."""

import json
import signal
import subprocess
import sys

import pytest

HEAVY = {
    "torch", "pytorch_lightning", "megatron", "wandb", "tensorboard", "matplotlib", "pyarrow", "transformers", "pandas",
    "fastapi", "uvicorn", "pydantic",
}  # fmt: skip
REPORT = """
import json, sys
from bionemo_core.cli import main
status = main(sys.argv[1:])
sys.stderr.write("\\n" + json.dumps([status, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["help", "model=esm1nv"], 0),
        (["plugins"], 0),
        (["--version"], 0),
        (["model=esm1nv", "--cfg", "job"], 0),
        (["model=esm1nvv"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_no_heavy_import(arguments, status):
    done = subprocess.run([sys.executable, "-c", REPORT, *arguments], text=True, capture_output=True, timeout=60)
    got, modules = json.loads(done.stderr.splitlines()[-1])
    assert got == status, done.stderr
    assert not HEAVY & set(modules)


def test_misspelt_model_is_answered_with_the_close_name(bionemo_run):
    done = bionemo_run("model=esm1nvv")
    assert done.returncode == 2
    assert "Did you mean 'esm1nv'" in done.stderr
    assert "Traceback" not in done.stderr


SIGNALLED = """
import os, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Finder())
from bionemo_core.cli import main
sys.exit(main(["task=evaluate", "model=esm1nv_tiny"]))
"""


@pytest.mark.parametrize(
    ("number", "module"),
    [
        (signal.SIGINT, "bionemo_core.cli.failures"),  # the first import of `main`
        (signal.SIGTERM, "bionemo_core.training.signals"),
        (signal.SIGINT, "bionemo_core.cli.run"),
    ],
    ids=str,
)
def test_a_signal_at_the_start_is_answered_with_one_line(number, module):
    code = SIGNALLED.format(module=module, number=number.value)
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=60)
    assert done.returncode == 128 + number
    assert done.stderr.startswith(f"error[stopped]: {number.name} stopped the command.")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_nothing_is_imported_before_signals_are_handled():
    code = "import bionemo_core.cli, sys; print(*(name for name in sys.modules if name.startswith('bionemo_core')))"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    quick = {"bionemo_core", "bionemo_core._early_signals", "bionemo_core._moved", "bionemo_core._version"}
    assert set(done.stdout.split()) == {*quick, "bionemo_core.cli"}
