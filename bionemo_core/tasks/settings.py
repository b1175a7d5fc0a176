"""The settings of the tasks: one frozen dataclass per task, whose fields are the keys `task.NAME`.

No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Optional

from bionemo_core.inference.search_settings import Population, SearchSettings
from bionemo_core.ranges import Count, Dropout, Integer, Natural, NotNegative, Positive, Range, Share

Port = Annotated[int, Range(least=0, most=65535)]


@dataclass(frozen=True)
class Train:
    """Pre-train the model, then optionally test it."""

    do_training: bool = True  # false: skip the training and only test
    do_testing: bool = False  # test on the test split after the training


@dataclass(frozen=True)
class Embed:
    """Compute embeddings of the sequences in a file."""

    input: str  # a FASTA, FASTQ, CSV, TSV, SMILES or Parquet file or another format, plain or compressed; - for a pipe
    output: str  # the output file; its name ends in .h5, .parquet or .npz
    outputs: Optional[list[str]] = None  # embeddings (default), hiddens, logits, log_likelihoods, contacts, attentions
    layers: Optional[list[Integer]] = None  # layers of embeddings and hiddens: 0 is the input, -1 the last; null: -1
    pooling: str = "mean"  # how hidden states become an embedding: mean, max or cls, the first token's state
    heatmaps: bool = False  # draw the contacts of each protein as PNG, in the folder OUTPUT.contacts
    format: Optional[str] = None  # format of the input; null: by its extension
    sequence_column: Optional[str] = None  # column of a table with the sequences; null: sequence, smiles and others
    id_column: Optional[str] = None  # column of a table with the ids; null: `id` if there is one
    header_lines: Count = 1  # lines at the top of a CSV or TSV file; the last has the names of the columns
    separator: Optional[str] = None  # character between the columns; null: a comma in CSV, a tab in TSV
    on_invalid: str = "error"  # action for a letter outside the alphabet: error, skip the record, or unk to keep it
    canonicalize: bool = True  # convert texts to their canonical form, if they have one, as SMILES do
    on_long: str = "error"  # action for a sequence longer than the model: error, truncate or window
    window_overlap: Optional[Natural] = None  # overlap of neighbouring windows in residues; null: half a window
    text_form: Optional[str] = None  # how the model gets a text: tokenizer (its terminal tokens and letters) or plain
    terminal_rows: bool = False  # also write hidden states of terminal tokens, such as <cls> and </s>
    tokens_per_batch: Optional[Count] = None  # tokens in one forward pass; null: 4,096 on a CPU, 32,768 on a GPU
    tokens_per_part: Optional[Count] = None  # save after this many tokens; null: 4,194,304, of residues 131,072
    adapter: Optional[str] = None  # adapter of the model at restore_from_path: RUN/adapter, or a folder of peft
    overwrite: bool = False  # replace an existing output


@dataclass(frozen=True)
class Finetune:
    """Train a head on a pre-trained model, and optionally the model itself."""

    kind: str  # sequence_{regression,classification,multilabel}, token_{classification,regression} or pair_matching
    encoder: str = "frozen"  # train only the head (frozen), all weights (full) or low-rank adapters (lora)
    head: Optional[str] = None  # the head; null: mlp for sequences, convnet for residues
    head_params: Any = None  # the head's keys, for example {hidden_layer_size: 256}
    loss: Optional[str] = None  # ranking: put sequences in order by pairs (Bradley-Terry); null: the loss of the kind
    loss_params: Any = None  # the keys of a loss of a plugin, for example {delta: 0.5}
    second_model: Optional[str] = None  # data of pairs: the model of the second sequences; null: one model reads both
    projection_size: Count = 128  # kind=pair_matching: width of the space in which both sequences of a pair are points
    freeze_layers: Integer = 0  # encoder=full: freeze the first N layers and the embeddings; -N: all but the last N
    lora_rank: Count = 32  # rank of the low-rank adapters
    lora_alpha: Optional[Positive] = None  # adapters are scaled by alpha / rank; null: the rank
    lora_dropout: Dropout = 0.0  # dropout of the input of an adapter
    lora_targets: Optional[list[str]] = None  # linear layers with adapters; null: qkv, proj, fc1, fc2
    lora_dora: bool = False  # DoRA: train the length of each row of a weight separately from its direction
    class_weights: Optional[list[NotNegative]] = None  # weights of the classes, in sorted order of their names
    balance_classes: bool = False  # weight the classes so that each counts the same in training
    standardise: bool = True  # train on values scaled to mean 0 and deviation 1; metrics keep the units of the labels
    on_bad_label: str = "error"  # for a missing or unreadable label: error, skip, or class (NA, - and such are classes)
    text_form: str = "tokenizer"  # how the encoder gets a text: tokenizer (its terminal tokens and letters) or plain
    on_long: str = "skip"  # for a sequence longer than the model: skip (as v1), error, truncate; per residue: window
    scale_states: bool = True  # encoder=frozen: standardise the states; those of whole sequences, decorrelate too
    linear_start: bool = True  # encoder=frozen: solve a linear head first; the trained head learns a correction to it
    baseline: bool = True  # also solve a linear head on frozen states, and print its metrics beside those of the run
    states_dtype: str = "float32"  # precision of the cached states of a frozen encoder: float32, float16
    early_stopping: Optional[Count] = None  # validations without a better checkpoint.monitor before stopping
    export: Optional[str] = None  # weights to test and write: last or best; null: best with early_stopping, else last
    average_last: Natural = 0  # average this many newest checkpoints at the end; 0: none
    do_testing: bool = True  # test on the test split after the training


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a model on a split of the data and write a report."""

    output: str  # output folder for metrics.json, report.html and, of labelled data or pairs, predictions.csv
    split: str = "test"  # train, val, test
    on_bad_label: str = "error"  # fine-tuned model: for a label that is missing, unreadable or new: error or skip
    pseudo_perplexity: Natural = 0  # sequences for the pseudo-perplexity, which masks each residue alone; 0: none
    beam_size: Natural = 5  # data of pairs: answers that a beam search writes for each source; 0: none
    beam_alpha: NotNegative = 0.0  # data of pairs: length penalty of the answers; 0: by probability alone
    second_model: Optional[str] = None  # model of labelled pairs: task.second_model of a training with frozen encoders
    adapter: Optional[str] = None  # adapter of the model at restore_from_path: RUN/adapter, or a folder of peft
    overwrite: bool = False  # replace an existing output


