"""Labelled pairs in the form of a batch: both sequences of each pair, for encoders that are trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.batches.rows import RowShape, Seq2SeqArrays, collate_pairs
from bionemo_core.data.labelled_records import LabelledRecord
from bionemo_core.data.model_input import ModelInput
from bionemo_core.errors import DataError
from bionemo_core.finetuning.objective import LabelObjective
from bionemo_core.protocols import Example, InputForm, Seq2SeqExample, Tokenizer

if TYPE_CHECKING:
    from bionemo_core.data.batches.rng import RecordRng
    from bionemo_core.finetuning.label_spec import LabelSpec


class PairExample(NamedTuple):
    """The tokens of both sequences of a pair; the other arrays are those of the second one, see `Example`."""

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    labels: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]
    sequence_labels: NDArray[np.float32] | None = None


class PairLabelObjective(LabelObjective):
    """The objective of labelled pairs: `source` rows have the first sequences, `target` rows the second ones.

    The loss is on the first token of the second sequence.

    Args:
        tokenizer: reads the first sequences.
        label_spec: the label spec.
        form: the form of their input.
        seq_length: the maximum length of a first sequence in tokens.
        second: the form of the second sequences.
        second_tokens: the maximum length of a second sequence in tokens, without terminal tokens.
        target_length: the tokens of a row of second sequences.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        label_spec: LabelSpec,
        *,
        form: InputForm,
        seq_length: int,
        second: ModelInput,
        second_tokens: int,
        target_length: int,
    ) -> None:
        super().__init__(tokenizer, label_spec, form=form, seq_length=seq_length)
        self.second = second
        self.second_tokens = second_tokens
        self.target_length = target_length

    def limit_rows(self, seq_length: int) -> None:
        """Limit the rows, and so the sequences, of both sides to `seq_length` tokens."""
        self.max_tokens = min(self.max_tokens, seq_length - self.input.num_terminals)
        self.second_tokens = min(self.second_tokens, seq_length - self.second.num_terminals)
        self.target_length = min(self.target_length, seq_length)

    def laid_lengths(self, lengths: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return upper bounds of the tokens of both sequences of pairs, shape [records] each.

        Args:
            lengths: the letters of both sequences, [records, 2]; without packing any number for each, [records].
        """
        given = np.asarray(lengths, dtype=np.int64)
        first, second = (given[:, 0], given[:, 1]) if given.ndim == 2 else (given, given)
        return (
            np.minimum(first, self.max_tokens) + self.input.num_terminals,
            np.minimum(second, self.second_tokens) + self.second.num_terminals,
        )

    def record_example(self, record: LabelledRecord, draw: RecordRng | None = None) -> PairExample:  # type: ignore[override]  # both sequences
        """Make the example of one pair.

        Raises:
            DataError: the label is bad, or a sequence is too long.
        """
        first, second = self.input.encode(record.sequence), self.second.encode(record.second)
        for ids, most in ((first, self.max_tokens), (second, self.second_tokens)):
            if len(ids) > most:
                raise DataError(f"record {record.display_name}: has {len(ids)} tokens, too many for the model.")
        example = self.make_example(self.second.add_terminals(second), record, len(second), first=0)
        return PairExample(self.input.add_terminals(first), *example)

    def collate(self, examples: Sequence[PairExample], num_packs: int, shape: RowShape) -> Seq2SeqArrays:
        """Collate the rows of one micro batch; see `rows.collate_pairs`."""
        rows = collate_pairs([Seq2SeqExample(*example[:4]) for example in examples], num_packs, shape)
        return rows._replace(target=rows.target.with_sequence_labels([Example(*example[1:]) for example in examples]))
