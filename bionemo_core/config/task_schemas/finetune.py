"""`task=finetune`.

No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

from dataclasses import dataclass
from typing import Any, Optional


@dataclass(frozen=True)
class Finetune:
    """Train a head on a pre-trained model, and the model with it if asked."""

    kind: str  # sequence_regression, sequence_classification, token_classification, token_regression
    encoder: str = "frozen"  # frozen (its states are computed once and kept), full, lora
    head: Optional[str] = None  # null: mlp for sequences, convnet for residues
    head_params: Any = None  # a mapping of the keys of the head: {hidden_layer_size: 256}
    freeze_layers: int = 0  # encoder=full: blocks that stay as they are; negative: all but the last so many
    lora_rank: int = 32  # of the low-rank adapters
    lora_alpha: Optional[float] = None  # null: the rank
    lora_dropout: float = 0.0  # of what goes into an adapter
    lora_targets: Optional[list[str]] = None  # null: qkv, proj, fc1, fc2
    class_weights: Optional[list[float]] = None  # in the order of the sorted classes
    balance_classes: bool = False  # weights by which every class counts the same in training
    standardise: bool = True  # learn values with mean 0 and deviation 1; metrics are in the labels' units
    states_dtype: str = "float32"  # of the frozen encoder's kept states: float32, float16
    early_stopping: Optional[int] = None  # validations without a better checkpoint.monitor before the end
    export: Optional[str] = None  # weights that are tested and written: last, best; null: best with early_stopping
    average_last: int = 0  # at the end, the mean of this many newest checkpoints; 0: none
    do_testing: bool = True  # test on the test split when training is done