@dataclass(frozen=True)
class Predict:
    """Predict with a fine-tuned model, write answers with an encoder-decoder, or score with a masked language model."""

    output: str  # the output, a CSV file
    input: Optional[str] = None  # sequences to predict for, to answer, or for task.scoring, in a format of task=embed
    variants: Optional[str] = None  # a CSV file of variants such as A24G:K30R or p.Lys24del, for a masked model
    scan: bool = False  # score all 20 residues at every position of task.wild_type: a table, and a heat map beside it
    wild_type: Optional[str] = None  # the wild-type sequence, a FASTA file that begins with it, or ProteinGym's table
    variant_column: str = "mutant"  # column of the variants (A24G:L30V); if it is missing, mutated_sequence is read
    first_position: Integer = 1  # number of the first residue in the numbering of the variants
    scoring: Optional[str] = None  # the strategy, such as masked_marginals; null: one that suits all the variants
    measured: Optional[str] = None  # column of measured values for Spearman; null: DMS_score if there is one
    target_column: Optional[str] = None  # answers: column with the right ones; they are written beside, and counted
    beam_size: Count = 5  # encoder-decoder: answers that a beam search writes for each text
    beam_alpha: NotNegative = 0.0  # encoder-decoder: length penalty of the answers; 0: by probability alone
    format: Optional[str] = None  # format of the input; null: by its extension
    sequence_column: Optional[str] = None  # column of a table with the sequences; null: sequence, smiles and others
    second_model: Optional[str] = None  # model of pairs: task.second_model of a training with frozen encoders
    second_column: Optional[str] = None  # model of pairs: column with the second sequences; null: second
    id_column: Optional[str] = None  # column of a table with the ids; null: `id` if there is one
    header_lines: Count = 1  # lines at the top of a CSV or TSV file; the last has the names of the columns
    separator: Optional[str] = None  # character between the columns; null: a comma in CSV, a tab in TSV
    on_invalid: str = "error"  # action for a letter outside the alphabet: error, skip (with the reason), or unk
    canonicalize: bool = True  # convert texts to their canonical form, if they have one, as SMILES do
    on_long: str = "error"  # action for a sequence longer than the model: error, truncate, or for scores window
    tokens_per_batch: Optional[Count] = None  # tokens in one forward pass; null: 4,096 on a CPU, 65,536 on a GPU
    adapter: Optional[str] = None  # adapter of the model at restore_from_path: RUN/adapter, or a folder of peft
    overwrite: bool = False  # replace an existing output


