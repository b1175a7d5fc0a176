"""Protocols that the core expects of components. No base class is needed, and torch is not imported.

| module | holds |
|---|---|
| `about_texts` | tokenizers, canonical forms, scores and judges of texts |
| `about_records` | readers, datasets and their splits, orders, augmentations, objectives and their examples |
| `about_training` | models, what trains them, losses, loggers, and what factories are told |

All are imported from here.
"""

from bionemo_core.protocols.about_records import (
    AnyObjective,
    Augmentation,
    DataSplits,
    Example,
    Objective,
    Order,
    Reader,
    RecordDataset,
    RecordObjective,
    Seq2SeqExample,
    Seq2SeqObjective,
)
from bionemo_core.protocols.about_texts import CanonicalForm, Family, InputForm, Oracle, TextJudge, Tokenizer
from bionemo_core.protocols.about_training import (
    RUNTIME_ARGUMENTS,
    BuildContext,
    Callback,
    Loss,
    Model,
    OptimizerSettings,
    RunContext,
    Schedule,
    TensorType,
)

__all__ = [
    "RUNTIME_ARGUMENTS",
    "AnyObjective",
    "Augmentation",
    "BuildContext",
    "Callback",
    "CanonicalForm",
    "DataSplits",
    "Example",
    "Family",
    "InputForm",
    "Loss",
    "Model",
    "Objective",
    "OptimizerSettings",
    "Oracle",
    "Order",
    "Reader",
    "RecordDataset",
    "RecordObjective",
    "RunContext",
    "Schedule",
    "Seq2SeqExample",
    "Seq2SeqObjective",
    "TensorType",
    "TextJudge",
    "Tokenizer",
]
