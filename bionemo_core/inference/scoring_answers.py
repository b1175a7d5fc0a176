"""What a fine-tuned model answers, for sequences in any number and order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.embedding import Embedder, EmbeddingSettings
from bionemo_core.protocols import Tokenizer

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from bionemo_core.data.store.record_store import PreparedStore


class Meaning(Protocol):
    """What a fine-tuned module's `answers` tell."""

    classes: tuple[str, ...]
    mean: float
    scale: float

    @property
    def per_residue(self) -> bool: ...

    @property
    def of_classes(self) -> bool: ...


@dataclass
class Predictor:
    """A fine-tuned model ready to answer."""

    module: pl.LightningModule
    tokenizer: Tokenizer
    settings: EmbeddingSettings

    def __post_init__(self) -> None:
        """Look at what it answers.

        Raises:
            ConfigError: the model was not fine-tuned.
        """
        found = getattr(self.module, "answers", None)
        if found is None:
            raise ConfigError(
                "task=predict: this model has no head that answers. Fine-tune it with task=finetune, or score "
                "mutations with task.variants and task.wild_type."
            )
        if self.settings.on_long == "window":
            raise ConfigError("on_long=window: a head answers for a whole sequence. Use error or truncate.")
        self.meaning: Meaning = found
        self._embedder = Embedder(self.module, self.tokenizer, self.settings)

    def check_lengths(self, store: PreparedStore) -> None:
        """Accept stored sequences by their tokens, before any is computed; one token a letter is an upper bound only.

        Raises:
            DataError: one is too long, and the settings say error.
        """
        rule = self._embedder.long_rule
        if rule.on_long != "error":
            return
        for row in np.flatnonzero(store.lengths > rule.max_residues).tolist():
            count = len(self.tokenizer.encode(store[row]))
            if count > rule.max_residues:
                raise DataError(
                    f"sequence {store.id(row)!r} has {count} tokens, the model takes {rule.max_residues}. "
                    "Cut such sequences with task.on_long=truncate, or leave them out."
                )

    @torch.inference_mode()
    def answers(self, sequences: Sequence[str | bytes], names: Sequence[str] = ()) -> list[NDArray[np.float32]]:
        """Return an array for each sequence, float32 [residues or 1, outputs]: probabilities of classes, or values.

        Raises:
            DataError: a sequence cannot be used.
        """
        network: Any = self.module.network
        self.module.eval()
        pieces = self._embedder.pieces(sequences, names)
        results: list[NDArray[np.float32]] = [np.zeros((0, 0), dtype=np.float32)] * len(pieces)
        for batch, owners in self._embedder.batches(pieces):
            answers = network.predictions(batch.to(self._embedder.device))
            if self.meaning.of_classes:
                answers = answers.softmax(-1)
            else:
                answers = answers * self.meaning.scale + self.meaning.mean
            sizes = [len(pieces[owner].ids) if self.meaning.per_residue else 1 for owner in owners]
            for owner, rows in zip(owners, answers.cpu().split(sizes), strict=True):
                results[owner] = rows.numpy()
        return results

    def header(self) -> list[str]:
        """Return the names of the columns that `row` fills."""
        with_probabilities = self.meaning.of_classes and not self.meaning.per_residue
        return ["prediction", *(f"p_{name}" for name in self.meaning.classes if with_probabilities)]

    def row(self, answer: NDArray[np.float32]) -> list[str]:
        """Format an answer as text: a class with all probabilities, a value, or a letter or value for each residue."""
        classes = self.meaning.classes
        if not self.meaning.of_classes:
            return [" ".join(f"{value:.6g}" for value in answer[:, 0])]
        chosen = [classes[number] for number in answer.argmax(-1)]
        if self.meaning.per_residue:
            return ["".join(chosen)]
        return [chosen[0], *(f"{value:.6f}" for value in answer[0])]