@dataclass(frozen=True)
class Sample:
    """Sample texts near those of a file, or from the model's prior."""

    input: Optional[str] = None  # texts to sample near, in any format that embed reads; null: sample from the prior
    num_molecules: Optional[Count] = None  # number of samples from the prior
    output: Optional[str] = None  # output folder; null: a new run folder
    limit: Optional[Count] = None  # use only this many texts, from the start of the file; null: all
    num_samples: Count = 1  # number of samples near each text
    sampling_method: str = "greedy-perturbate"  # also topkp-perturbate, beam-search-perturbate[-sample] and others
    scaled_radius: NotNegative = 1.0  # standard deviation of the noise on the hidden states
    top_k: Optional[Natural] = None  # topkp-perturbate: draw from this many tokens; null: the method's default
    top_p: Optional[Share] = None  # probability mass of the tokens to draw from; null: the method's default
    temperature: Optional[Positive] = None  # divide the logits by this value; null: the method's default
    beam_size: Optional[Count] = None  # beams of each text; null: the method's default
    keep_only_best_tokens: Optional[bool] = None  # keep only the best beam of each text; null: the method's default
    beam_alpha: Optional[NotNegative] = None  # length penalty of beams; null: the method's default
    max_length: Optional[Count] = None  # maximum number of decoded tokens; null: the model's
    known: Optional[str] = None  # a file of known texts, such as the training data; novelty is measured against it
    batch_size: Optional[Count] = None  # rows decoded together; null: 256 on a CPU, 8,192 on a GPU
    picture: Natural = 24  # number of distinct texts in the picture, besides their inputs; 0: no picture
    format: Optional[str] = None  # format of the files; null: by their extensions
    sequence_column: Optional[str] = None  # column of a table with the sequences; null: sequence, smiles and others
    id_column: Optional[str] = None  # column of a table with the ids; null: `id` if there is one
    header_lines: Count = 1  # lines at the top of a CSV or TSV file; the last has the names of the columns
    separator: Optional[str] = None  # character between the columns; null: a comma in CSV, a tab in TSV
    on_invalid: str = "error"  # action for a token outside the vocabulary: error, skip the record, or unk to keep it
    canonicalize: bool = True  # convert texts to their canonical form, if they have one, as SMILES do
    on_long: str = "error"  # action for a text longer than the model: error or skip


