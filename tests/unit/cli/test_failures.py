"""How a failure becomes a message and an exit status."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.cli.failures import ExitStatus
from bionemo_core.errors import DataError, Preempted, Stopped
from bionemo_core.io.download import fetch
from bionemo_core.io.hashing import hash_bytes
from bionemo_core.testing import installed, make_plugin

PLUGIN = """
from bionemo_core import Component, configure, hookimpl
BIONEMO_PLUGIN_API = 1


class Records(list):
    def __getitem__(self, row):
        return {"no": "sequence"}["sequence"]


def nothing(*, tokenizer, context):
    from bionemo_core.protocols import DataSplits
    return DataSplits(train=[])


def divides(*, tokenizer, context):
    return 1 / 0


def misuses(*, tokenizer, context):
    from bionemo_core.io.hashing import hash_bytes
    return hash_bytes(1)


def lacks(*, tokenizer, context):
    import numpy as np
    from bionemo_core.protocols import DataSplits
    records = Records(range(50))
    records.lengths = np.full(50, 20)
    return DataSplits(train=records)


@hookimpl
def bionemo_datasets():
    for factory in (nothing, divides, misuses, lacks):
        yield Component(factory.__name__, configure(factory), "broken data")
"""
SMALL = (
    "model=esm1nv_tiny", "model.num_layers=1", "trainer.max_steps=1", "trainer.accelerator=cpu", "batch.seq_length=64",
    "trainer.progress_bar=false", "trainer.num_threads=1",
)  # fmt: skip
NAMED = "this is a bug in the plugin bionemo-broken 1.0"


@pytest.fixture(scope="module", autouse=True)
def _plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process reads its plugins once, so the broken one is there for all tests."""
    with installed(make_plugin(tmp_path_factory.mktemp("plugin") / "site", "broken", PLUGIN)):
        load_registry.cache_clear()
        yield
    load_registry.cache_clear()


def test_a_broken_download_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there.fasta").write_text("no header")
    path = fetch(f"file://{tmp_path}/there.fasta", tmp_path / "kept" / "there.fasta")
    with ExitStatus() as status:
        raise DataError(f"fasta: {path}:1: text before the first header.")
    assert status.value == 3
    assert f"{path} was downloaded from file://" in (error := capsys.readouterr().err)
    assert "remove it to download it again" in error


def test_a_signal_that_a_library_turns_into_an_error_is_no_bug(capsys):
    with ExitStatus() as status:
        try:
            raise Stopped(signal.SIGTERM)
        finally:
            raise UnboundLocalError("a clean-up that the signal interrupted")
    assert status.value == 128 + signal.SIGTERM
    assert "SIGTERM stopped the command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "speaks"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0", "SLURM_PROCID": "0"}, False),
        ({"NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
@pytest.mark.parametrize("error", [Stopped(signal.SIGTERM), Preempted("stopped by SIGTERM; all is saved")])
def test_one_rank_says_that_a_signal_stopped_the_job(monkeypatch, capsys, variables, speaks, error):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with ExitStatus() as status:
        raise error
    assert status.value in (75, 143)
    assert capsys.readouterr().err.count("SIGTERM") == int(speaks)


def test_a_lost_job_of_a_sweep_is_no_bug(capsys):
    lost = type("UncompletedJobError", (RuntimeError,), {"__module__": "submitit.core.utils"})
    with ExitStatus() as status:
        raise lost("Job not requeued because: timed-out too many times.\nand a traceback")
    assert status.value == 8
    said = capsys.readouterr().err
    assert "timed-out too many times. Its output is in .submitit" in said
    assert "traceback" not in said


@pytest.mark.parametrize(
    ("data", "workers", "said"),
    [
        ("divides", 0, f"{NAMED}, at .*__init__.py:\\d+, not in bionemo-run"),
        ("misuses", 0, f"{NAMED}, or in bionemo-run, which the plugin calls at .*__init__.py:\\d+"),
        ("lacks", 0, f"{NAMED}, at .*__init__.py:\\d+, not in"),
        ("lacks", 1, f"{NAMED}, at .*__init__.py:\\d+, not in"),
    ],
)
def test_a_bug_of_a_plugin_names_it(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    data: str,
    workers: int,
    said: str,
) -> None:
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    assert cli.main([*SMALL, f"data={data}", "name=x", f"batch.num_workers={workers}"]) == 70
    error = capfd.readouterr().err
    assert "Traceback" in error and re.search(said, error.splitlines()[-1]), error


def test_a_bug_of_the_core_blames_no_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStatus() as status:
        hash_bytes(1)  # type: ignore[arg-type]
    assert status.value == 70
    assert capsys.readouterr().err.splitlines()[-1].startswith("error[bug]: this is a bug in bionemo-run; please")


def test_data_without_records_are_refused_and_leave_no_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    assert cli.main([*SMALL, "data=nothing", "name=x", "batch.num_workers=0"]) == 3
    assert "data=nothing of bionemo-broken: its training split has no record" in capfd.readouterr().err
    assert not list((tmp_path / "home" / "runs" / "x").iterdir())
