"""The settings of every task: a frozen dataclass each, whose fields are the keys `task.NAME`.

No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

from dataclasses import dataclass
from typing import Any, Optional

from bionemo_core.inference.search_settings import SearchSettings


@dataclass(frozen=True)
class Train:
    """Pre-train the model, then test it if asked."""

    do_training: bool = True  # false: only test
    do_testing: bool = False  # test on the test split when training is done


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


@dataclass(frozen=True)
class Finetune:
    """Train a head on a pre-trained model, and the model with it if asked."""

    kind: str  # sequence_regression, sequence_classification, token_classification, token_regression
    encoder: str = "frozen"  # frozen (its states are computed once and kept), full, lora
    head: Optional[str] = None  # null: mlp for sequences, convnet for residues
    head_params: Any = None  # a mapping of the keys of the head: {hidden_layer_size: 256}
    freeze_layers: int = 0  # encoder=full: blocks that stay as they are; negative: all but the last so many
    lora_rank: int = 32  # of the low-rank adapters
    lora_alpha: Optional[float] = None  # null: the rank
    lora_dropout: float = 0.0  # of what goes into an adapter
    lora_targets: Optional[list[str]] = None  # null: qkv, proj, fc1, fc2
    class_weights: Optional[list[float]] = None  # in the order of the sorted classes
    balance_classes: bool = False  # weights by which every class counts the same in training
    standardise: bool = True  # learn values with mean 0 and deviation 1; metrics are in the labels' units
    states_dtype: str = "float32"  # of the frozen encoder's kept states: float32, float16
    early_stopping: Optional[int] = None  # validations without a better checkpoint.monitor before the end
    export: Optional[str] = None  # weights that are tested and written: last, best; null: best with early_stopping
    average_last: int = 0  # at the end, the mean of this many newest checkpoints; 0: none
    do_testing: bool = True  # test on the test split when training is done


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on a split of the data, and draw a report."""

    output: str  # a folder: metrics.json, report.html, and predictions.csv of a fine-tuned model
    split: str = "test"  # train, val, test
    pseudo_perplexity: int = 0  # sequences to compute it on, each residue masked alone; 0: none
    adapter: Optional[str] = None  # a folder `adapter` of a LoRA fine-tuning of the model at restore_from_path
    overwrite: bool = False  # replace an output that is there


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


@dataclass(frozen=True, kw_only=True)
class Optimize:
    """Search the model's latent space, from each text of a file, for texts that score higher."""

    input: str  # SMILES, CSV, TSV, Parquet and others, plain or compressed
    oracle: str  # what to raise; for molecules qed, logp, penalized_logp, tanimoto, molmim_qed_with_similarity
    output: Optional[str] = None  # a folder; null: a new run folder
    limit: Optional[int] = None  # only the first texts of the file
    worst: Optional[int] = None  # of these only so many, those that score lowest
    algorithm: str = SearchSettings.algorithm  # cma-es, or random: perturb the start's latent again and again
    population: int = SearchSettings.population  # candidates of a start in one iteration
    iterations: int = SearchSettings.iterations  # of each start
    sigma: float = SearchSettings.sigma  # standard deviation of the first candidates around the start's latent
    minimum_similarity: float = SearchSettings.minimum_similarity  # less similar to its start is never the best
    scaled_radius: float = SearchSettings.scaled_radius  # standard deviation of random perturbation
    diagonal: bool = SearchSettings.diagonal  # learn the variances of dimensions only: cheaper
    minimize: bool = SearchSettings.minimize  # look for low scores
    baseline: bool = False  # perturb at random too, with as many oracle calls
    num_workers: int = 0  # processes that propose and score while this one decodes
    batch_size: Optional[int] = None  # rows decoded together; null: 256 on a CPU, 8,192 on a GPU
    picture: bool = True  # draw the trajectory and the texts
    format: Optional[str] = None  # of the input; null: as its extension tells
    sequence_column: Optional[str] = None  # of a table; null: `sequence`, or `smiles`
    id_column: Optional[str] = None  # of a table; null: `id` where it has one
    on_invalid: str = "error"  # a token that the tokenizer lacks: error, skip, unk
    on_long: str = "error"  # a text longer than the model: error, skip


@dataclass(frozen=True)
class Prepare:
    """Prepare the data of a model or a tokenizer, and say what became of each record."""

    num_workers: Optional[int] = None  # processes that judge records; null: one a CPU where that takes long, 0: none
    picture: bool = True  # draw the lengths beside each store


@dataclass(frozen=True)
class Convert:
    """Write the model at `restore_from_path` in another form."""

    output: str  # a folder or file that is not there yet
    to: Optional[str] = None  # artefact, nemo, huggingface; null: nemo for a name that ends in .nemo, else artefact
    dtype: str = "float32"  # of an artefact's tensors: float32, bfloat16, float16
    max_shard_mib: int = 5120  # tensors of more than this lie in several files
