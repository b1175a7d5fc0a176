"""The loggers `csv`, `tensorboard`, `wandb` and `mlflow`. Importing this module imports neither torch nor Lightning.

No `from __future__ import annotations` here: hydra-zen reads these annotations at run time.
"""

import netrc
import os
import secrets
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

from bionemo_core.errors import ConfigError
from bionemo_core.io.atomic import write_text
from bionemo_core.machine import has_package
from bionemo_core.protocols import RunContext

WANDB_KEY = "WANDB_API_KEY"
_LOGGER_OF = {"mlflow-skinny": "mlflow", "psutil": "mlflow"}
"""The logger that needs a package of another name."""


def csv(run: RunContext) -> Any:
    """Return a logger that writes `metrics.csv` in the run folder, in full precision.

    Raises:
        StorageError: the file cannot be written, at the first metrics.
    """
    from bionemo_core.reporting.csv_logger import CsvLogger

    return CsvLogger(run.folder, run.name, run.resumed_step)


def tensorboard(run: RunContext) -> Any:
    """Return Lightning's TensorBoard logger, with its event files in `tensorboard` in the run folder.

    Raises:
        ConfigError: tensorboard is not installed.
    """
    _require("tensorboard", "tensorboard")
    from pytorch_lightning.loggers import TensorBoardLogger

    # Events after the checkpoint belong to steps that are repeated; `purge_step` makes the viewer drop them.
    purge: dict[str, Any] = {} if run.resumed_step is None else {"purge_step": run.resumed_step + 1}
    return TensorBoardLogger(run.folder, name="", version="tensorboard", default_hp_metric=False, **purge)


# Long: the signature and the call list what W&B is told, each with a line of help.
def wandb(
    run: RunContext,
    project: Optional[str] = None,
    name: Optional[str] = None,
    entity: Optional[str] = None,
    offline: Optional[bool] = None,
    tags: list[str] = [],  # noqa: B006 - read only; hydra-zen copies it
    group: Optional[str] = None,
    job_type: Optional[str] = None,
    notes: Optional[str] = None,
    log_checkpoint: bool = False,
) -> Any:
    """Return Lightning's Weights & Biases logger, with its files in the run folder.

    `offline=null` means online if a key is found: in `WANDB_API_KEY`, in the file `.env` of the current
    directory (its other variables are ignored), or in netrc. A resumed run keeps its W&B id.

    Args:
        run: the run that logs.
        project: W&B's project; null: bionemo.
        name: the name that W&B shows; null: the name of the run.
        entity: the user or team that owns the project; null: your default.
        offline: write to the run folder only; null: only if no API key is found.
        tags: W&B's tags of the run.
        group: W&B's group, which puts the runs of one experiment together.
        job_type: W&B's kind of the run, such as pretrain.
        notes: text that W&B shows beside the run.
        log_checkpoint: at the end of a training, send the newest checkpoint as an artefact of W&B.

    Raises:
        ConfigError: wandb is not installed, or `offline=false` and there is no key.
    """
    _require("wandb", "wandb")
    _require("dotenv", "wandb")
    from pytorch_lightning.utilities import rank_zero_only
    from wandb import Settings

    from bionemo_core.reporting.wandb_logger import CheckpointLogger

    go_offline = _set_key(offline)
    # Secrets often leak through the console, source code, git state and argv.
    settings = Settings(console="off", save_code=False, disable_code=True, disable_git=True, x_disable_meta=True)
    return CheckpointLogger(
        run.folder,
        log_checkpoint,
        name=name or run.name,
        project=project or "bionemo",
        save_dir=run.folder,
        id=_wandb_id(run.folder) if getattr(rank_zero_only, "rank", 0) == 0 else None,
        offline=go_offline,
        entity=entity,
        tags=list(tags),
        group=group,
        job_type=job_type,
        notes=notes,
        settings=settings,
    )


def mlflow(
    run: RunContext,
    tracking_uri: Optional[str] = None,
    experiment: Optional[str] = None,
    name: Optional[str] = None,
    tags: dict[str, str] = {},  # noqa: B006 - read only; hydra-zen copies it
    system_metrics: bool = False,
) -> Any:
    """Return a logger that sends metrics to an MLflow server, in the background; a resumed run keeps its MLflow run.

    Args:
        run: the run that logs.
        tracking_uri: address of the server; null: that of MLFLOW_TRACKING_URI.
        experiment: MLflow's experiment; null: bionemo.
        name: the name that MLflow shows; null: the name of the run.
        tags: MLflow's tags of the run, as {key: value}.
        system_metrics: also send the use of CPU, memory, disk and network, and with nvidia-ml-py of GPUs.

    Raises:
        ConfigError: mlflow is not installed, or no server is named.
        NetworkError: the server does not answer.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise ConfigError(
            "logger.mlflow.tracking_uri: no server is named. Give its address, such as http://127.0.0.1:5000, or set "
            "MLFLOW_TRACKING_URI."
        )
    _require("mlflow", "mlflow-skinny")
    if system_metrics:
        _require("psutil", "psutil")
    from bionemo_core.reporting.mlflow_logger import make_logger

    made = make_logger(run.folder, uri, experiment or "bionemo", name or run.name, dict(tags))
    if system_metrics:
        made.watch_system()
    return made


def _set_key(offline: bool | None) -> bool:
    """Give W&B the key that is found, unless the run is offline; return whether it is.

    Raises:
        ConfigError: `offline` is false, and there is no key.
    """
    key = os.environ.get(WANDB_KEY) or _key_of_dotenv(Path(".env"))
    has_key = bool(key) or _netrc_has_key()
    if offline is False and not has_key:
        raise ConfigError(
            f"logger.wandb.offline=false, but there is no key in {WANDB_KEY}, in .env or in netrc. "
            f"Set {WANDB_KEY}, run `wandb login`, or leave logger.wandb.offline=null."
        )
    go_offline = not has_key if offline is None else offline
    if key and not go_offline:
        # W&B reads the key from the environment of this process; a file with it would outlive the run.
        os.environ[WANDB_KEY] = key
    return go_offline


def _require(module: str, extra: str) -> None:
    if not has_package(module):
        raise ConfigError(
            f"logger={_LOGGER_OF.get(extra, extra)}: the package that provides `{module}` is not installed. "
            f"Run `pip install {extra}`, or choose logger=csv."
        )


def _key_of_dotenv(path: Path) -> str | None:
    from dotenv import dotenv_values

    if not path.is_file():
        return None
    return dotenv_values(path, interpolate=False).get(WANDB_KEY)


def _netrc_has_key() -> bool:
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    named = os.environ.get("NETRC")
    candidates = [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for path in candidates:
        try:
            if netrc.netrc(path).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _wandb_id(folder: Path) -> str:
    path = folder / "wandb_id"
    if path.is_file() and (known := path.read_text().strip()):
        return known
    new = secrets.token_hex(4)
    write_text(path, new + "\n")
    return new
