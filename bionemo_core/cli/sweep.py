"""A sweep: what its runs report to the sweeper, and the table of their results."""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback

from bionemo_core.config.metric_direction import choose_mode
from bionemo_core.errors import ConfigError
from bionemo_core.io.atomic import new_csv, write_json
from bionemo_core.reporting.metrics_file import NAME, read_rows

if TYPE_CHECKING:
    from omegaconf import DictConfig

TABLE = "results.csv"
_JOBS = "jobs"
_GRID = "BasicSweeper"
"""The class of Hydra's own sweeper, which runs every combination and needs no metric."""


class RememberSweep(Callback):
    """A callback of Hydra that remembers the folder of the sweep that this process has started."""

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: "DictConfig", **_: Any) -> None:
        RememberSweep.folder = Path(config.hydra.sweep.dir).expanduser()


@contextmanager
def table_at_end() -> Iterator[None]:
    """Print the table of the sweep that runs in the block, and write it as CSV, also if a run of it has failed."""
    RememberSweep.folder = None
    try:
        yield
    finally:
        if RememberSweep.folder is not None:
            _write_table(RememberSweep.folder)


def record_job(run: Callable[["DictConfig"], Any], config: "DictConfig") -> float | None:
    """Run one job of a sweep; return its best monitored metric, and keep its results for the table.

    Args:
        run: runs the task of a configuration, and returns the run folder if the task makes one.
        config: the composed configuration.

    Raises:
        BioNeMoError: what the task raised, or the sweeper needs a metric and there is none.
    """
    settings = HydraConfig.get()
    result: dict[str, Any] = {"overrides": list(settings.overrides.task), "status": "failed"}
    try:
        monitor = config.checkpoint
        mode = choose_mode(monitor.monitor, monitor.mode)
        _check_direction(settings.sweeper.get("direction"), monitor.monitor, mode)
        folder = run(config)
        value = best_metric(folder, monitor.monitor, mode) if isinstance(folder, Path) else None
        result |= {"status": "done", "metric": monitor.monitor, "best": value, "folder": str(folder or "")}
    finally:
        write_json(Path(settings.sweep.dir).expanduser() / _JOBS / f"{settings.job.num:04d}.json", result)
    if value is None and not settings.sweeper["_target_"].endswith(_GRID):
        raise ConfigError(
            f"hydra/sweeper: it needs the metric {monitor.monitor}, and this run has none. Set "
            "trainer.val_check_interval so that the run is validated, or name another with checkpoint.monitor."
        )
    return value


def _check_direction(direction: Any, metric: str, mode: str) -> None:
    """Check that a sweeper with a `direction` looks for the better values of the metric."""
    wanted = {"min": "minimize", "max": "maximize"}[mode]
    if direction is not None and wanted not in str(direction).lower():
        raise ConfigError(
            f"hydra.sweeper.direction={direction} looks for the worst {metric}. Set hydra.sweeper.direction={wanted}, "
            "or checkpoint.mode if that is meant."
        )


def best_metric(folder: Path, name: str, mode: str) -> float | None:
    """Return the lowest value (with `mode` max: the highest) of a metric over a run; None if it was not measured."""
    path = folder / NAME
    rows = read_rows(path) if path.is_file() else []
    values = [float(row[name]) for row in rows if name in row and not math.isnan(float(row[name]))]
    return (min if mode == "min" else max)(values) if values else None


def _write_table(sweep: Path) -> None:
    results = [json.loads(path.read_text()) for path in sorted((sweep / _JOBS).glob("*.json"))]
    if not results:
        return
    metric = next((result["metric"] for result in results if result.get("metric")), "metric")
    chosen = [dict(one.lstrip("+").partition("=")[::2] for one in result["overrides"]) for result in results]
    changed = [key for key in dict.fromkeys(key for one in chosen for key in one) if _differs(key, chosen)]
    header = ["run", *changed, f"best {metric}", "status", "folder"]
    rows = [
        [str(number), *(own.get(key, "") for key in changed), _shown(result), result["status"], result.get("folder")]
        for number, (own, result) in enumerate(zip(chosen, results, strict=True))
    ]
    with new_csv(sweep / TABLE, header) as add_rows:
        add_rows(rows)
    sys.stdout.write(_aligned([header, *rows]) + f"\nresults  {sweep / TABLE}\n")


def _differs(key: str, chosen: Sequence[Mapping[str, str]]) -> bool:
    return len({one.get(key) for one in chosen}) > 1


def _shown(result: Mapping[str, Any]) -> str:
    value = result.get("best")
    return "" if value is None else f"{float(value):.6g}"


def _aligned(rows: Sequence[Sequence[Any]]) -> str:
    texts = [[str(cell or "") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in texts)
