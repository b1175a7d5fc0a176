"""`task=sample`.

No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Sample:
    """Write texts near those of a file, or texts from the model's prior."""

    input: Optional[str] = None  # SMILES, CSV, TSV, Parquet and others, plain or compressed; null: from the prior
    num_molecules: Optional[int] = None  # how many to draw from the prior
    output: Optional[str] = None  # a folder; null: a new run folder
    limit: Optional[int] = None  # only the first texts of the file
    num_samples: int = 1  # of each text
    sampling_method: str = "greedy-perturbate"  # or topkp-perturbate, beam-search-perturbate[-sample], ...
    scaled_radius: float = 1.0  # standard deviation of the noise on the hidden states
    top_k: Optional[int] = None  # of topkp-perturbate; null: the method's own, here and below
    top_p: Optional[float] = None  # the share of probability to draw from; null: the method's default
    temperature: Optional[float] = None  # logits are divided by it; null: the method's default
    beam_size: Optional[int] = None  # null: the method's default
    keep_only_best_tokens: Optional[bool] = None  # only the best beam of each; null: the method's default
    beam_alpha: Optional[float] = None  # length penalty of beams; null: the method's default
    max_length: Optional[int] = None  # tokens decoded at most; null: the model's own
    known: Optional[str] = None  # a file of texts known before, the training data say; novelty is measured against it
    batch_size: Optional[int] = None  # rows decoded together; null: 256 on a CPU, 8,192 on a GPU
    picture: int = 24  # how many distinct texts to draw; 0: none
    format: Optional[str] = None  # of the files; null: as their extensions tell
    sequence_column: Optional[str] = None  # of a table; null: `sequence`, or `smiles`
    id_column: Optional[str] = None  # of a table; null: `id` where it has one
    on_invalid: str = "error"  # a token that the tokenizer lacks: error, skip, unk
    canonicalize: bool = True  # read texts in their canonical form where there is one, as of SMILES
    on_long: str = "error"  # a text longer than the model: error, skip
