"""The core's own components, offered through the same hooks as a plugin's, and the registry of this process."""

import sys
from collections.abc import Iterator
from functools import lru_cache

from bionemo_core.config.choice_params import FINETUNED
from bionemo_core.config.model_defaults import problem_with_defaults
from bionemo_core.config.task_spec import OF_MACHINE, OF_ROWS, OF_TRAINING, TaskSpec
from bionemo_core.data.sources import csv as csv_files
from bionemo_core.data.sources import fasta, records, sample, uniref50, uniref90
from bionemo_core.data.sources.augmented import augmented
from bionemo_core.data.sources.blend import blend
from bionemo_core.data.sources.hub_datasets import huggingface
from bionemo_core.data.sources.labelled import flip_fasta, labelled_csv, labelled_pairs
from bionemo_core.data.sources.pairs import pairs
from bionemo_core.finetuning.downstream import downstream
from bionemo_core.finetuning.heads import ConvNet, Linear, Mlp
from bionemo_core.finetuning.losses import Ranking
from bionemo_core.finetuning.model import finetuned
from bionemo_core.finetuning.pairs.contrastive import Contrastive
from bionemo_core.plugins import Component, Registry, configure, hookimpl
from bionemo_core.reporting.loggers import csv, mlflow, tensorboard, wandb
from bionemo_core.tasks import settings
from bionemo_core.training.optim import AdamW
from bionemo_core.training.schedules import (
    Constant,
    Cosine,
    InverseSquareRoot,
    Noam,
    WarmupAnnealHold,
    WarmupAnnealing,
)

FINETUNE_DEFAULTS: dict[str, str | dict[str, object]] = {
    # As in v1's downstream configurations: Adam at 5e-4, WarmupAnnealing; a row of the batch is one sequence.
    "optim": {"base": "adamw", "lr": 5e-4},
    "scheduler": {"base": "warmup_annealing", "warmup_steps": 10, "min_lr": 1e-5},
    "trainer": {
        "max_steps": 1000,
        "val_check_interval": 100,
        "limit_val_batches": 1_000_000,
        "limit_test_batches": 1_000_000,
    },
    "batch": {"packing": False, "micro_batch_size": 32},
    "checkpoint": {"save_top_k": 1},
}


@lru_cache(maxsize=1)
def load_registry() -> Registry:
    """Return the registry of the core and the installed plugins; it is loaded at the first call.

    The workers of a sweep are separate processes; each loads its own registry, and none is sent to them.
    """
    return Registry.load(sys.modules[__name__], check_defaults=problem_with_defaults)


@hookimpl
def bionemo_datasets() -> Iterator[Component]:
    """Yield data sources for proteins, which several plugins share."""
    yield Component("sample", configure(sample), "512 UniProt proteins that ship with the core")
    yield Component("fasta", fasta, "FASTA files, plain or compressed")
    yield Component("csv", csv_files, "a CSV table, or CSV shards such as train/x000.csv")
    yield Component("records", records, "files of any supported format: FASTQ, PDB, mmCIF, GenBank, TSV, Parquet ...")
    yield Component("uniref50", uniref50, "UniRef50 from UniProt, shuffled and split as in v1")
    yield Component("uniref90", uniref90, "UniRef50 clusters; each pass draws a random UniRef90 member")
    yield Component("blend", configure(blend), "a weighted mix of several sources")
    yield Component("huggingface", configure(huggingface), "a dataset of Hugging Face, which another source reads")
    yield Component("augmented", configure(augmented), "another source, with random changes of its training records")
    yield Component(
        "pairs",
        configure(pairs, fixed=("split_headers",)),
        "tables of sources and targets, or of reactions, for encoder-decoders",
    )
    yield Component("labelled_csv", configure(labelled_csv), "CSV tables of sequences with labels, for fine-tuning")
    yield Component("labelled_pairs", configure(labelled_pairs), "a table of pairs of sequences, for fine-tuning")
    yield Component("flip_fasta", configure(flip_fasta), "the FLIP benchmark's FASTA files, for fine-tuning")


@hookimpl
def bionemo_models() -> Iterator[Component]:
    """Yield the model that fine-tuning makes of a pre-trained one."""
    yield Component(
        FINETUNED,
        configure(finetuned),
        "an encoder with a head, made by task=finetune",
        capabilities=frozenset({"packing", "exact_resume"}),
    )


@hookimpl
def bionemo_callbacks() -> Iterator[Component]:
    """Yield callbacks that run during training."""
    yield Component(
        "downstream", configure(downstream), "at every validation, train and score a small head on frozen hidden states"
    )


@hookimpl
def bionemo_heads() -> Iterator[Component]:
    """Yield heads that can be put on an encoder."""
    yield Component("mlp", configure(Mlp), "linear layers on the sequence mean or on each residue (v1: MLPModel)")
    yield Component("linear", configure(Linear), "ridge or logistic regression on frozen states (not trained)")
    yield Component("convnet", configure(ConvNet), "two convolutions along the sequence (v1: ConvNet)")


@hookimpl
def bionemo_optimizers() -> Iterator[Component]:
    """Yield optimizers."""
    yield Component("adamw", configure(AdamW), "AdamW (v1: fused_adam)")


