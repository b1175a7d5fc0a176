"""`task=prepare`.

No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Prepare:
    """Prepare the data of a model or a tokenizer, and say what became of each record."""

    num_workers: Optional[int] = None  # processes that judge records; null: one a CPU where that takes long, 0: none
    picture: bool = True  # draw the lengths beside each store
