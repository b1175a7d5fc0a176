"""Batches for tests, laid by the same code that lays those of a run."""

from collections.abc import Sequence

import numpy as np

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.protocols import Example, Tokenizer


def example(tokenizer: Tokenizer, sequence: str, masked: Sequence[int] = ()) -> Example:
    """`sequence` between BOS and EOS, with `<mask>` and a label at these positions."""
    ids = np.array([tokenizer.bos_id, *tokenizer.encode(sequence), tokenizer.eos_id], dtype=np.int32)
    tokens, chosen = ids.copy(), np.zeros(len(ids), dtype=bool)
    tokens[list(masked)] = tokenizer.mask_id
    chosen[list(masked)] = True
    return Example(tokens, ids, chosen)


def batch(examples: Sequence[Example], tokenizer: Tokenizer, *, packed: bool, seq_length: int = 128) -> TokenBatch:
    """All examples in one packed row, or padded to the longest."""
    shape = RowShape(seq_length, len(examples), tokenizer.pad_id, packing=packed)
    return TokenBatch.of(collate(examples, len(examples), shape))
