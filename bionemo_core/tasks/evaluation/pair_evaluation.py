"""What `task=evaluate` does for a model that was fine-tuned on pairs: a head on the features of each pair."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.labelled_records import LabelledRecords
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.network import StoredStates
from bionemo_core.finetuning.objective import StoredStatesObjective
from bionemo_core.finetuning.pairs.predictor import PairPredictor
from bionemo_core.finetuning.pairs.second_model import TokenizerPair, open_second_for
from bionemo_core.inference.embedding import EmbeddingSettings
from bionemo_core.inference.scoring_answers import reads_pairs
from bionemo_core.models.load import OpenedModel
from bionemo_core.parallel.ranks import Ranks
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
        cls, task: Evaluate, opened: OpenedModel, registry: Registry, home: str, ranks: Ranks, tokens: int
    ) -> PairEvaluation | None:
        """Return the evaluation of a model of pairs; None if it reads single sequences.

        Raises:
            ConfigError: a second model is missing, is given without effect or has other weights, or there are several
                devices.
        """
        if not reads_pairs(opened.module):
            refuse_unread(task, ("second_model",), "by a model that reads single sequences")
            return None
        if ranks.size > 1:
            raise ConfigError("task=evaluate: pairs of sequences are evaluated on one device. Set trainer.devices=1.")
        second = open_second_for(opened, task.second_model, registry, home, adapter=task.adapter)
        settings = EmbeddingSettings(on_long="error", unknown="unk", tokens_per_batch=tokens)
        return cls(PairPredictor.of(opened, settings, second))

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the data are read with."""
        first, second = self.predictor.tokenizer, self.predictor.second
        return first if second is None else TokenizerPair(first, second.tokenizer)  # type: ignore[return-value]  # it passes on all

    def use(self, records: LabelledRecords, what: str) -> tuple[LabelledRecords, list[NDArray[np.float32]]]:
        """Have the head of the model read the features of pairs; return those that fit the models, and predictions.

        Args:
            records: the pairs.
            what: their split, for messages.

        Raises:
            DataError: no pair is short enough.
        """
        first = self.predictor.embedder
        second = self.predictor.second or first
        kept = records.drop_longer(first.long_rule.max_residues, what, first.tokenizer)
        kept = kept.swapped().drop_longer(second.long_rule.max_residues, what, second.tokenizer).swapped()
        kept = replace(kept, indices=np.arange(len(kept)))
        features = self.predictor.features(list(zip(kept.sequences, kept.seconds, strict=True)))
        module: Any = self.predictor.module
        predictions = self.predictor.outputs_of(features)
        module.network.stored = StoredStates(features)
        module.objective = StoredStatesObjective(module.objective, np.arange(len(kept) + 1))
        return kept, predictions
