"""The default logger: `metrics.csv` in the run folder."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from bionemo_core.reporting.metrics_file import NAME, MetricsFile, Number


class CsvLogger(Logger):
    """A logger that writes the metrics of each step to `metrics.csv`, on rank 0 only."""

    def __init__(self, folder: Path, name: str = "", resumed_step: int | None = None) -> None:
        """Set up the logger; the first metrics of a resumed run remove the rows after `resumed_step`."""
        super().__init__()
        self._folder = Path(folder)
        self._name = name
        self._resumed_step = resumed_step
        self._file = MetricsFile(self._folder / NAME)

    @property
    def name(self) -> str:
        """The run's name."""
        return self._name

    @property
    def version(self) -> str:
        """The name of the run folder."""
        return self._folder.name

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._folder)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row, or extend the last row if it has the same step.

        Raises:
            StorageError: the file cannot be written.
        """
        if self._resumed_step is not None:
            self.cut_back(self._resumed_step)
        self._file.write(step or 0, {name: _plain(value) for name, value in metrics.items() if name != "step"})

    @rank_zero_only
    def cut_back(self, step: int) -> None:
        """Remove the rows after `step`, atomically.

        Raises:
            StorageError: the file cannot be read or replaced.
        """
        self._resumed_step = None
        self._file.cut_back(step)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | argparse.Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run folder already has the configuration."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file."""
        self._file.close()


def _plain(value: Any) -> Number:
    number = value.item() if hasattr(value, "item") else value
    return number if type(number) in (int, float) else float(number)
