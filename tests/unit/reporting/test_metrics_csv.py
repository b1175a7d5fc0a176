"""metrics.csv keeps every number exactly, whatever happens to the process."""

import errno
import math
import os
import subprocess
import sys

import pytest
import torch

from bionemo_core.errors import StorageError
from bionemo_core.reporting.csv_logger import CsvLogger
from bionemo_core.reporting.metrics_file import MetricsFile, read_rows


def _lines(folder):
    return (folder / "metrics.csv").read_text().splitlines()


def test_losses_come_back_bit_for_bit(tmp_path):
    draw = torch.Generator().manual_seed(0)
    losses = [*torch.randn(200, dtype=torch.float64, generator=draw).tolist(), 5e-324, -0.0, 1 / 3]
    file = MetricsFile(tmp_path / "metrics.csv")
    for step, loss in enumerate(losses):
        file.write(step, {"reduced_train_loss": loss})
    back = [row["reduced_train_loss"] for row in read_rows(tmp_path / "metrics.csv")]
    assert [x.hex() for x in back] == [x.hex() for x in losses]


def test_not_finite_values_and_whole_numbers_keep_their_kind(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.write(1, {"a": math.nan, "b": -math.inf, "consumed_samples": 2**60})
    (row,) = read_rows(tmp_path / "metrics.csv")
    assert math.isnan(row["a"])
    assert row["b"] == -math.inf
    assert (row["consumed_samples"], type(row["consumed_samples"])) == (2**60, int)


def test_one_row_a_step_and_columns_may_come_later(tmp_path):
    logger = CsvLogger(tmp_path)
    logger.log_metrics({"loss": torch.tensor(1.5), "lr": 0.1}, step=1)
    logger.log_metrics({"loss": 1.25, "lr": 0.1}, step=2)
    logger.log_metrics({"val_loss": 2.0}, step=2)
    logger.log_metrics({"lr": 0.2, "loss": 1.0}, step=3)
    assert _lines(tmp_path) == ["step,loss,lr,val_loss", "1,1.5,0.1,", "2,1.25,0.1,2.0", "3,1.0,0.2,"]


def test_a_shorter_value_for_the_same_step_replaces_the_longer(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.write(1, {"a": 0.123456789})
    file.write(1, {"a": 1.0})
    file.write(2, {"a": 2.0})
    assert _lines(tmp_path) == ["step,a", "1,1.0", "2,2.0"]


@pytest.mark.processes
def test_every_row_is_there_at_once_and_survives_kill(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from bionemo_core.reporting.metrics_file import MetricsFile\n"
        "file = MetricsFile(Path(sys.argv[1]))\n"
        "for step in range(50): file.write(step, {'loss': step / 3, f'late{step // 20}': 1})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "metrics.csv"
    assert subprocess.run([sys.executable, "-c", code, str(path)], timeout=60).returncode == -9
    assert [row["loss"] for row in read_rows(path)] == [step / 3 for step in range(50)]


def test_a_resumed_run_goes_on_after_the_checkpoint(tmp_path):
    before = CsvLogger(tmp_path)
    for step in range(1, 8):
        before.log_metrics({"loss": float(step)}, step=step)
    after = CsvLogger(tmp_path, resumed_step=4)
    after.log_metrics({"loss": 50.0}, step=5)
    after.log_metrics({"loss": 60.0}, step=6)
    assert _lines(tmp_path) == ["step,loss", "1,1.0", "2,2.0", "3,3.0", "4,4.0", "5,50.0", "6,60.0"]


def test_a_torn_last_row_is_dropped_when_the_run_goes_on(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,1.0\n2,2.")
    MetricsFile(path).write(3, {"loss": 3.0})
    assert _lines(tmp_path) == ["step,loss", "1,1.0", "3,3.0"]


def test_a_full_disk_is_a_storage_error_that_names_the_file(tmp_path, monkeypatch):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.write(1, {"loss": 1.0})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match=r"metrics\.csv cannot be written: No space left"):
        file.write(2, {"loss": 1.0})


def test_cutting_back_before_anything_was_written_is_fine(tmp_path):
    CsvLogger(tmp_path, resumed_step=3).log_metrics({"loss": 1.0}, step=4)
    assert _lines(tmp_path) == ["step,loss", "4,1.0"]
