"""`task=predict`.

No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Predict:
    """Predict with a fine-tuned model, or score mutations with a masked language model."""

    output: str  # a CSV file
    input: Optional[str] = None  # what a fine-tuned model predicts for: FASTA, CSV, SMILES, Parquet and others
    variants: Optional[str] = None  # a CSV of mutations such as A24G or A24G:K30R, for a masked language model
    wild_type: Optional[str] = None  # the sequence that they mutate, or a FASTA file whose first record it is
    variant_column: str = "mutant"  # of task.variants: substitutions such as A24G:L30V
    first_position: int = 1  # the number of the first residue in the variants
    scoring: str = "masked_marginals"  # masked_marginals, wild_type_marginals
    format: Optional[str] = None  # of the input; null: as its extension tells
    sequence_column: Optional[str] = None  # of a table; null: `sequence`, or `smiles`
    id_column: Optional[str] = None  # of a table; null: `id` where it has one
    on_invalid: str = "error"  # a letter that the tokenizer lacks: error, skip, unk
    canonicalize: bool = True  # read texts in their canonical form where there is one, as of SMILES
    on_long: str = "error"  # a sequence longer than the model: error, truncate
    tokens_per_batch: Optional[int] = None  # null: 4,096 on a CPU, 65,536 on a GPU
    adapter: Optional[str] = None  # a folder `adapter` of a LoRA fine-tuning of the model at restore_from_path
    overwrite: bool = False  # replace an output that is there
