"""Configuration: schemas, the store of choices, v1's spellings, and the run that comes out of them.

`schema`, `batch_plan`, `spec` and `store` are imported by name; only what is light stands here.
"""

from bionemo_core.config.schema import Batch, Checkpoint, Choice, Parallel, RunSpec, Trainer

__all__ = ["Batch", "Checkpoint", "Choice", "Parallel", "RunSpec", "Trainer"]