@hookimpl
def bionemo_losses() -> Iterator[Component]:
    """Yield losses for fine-tuning, besides those of the kinds."""
    yield Component("ranking", configure(Ranking), "the order of sequences by pairs (Bradley-Terry)")
    yield Component("contrastive", configure(Contrastive), "partners among those of other pairs (InfoNCE)")


@hookimpl
def bionemo_schedulers() -> Iterator[Component]:
    """Yield learning-rate schedules."""
    yield Component("constant", configure(Constant), "a constant learning rate")
    yield Component("cosine", configure(Cosine), "warm-up, cosine decay, then constant (v1: CosineAnnealing)")
    yield Component(
        "inverse_square_root",
        configure(InverseSquareRoot),
        "warm-up, then 1/sqrt(step) (v1: InverseSquareRootAnnealing)",
    )
    yield Component("noam", configure(Noam), "the schedule of the original transformer (v1: NoamAnnealing)")
    yield Component("warmup_annealing", configure(WarmupAnnealing), "warm-up, then linear decay (v1: WarmupAnnealing)")
    yield Component(
        "warmup_anneal_hold",
        configure(WarmupAnnealHold),
        "warm-up, linear decay, then constant (v1: WarmupAnnealDecayHold)",
    )


@hookimpl
def bionemo_loggers() -> Iterator[Component]:
    """Yield loggers, which write metrics."""
    yield Component("csv", configure(csv), "metrics.csv in the run folder")
    yield Component("tensorboard", configure(tensorboard), "TensorBoard event files in the run folder")
    yield Component("mlflow", configure(mlflow), "an MLflow server")
    yield Component("wandb", configure(wandb), "Weights & Biases; offline if no API key is set")


_COMPILE_AND_BAR = ("trainer.compile", "trainer.progress_bar")
"""What tasks that neither compile layers nor show a bar do not read."""
_OF_MODEL_DEVICES = (
    *("parallel.tensor_model_parallel_size", "trainer.accelerator", "trainer.num_nodes", "trainer.precision"),
    "trainer.deterministic",
)
"""What only tasks that compute with a model read."""
_OF_STEPS = ("optim", "scheduler", "trainer.max_steps", "trainer.val_check_interval", "trainer.gradient_clip_val")
"""What only the training steps of a fine-tuning read; a head that is solved has none."""


# Long: an entry for each task.
@hookimpl
def bionemo_tasks() -> Iterator[Component]:
    """Yield the choices of `task=`."""
    here = "bionemo_core.tasks"
    yield TaskSpec.of(settings.Train, f"{here}.train:train", "pre-train a model")
    yield TaskSpec.of(
        settings.Embed,
        f"{here}.embed:embed",
        "write embeddings of the sequences in a file",
        opens_model=True,
        unused=(*OF_TRAINING, *OF_ROWS, "data", "name"),
    )
    yield TaskSpec.of(
        settings.Finetune,
        f"{here}.finetune:finetune",
        "train a head on an encoder, and optionally the encoder too",
        opens_model=True,
        defaults=FINETUNE_DEFAULTS,
        unused_with={"head=linear": _OF_STEPS},
    )
    yield TaskSpec.of(
        settings.Evaluate,
        f"{here}.evaluate:evaluate",
        "compute loss, perplexity and metrics on a split, and write a report page",
        opens_model=True,
        uses_run_data=True,
        unused=(*OF_TRAINING, "name", *_COMPILE_AND_BAR),
    )
    yield TaskSpec.of(
        settings.Predict,
        f"{here}.predict:predict",
        "write predictions, answers of an encoder-decoder, or scores of mutations",
        opens_model=True,
        unused=(*OF_TRAINING, *OF_ROWS, "data", "name", *_COMPILE_AND_BAR),
    )
    yield TaskSpec.of(
        settings.Sample,
        f"{here}.sample:sample",
        "generate texts near those of a file, or from the model's prior",
        opens_model=True,
        unused=(*OF_TRAINING, *OF_ROWS, "data"),
    )
    yield TaskSpec.of(
        settings.Optimize,
        f"{here}.optimize:optimize",
        "search a latent space for texts that score higher",
        opens_model=True,
        unused=(*OF_TRAINING, *OF_ROWS, "data"),
    )
    yield TaskSpec.of(
        settings.Prepare,
        f"{here}.prepare:prepare",
        "prepare the data, and report what became of each record",
        needs_model=False,
        unused=(
            *(*OF_TRAINING, *OF_ROWS, "name", *_COMPILE_AND_BAR, *_OF_MODEL_DEVICES),
            *("restore", "connector", "restore_from_path"),
        ),
    )
    yield TaskSpec.of(
        settings.Convert,
        f"{here}.convert:convert",
        "write a model in another format: artefact, .nemo, Hugging Face, ONNX",
        opens_model=True,
        unused=(*OF_TRAINING, *OF_ROWS, "data", *OF_MACHINE, "parallel.tensor_model_parallel_size"),
    )
    yield TaskSpec.of(
        settings.Serve,
        f"{here}.serving.serve:serve",
        "answer requests over HTTP with a model",
        opens_model=True,
        unused=(*OF_TRAINING, *OF_ROWS, "data", "name", "trainer.progress_bar"),
    )
