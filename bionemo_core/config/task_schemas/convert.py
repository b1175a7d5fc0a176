"""`task=convert`.

No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Convert:
    """Write the model at `restore_from_path` in another form."""

    output: str  # a folder or file that is not there yet
    to: Optional[str] = None  # artefact, nemo, huggingface; null: nemo for a name that ends in .nemo, else artefact
    dtype: str = "float32"  # of an artefact's tensors: float32, bfloat16, float16
    max_shard_mib: int = 5120  # tensors of more than this lie in several files
