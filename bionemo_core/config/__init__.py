"""Configuration: schemas, the store of choices, v1's spellings, and the run specification made of them.

Import `batch_plan`, `spec` and `store` as modules; this file re-exports only what is light to import.
"""

from bionemo_core.config.schema import Batch, Checkpoint, Choice, Parallel, RunSpec, Trainer

__all__ = ["Batch", "Checkpoint", "Choice", "Parallel", "RunSpec", "Trainer"]