@dataclass(frozen=True, kw_only=True)
class Optimize:
    """Search the latent space of a model for texts with higher scores, starting from each text of a file."""

    input: str  # start texts: a SMILES, CSV, TSV or Parquet file or another format, plain or compressed
    oracle: str  # score to maximise; for molecules: qed, logp, penalized_logp, tanimoto, molmim_qed_with_similarity
    oracle_params: Any = None  # the keys of an oracle of a plugin, for example {length: 20}
    output: Optional[str] = None  # output folder; null: a new run folder
    limit: Optional[Count] = None  # use only this many texts, from the start of the file; null: all
    worst: Optional[Count] = None  # of these texts, use only this many with the worst scores; null: all
    algorithm: str = SearchSettings.algorithm  # cma-es, or random: perturb the latent of the start repeatedly
    population: Population = SearchSettings.population  # candidates per start in one iteration
    iterations: Count = SearchSettings.iterations  # number of iterations for each start
    sigma: Positive = SearchSettings.sigma  # standard deviation of the first candidates around the latent of the start
    minimum_similarity: Share = SearchSettings.minimum_similarity  # candidates less similar to their start never win
    scaled_radius: Positive = SearchSettings.scaled_radius  # standard deviation of the random perturbation
    diagonal: bool = SearchSettings.diagonal  # adapt only the variances of the dimensions, which is cheaper
    minimize: bool = SearchSettings.minimize  # minimise the score instead
    baseline: bool = False  # also search by random perturbation, with as many oracle calls
    num_workers: Natural = 0  # processes that propose and score candidates while this one decodes
    batch_size: Optional[Count] = None  # rows decoded together; null: 256 on a CPU, 8,192 on a GPU
    picture: bool = True  # draw the scores over the search and the best texts
    format: Optional[str] = None  # format of the input; null: by its extension
    sequence_column: Optional[str] = None  # column of a table with the sequences; null: sequence, smiles and others
    id_column: Optional[str] = None  # column of a table with the ids; null: `id` if there is one
    header_lines: Count = 1  # lines at the top of a CSV or TSV file; the last has the names of the columns
    separator: Optional[str] = None  # character between the columns; null: a comma in CSV, a tab in TSV
    on_invalid: str = "error"  # action for a token outside the vocabulary: error, skip the record, or unk to keep it
    on_long: str = "error"  # action for a text longer than the model: error or skip


@dataclass(frozen=True)
class Prepare:
    """Prepare the data of a model or a tokenizer, and report how many records were used and rejected."""

    num_workers: Optional[Natural] = None  # processes that filter; null: one per CPU if filtering is slow, 0: none
    picture: bool = True  # draw the length distribution of each store


@dataclass(frozen=True)
class Convert:
    """Convert the model at `restore_from_path` to another format."""

    output: str  # the output, a folder or file that does not exist yet
    to: Optional[str] = None  # artefact, nemo, huggingface, peft, onnx, torch_export, triton; null: artefact or .nemo
    adapter: Optional[str] = None  # to=peft: RUN/adapter, which is written; else a folder of peft, which is merged
    part: Optional[str] = None  # encoder: that of a fine-tuned model alone, adapters added; null: the whole
    dtype: str = "float32"  # precision of the tensors of an artefact: float32, bfloat16, float16
    max_shard_mib: Count = 5120  # split the tensors into files of at most this size in MiB
    license: Optional[str] = None  # to=huggingface: the licence in the model card, such as apache-2.0; null: none
    push_to: Optional[str] = None  # to=huggingface: also send the folder to the hub, as ORG/NAME; the token is HF_TOKEN
    push_private: bool = True  # only the owners of task.push_to may see it


@dataclass(frozen=True)
class Serve:
    """Answer requests over HTTP with the model at `restore_from_path`."""

    host: str = "127.0.0.1"  # address to listen on; one that other machines reach needs BIONEMO_SERVE_TOKEN
    port: Port = 8080  # port to listen on; 0: a free one, which is printed
    max_sequences: Count = 256  # sequences, texts or variants in one request
    max_length: Count = 10_000  # letters of one sequence or text
    max_rows: Count = 8_192  # residues in one request for values of each residue, such as hiddens, times layers
    max_samples: Count = 1_024  # texts or beams that one request decodes
    max_body_kib: Count = 1_024  # size of the body of one request in KiB
    max_waiting: Count = 256  # requests that are computed or wait; further ones are answered with status 429
    timeout_s: Positive = 60.0  # seconds until a request is answered; then it is dropped, with status 504
    tokens_per_batch: Optional[Count] = None  # tokens in one forward pass; null: as in task=embed and task=predict
    batch_size: Optional[Count] = None  # rows decoded together; null: 256 on a CPU, 8,192 on a GPU
    second_model: Optional[str] = None  # model of pairs: task.second_model of a training with frozen encoders
    adapter: Optional[str] = None  # adapter of the model at restore_from_path: RUN/adapter, or a folder of peft
