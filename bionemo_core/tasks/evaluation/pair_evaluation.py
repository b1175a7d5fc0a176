"""What `task=evaluate` does for a model that was fine-tuned on pairs: a head on the features of each pair."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bionemo_core.data.labelled_records import LabelledRecords
from bionemo_core.finetuning.network import StoredStates
from bionemo_core.finetuning.objective import StoredStatesObjective
from bionemo_core.finetuning.pairs.predictor import PairPredictor
from bionemo_core.finetuning.pairs.second_model import TokenizerPair, open_second_for
from bionemo_core.inference.embedding import EmbeddingSettings
from bionemo_core.inference.scoring_answers import reads_pairs
from bionemo_core.models.load import OpenedModel
from bionemo_core.protocols import Tokenizer
from bionemo_core.tasks.settings import Evaluate
from bionemo_core.tasks.unread_keys import refuse_unread

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry


@dataclass(frozen=True)
class PairEvaluation:
    """A model of pairs, and what reads their sequences."""

    predictor: PairPredictor

    @classmethod
    def of(
        cls, task: Evaluate, opened: OpenedModel, registry: Registry, home: str, tokens: int
    ) -> PairEvaluation | None:
        """Return the evaluation of a model of pairs; None if it reads single sequences.

        Raises:
            ConfigError: a second model is missing, is given without effect or has other weights.
        """
        if not reads_pairs(opened.module):
            refuse_unread(task, ("second_model",), "by a model that reads single sequences")
            return None
        second = open_second_for(opened, task.second_model, registry, home, adapter=task.adapter)
        settings = EmbeddingSettings(on_long="error", unknown="unk", tokens_per_batch=tokens)
        return cls(PairPredictor.of(opened, settings, second))

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the data are read with."""
        first, second = self.predictor.tokenizer, self.predictor.second
        return first if second is None else TokenizerPair(first, second.tokenizer)  # type: ignore[return-value]  # it passes on all

    def fitting(self, records: LabelledRecords, what: str) -> LabelledRecords:
        """Return the pairs that fit the models; `what` is their split, for messages.

        Raises:
            DataError: no pair is short enough.
        """
        first = self.predictor.embedder
        second = self.predictor.second or first
        kept = records.drop_longer(first.long_rule.max_residues, what, first.tokenizer)
        kept = kept.swapped().drop_longer(second.long_rule.max_residues, what, second.tokenizer).swapped()
        return replace(kept, indices=np.arange(len(kept)))

    def use(self, features: torch.Tensor) -> None:
        """Have the head of the model read the features of pairs, [pairs, features], in the place of sequences."""
        module: Any = self.predictor.module
        module.network.stored = StoredStates(features)
        module.objective = StoredStatesObjective(module.objective, np.arange(len(features) + 1))
