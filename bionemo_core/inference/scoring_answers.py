"""Predictions of a fine-tuned model, for any number of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bionemo_core.data.store.text_filter import clean_texts
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.embedding import Embedder, EmbeddingSettings
from bionemo_core.inference.embedding.embedding_results import check_finite
from bionemo_core.nn.missing_weights import require_weights
from bionemo_core.parallel.weights import network_of
from bionemo_core.protocols import Tokenizer

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from bionemo_core.data.store.record_store import PreparedStore


class AnswerInfo(Protocol):
    """The attributes of a fine-tuned module's `answers` that predictions need."""

    classes: tuple[str, ...]
    targets: tuple[str, ...]

    @property
    def per_residue(self) -> bool: ...

    @property
    def of_classes(self) -> bool: ...

    @property
    def multilabel(self) -> bool: ...

    def in_units(self, outputs: Any) -> Any: ...


def reads_pairs(module: pl.LightningModule) -> bool:
    """Return whether a model was fine-tuned on pairs of sequences."""
    return bool(getattr(network_of(module), "pairs", False))


@dataclass
class Predictor:
    """A fine-tuned model that predicts."""

    module: pl.LightningModule
    tokenizer: Tokenizer
    settings: EmbeddingSettings
    of_pairs: ClassVar[bool] = False
    """Whether it predicts for pairs of sequences."""

    def __post_init__(self) -> None:
        """Check that the model has a prediction head.

        Raises:
            ArtefactError: the model was loaded from a source without a tensor of its head.
            ConfigError: the model was not fine-tuned, or on pairs of sequences, or long sequences are to be cut into
                windows.
        """
        info = getattr(self.module, "answers", None)
        if info is None:
            raise ConfigError(
                "task=predict: this model has no prediction head. Fine-tune it with task=finetune, or score "
                "mutations with task.variants and task.wild_type."
            )
        if reads_pairs(self.module) and not self.of_pairs:
            raise ConfigError(
                "task=predict: this model was fine-tuned on pairs of sequences. It reads a table with the second in "
                "task.second_column; other tasks do not predict for pairs."
            )
        if self.settings.on_long == "window":
            raise ConfigError(
                "task.on_long=window: a prediction head needs the whole sequence. Use task.on_long=truncate or error."
            )
        require_weights(network_of(self.module), "prediction")
        self.info: AnswerInfo = info
        self.embedder = Embedder(self.module, self.tokenizer, self.settings)

    @property
    def embedders(self) -> tuple[Embedder, ...]:
        """What reads the sequences."""
        return (self.embedder,)

    def clean(self, sequences: Sequence[Any], **options: Any) -> list[Any]:
        """Return sequences from Python as the task reads them from a file; `options` are those of `clean_texts`.

        Raises:
            DataError: a sequence is empty or invalid, or is a pair.
        """
        given: Any = sequences if isinstance(sequences, str | bytes) else list(sequences)  # a generator is read once
        for number, text in enumerate(given, start=1):
            if isinstance(text, list | tuple):
                raise DataError(f"sequence {number}: expected one text, because the model reads single sequences.")
        return clean_texts(self.tokenizer, given, **options)

    def is_long(self, sequence: str | bytes) -> bool:
        """Return whether a sequence has more tokens than the model takes."""
        return self.embedder.long_rule.is_long(sequence, self.tokenizer)

    def check_lengths(self, store: PreparedStore, on_long: str) -> None:
        """Check the number of tokens of all stored sequences, before any is computed.

        Only sequences with more letters than the limit are tokenized: a sequence has at most one token per letter.

        Raises:
            DataError: a sequence is too long, with `on_long=error`.
        """
        rule = self.embedder.long_rule
        if on_long != "error":
            return
        for row in np.flatnonzero(store.lengths > rule.max_residues).tolist():
            count = len(self.tokenizer.encode(store[row]))
            if count > rule.max_residues:
                raise DataError(
                    f"sequence {store.id(row)!r} has {count} tokens, but the model takes {rule.max_residues}. "
                    "Cut such sequences with task.on_long=truncate, or leave them out."
                )

    @torch.inference_mode()
    def predict(self, sequences: Sequence[str | bytes], names: Sequence[str] = ()) -> list[NDArray[np.float32]]:
        """Return an array per sequence, float32 [residues, outputs] or [1, outputs]: class probabilities, or values.

        Several labels of a sequence are the outputs of its only row: values, or probabilities of yes.

        Raises:
            DataError: a sequence is empty, too long, or has a letter that the tokenizer does not know.
        """
        network: Any = self.module.network
        self.module.eval()
        parts = self.embedder.make_parts(sequences, names)
        results: list[NDArray[np.float32]] = [np.zeros((0, 0), dtype=np.float32)] * len(parts)
        for batch, owners in self.embedder.batches(parts):
            answers = self.info.in_units(network.predictions(batch.to(self.embedder.device)))
            sizes = [len(parts[owner].ids) if self.info.per_residue else 1 for owner in owners]
            for owner, rows in zip(owners, answers.cpu().split(sizes), strict=True):
                results[owner] = rows.numpy()
                check_finite(results[owner], "prediction: values")
        return results

    def header(self) -> list[str]:
        """Return the names of the columns that `row` fills."""
        if self.info.targets:
            predictions = [f"prediction_{name}" for name in self.info.targets]
            return predictions + [f"p_{name}" for name in self.info.targets if self.info.multilabel]
        with_probabilities = self.info.of_classes and not self.info.per_residue
        return ["prediction", *(f"p_{name}" for name in self.info.classes if with_probabilities)]

    def row(self, answer: NDArray[np.float32]) -> list[str]:
        """Return a prediction as text.

        For a sequence, this is a class and the probabilities of all classes, or a value; for residues, a letter or a
        value for each. Several labels have a value each, or 1 for yes and 0 for no, followed by the probabilities.
        """
        if self.info.targets and not self.info.multilabel:
            return [f"{value:.6g}" for value in answer[0]]
        if self.info.targets:
            return [*(str(int(value > 0.5)) for value in answer[0]), *(f"{value:.6f}" for value in answer[0])]
        classes = self.info.classes
        if not self.info.of_classes:
            return [" ".join(f"{value:.6g}" for value in answer[:, 0])]
        chosen = [classes[number] for number in answer.argmax(-1)]
        if self.info.per_residue:
            return ["".join(chosen)]
        return [chosen[0], *(f"{value:.6f}" for value in answer[0])]
