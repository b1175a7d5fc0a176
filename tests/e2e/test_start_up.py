"""What must answer at once imports nothing heavy; `benchmarks/bench_start_up.py` times it."""

import json
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
