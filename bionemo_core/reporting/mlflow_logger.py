"""The logger `mlflow`: one run of an MLflow server for each of our runs, which a resume goes on with."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.utilities import rank_zero_only

from bionemo_core.errors import NetworkError
from bionemo_core.io.atomic import write_text

log = logging.getLogger("bionemo")

RUN_ID = "mlflow_run_id"
"""The file in the run folder with the id of MLflow's run."""


class MlflowLogger(MLFlowLogger):
    """Lightning's logger, which sends in the background: no step waits for the server or fails with it."""

    _monitor: Any = None

    def watch_system(self) -> None:
        """Send the use of the machine every ten seconds from now on, from a thread, until the run ends."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        if getattr(rank_zero_only, "rank", 0) != 0:
            return
        self._monitor = SystemMetricsMonitor(self.run_id, resume_logging=True, tracking_uri=self._tracking_uri)
        self._monitor.start()

    def finalize(self, status: str = "success") -> None:
        """Tell the server that the run has ended; if it does not answer, the run has ended all the same."""
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        try:
            super().finalize(status)
        except (MlflowException, OSError) as error:
            log.warning("logger=mlflow: the server was not told the end of the run: %s", _first_line(error))


def make_logger(folder: Path, uri: str, experiment: str, name: str, tags: dict[str, str]) -> MlflowLogger:
    """Return the logger of a run folder, whose run the server gets now if the folder has none yet.

    Raises:
        NetworkError: the server does not answer, or refuses.
        StorageError: the id of the run cannot be written.
    """
    for variable, value in {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}.items():
        os.environ.setdefault(variable, value)
    known = None
    if getattr(rank_zero_only, "rank", 0) == 0:
        path = folder / RUN_ID
        known = path.read_text().strip() if path.is_file() else ""
        if not known:
            known = _create_run(uri, experiment, name, tags)
            write_text(path, known + "\n")
        else:
            _continue_run(uri, known)
    return MlflowLogger(experiment_name=experiment, tracking_uri=uri, run_id=known, synchronous=False)


def _create_run(uri: str, experiment: str, name: str, tags: dict[str, str]) -> str:
    """Return the id of a new run. It gets no tags of MLflow's own, which name the user, the script and the commit."""
    client = MlflowClient(uri)
    try:
        found: Any = client.get_experiment_by_name(experiment)
        place = found.experiment_id if found is not None else client.create_experiment(experiment)
        return str(client.create_run(place, run_name=name, tags=tags).info.run_id)
    except (MlflowException, OSError) as error:
        raise NetworkError(
            f"logger=mlflow: the server {uri} made no run: {_first_line(error)}. Start one with `mlflow server`, or "
            "leave logger=mlflow out."
        ) from error


def _continue_run(uri: str, known: str) -> None:
    """Tell the server that a run goes on, which it may show as finished or failed."""
    try:
        MlflowClient(uri).update_run(known, status="RUNNING")
    except (MlflowException, OSError) as error:
        raise NetworkError(
            f"logger=mlflow: the server {uri} does not go on with the run {known}: {_first_line(error)}. Start it, or "
            f"remove {RUN_ID} in the run folder to begin a new run there."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
