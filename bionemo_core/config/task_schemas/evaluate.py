"""`task=evaluate`.

No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on a split of the data, and draw a report."""

    output: str  # a folder: metrics.json, report.html, and predictions.csv of a fine-tuned model
    split: str = "test"  # train, val, test
    pseudo_perplexity: int = 0  # sequences to compute it on, each residue masked alone; 0: none
    adapter: Optional[str] = None  # a folder `adapter` of a LoRA fine-tuning of the model at restore_from_path
    overwrite: bool = False  # replace an output that is there
