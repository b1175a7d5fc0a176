"""The logger `wandb`: Lightning's, which can also send the newest checkpoint when a run has ended well."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from bionemo_core.checkpoint.folder_names import list_checkpoints

log = logging.getLogger("bionemo")


class CheckpointLogger(WandbLogger):
    """Lightning's logger, which sends the newest checkpoint as an artefact of W&B.

    The artefact is a small run folder: `run.json` and one checkpoint, so `restore_from_path` opens the downloaded one.

    Args:
        folder: the run folder.
        sends_checkpoint: whether to send it.
        **settings: those of Lightning's logger.
    """

    def __init__(self, folder: Path, sends_checkpoint: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self._folder = folder
        self._sends_checkpoint = sends_checkpoint
        self._sent: Path | None = None

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send the newest checkpoint of a training that ended well; a failure is a warning, for the run has ended."""
        super().finalize(status)
        if status != "success" or not self._sends_checkpoint or self._experiment is None:
            return
        try:
            self._send()
        except Exception as error:  # W&B raises what its service and the file system do
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            log.warning("logger=wandb: the checkpoint was not sent as an artefact: %s", reason)

    def _send(self) -> None:
        from wandb import Artifact

        newest = list(list_checkpoints(self._folder / "checkpoints").values())[-1:]
        if not newest or newest[0] == self._sent:  # a test after the training ends a second time
            return
        checkpoint = newest[0]
        artefact = Artifact(f"model-{self.experiment.id}", type="model", metadata={"checkpoint": checkpoint.name})
        # A copy needs the size of the files once more; but before an offline run is sent, a resume may remove them.
        policy: Literal["mutable", "immutable"] = "mutable" if self._offline else "immutable"
        artefact.add_file(str(self._folder / "run.json"), policy=policy)
        artefact.add_dir(str(checkpoint), name=f"checkpoints/{checkpoint.name}", policy=policy)
        self.experiment.log_artifact(artefact, aliases=["latest", checkpoint.name])
        self._sent = checkpoint
