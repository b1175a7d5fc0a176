"""`task=embed`.

No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Embed:
    """Compute embeddings of the sequences in a file."""

    input: str  # FASTA, FASTQ, CSV, TSV, SMILES, Parquet and others, plain or compressed
    output: str  # a name that ends in .h5, .parquet or .npz
    outputs: Optional[list[str]] = None  # embeddings, hiddens, logits, log_likelihoods; null: embeddings
    format: Optional[str] = None  # of the input; null: as its extension tells
    sequence_column: Optional[str] = None  # of a table; null: `sequence`, or `smiles`
    id_column: Optional[str] = None  # of a table; null: `id` where it has one
    on_invalid: str = "error"  # a letter that the tokenizer lacks: error, skip, unk
    canonicalize: bool = True  # read texts in their canonical form where there is one, as of SMILES
    on_long: str = "error"  # a sequence longer than the model: error, truncate, window
    window_overlap: Optional[int] = None  # residues; null: half a window
    tokens_per_batch: Optional[int] = None  # null: 4,096 on a CPU, 32,768 on a GPU
    tokens_per_part: Optional[int] = None  # what is computed between two saves; null: 4,194,304 embedded tokens
    adapter: Optional[str] = None  # a folder `adapter` of a LoRA fine-tuning of the model at restore_from_path
    overwrite: bool = False  # replace an output that is there
