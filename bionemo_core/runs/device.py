"""The device and the precision of a run."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from bionemo_core.config.schema import RunSpec
from bionemo_core.errors import ConfigError
from bionemo_core.parallel.float8 import check_float8
from bionemo_core.protocols import BuildContext
from bionemo_core.runs.cores import refuse_oversubscription

DTYPES = {"32": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
DTYPES["fp8-mixed"] = torch.bfloat16  # of all but the products of linear layers

DEFAULT_FP8_RECIPE = "rowwise"
"""One scale for a whole tensor is faster, but an outlier costs all other values their precision."""


@dataclass(frozen=True)
class Device:
    """The kind of device of all ranks of a run, and its precision."""

    accelerator: str  # cpu, gpu
    precision: str  # 32, bf16-mixed, 16-mixed, fp8-mixed
    fp8_recipe: str | None = None  # with fp8-mixed: tensorwise, rowwise

    @property
    def name(self) -> str:
        """Torch's name of the device: cpu or cuda."""
        return "cuda" if self.accelerator == "gpu" else "cpu"

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of computation; weights and optimizer state are always float32."""
        return DTYPES[self.precision]

    def context(self, spec: RunSpec) -> BuildContext:
        """Return the context that factories get."""
        return BuildContext(
            seed=spec.seed,
            device=self.name,
            dtype=str(self.dtype).removeprefix("torch."),
            tensor_model_parallel_size=spec.parallel.tensor_model_parallel_size,
            deterministic=spec.trainer.deterministic,
            home=spec.home,
        )


def choose_device(spec: RunSpec) -> Device:
    """Choose the device of the run; set threads and determinism of this process.

    Raises:
        ConfigError: the device is not available, or does not support the precision; or the run would start far more
            processes or threads than there are cores.
    """
    accelerator, precision = spec.trainer.accelerator, spec.trainer.precision
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError(
            "trainer.accelerator=gpu: torch sees no GPU here. Use trainer.accelerator=cpu, or see `bionemo-run doctor`."
        )
    if precision == "auto":
        precision = "bf16-mixed" if accelerator == "gpu" else "32"
    if precision == "16-mixed" and accelerator == "cpu":
        raise ConfigError("trainer.precision=16-mixed needs a GPU; on a CPU use 32 or bf16-mixed.")
    fp8_recipe = (spec.trainer.fp8_recipe or DEFAULT_FP8_RECIPE) if precision == "fp8-mixed" else None
    if fp8_recipe:
        check_float8(fp8_recipe, on_gpu=accelerator == "gpu")
    refuse_oversubscription(spec, ranks_use_cores=accelerator == "cpu")
    if spec.trainer.num_threads:
        torch.set_num_threads(spec.trainer.num_threads)
        os.environ["OMP_NUM_THREADS"] = str(spec.trainer.num_threads)  # without it Lightning sets a number of its own
    if spec.trainer.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    return Device(accelerator, precision, fp8_recipe)
