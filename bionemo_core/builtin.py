"""The core's own components, offered through the same hooks as a plugin's, and the registry of this process."""

import sys
from collections.abc import Iterator
from functools import lru_cache

from bionemo_core.config.model_defaults import problem_with_defaults
from bionemo_core.config.task_spec import TaskSpec
from bionemo_core.data.sources import csv as csv_files
from bionemo_core.data.sources import fasta, records, sample, uniref50, uniref90
from bionemo_core.data.sources.blend import blend
from bionemo_core.data.sources.labelled import flip_fasta, labelled_csv
from bionemo_core.finetuning.downstream import downstream
from bionemo_core.finetuning.heads import ConvNet, Mlp
from bionemo_core.finetuning.model import FINETUNED, finetuned
from bionemo_core.plugins import Component, Registry, configure, hookimpl
from bionemo_core.reporting.loggers import csv, tensorboard, wandb
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

FINETUNE_BRINGS: dict[str, str | dict[str, object]] = {
    # v1's downstream configurations: Adam at 5e-4, WarmupAnnealing; a row of the batch is a sequence.
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
    """Return the registry of this process: core and installed plugins, loaded at the first call.

    Workers of a sweep are processes of their own, so this is computed where it is needed and never sent.
    """
    return Registry.load(sys.modules[__name__], check_defaults=problem_with_defaults)


@hookimpl
def bionemo_datasets() -> Iterator[Component]:
    """Protein sources, which serve several plugins."""
    yield Component("sample", configure(sample), "512 UniProt proteins that ship with the core")
    yield Component("fasta", fasta, "FASTA files, plain or compressed")
    yield Component("csv", csv_files, "a CSV table, or shards train/x000.csv ...")
    yield Component("records", records, "files of any format: FASTQ, PDB, mmCIF, GenBank, TSV, Parquet ...")
    yield Component("uniref50", uniref50, "UniRef50 from UniProt, shuffled and split as in v1")
    yield Component("uniref90", uniref90, "UniRef50 clusters, a random UniRef90 member at each pass")
    yield Component("blend", configure(blend), "several of these at once, by weight")
    yield Component("labelled_csv", configure(labelled_csv), "tables of sequences with labels, for fine-tuning")
    yield Component("flip_fasta", configure(flip_fasta), "the FLIP benchmark's FASTA files, for fine-tuning")


@hookimpl
def bionemo_models() -> Iterator[Component]:
    """Offer the model that fine-tuning makes of a pre-trained one."""
    yield Component(
        FINETUNED,
        configure(finetuned),
        "an encoder with a head, as task=finetune makes it",
        capabilities=frozenset({"packing", "exact_resume"}),
    )


@hookimpl
def bionemo_callbacks() -> Iterator[Component]:
    """Offer callbacks of a training."""
    yield Component("downstream", configure(downstream), "a small head on frozen states at every validation")


@hookimpl
def bionemo_heads() -> Iterator[Component]:
    """Offer heads for an encoder."""
    yield Component("mlp", configure(Mlp), "linear layers over the mean of a sequence, or every residue (v1: MLPModel)")
    yield Component("convnet", configure(ConvNet), "two convolutions along the sequence (v1: ConvNet)")


@hookimpl
def bionemo_optimizers() -> Iterator[Component]:
    """Optimizers."""
    yield Component("adamw", configure(AdamW), "AdamW (v1: fused_adam)")


@hookimpl
def bionemo_schedulers() -> Iterator[Component]:
    """Learning-rate schedules."""
    yield Component("constant", configure(Constant), "the same rate throughout")
    yield Component("cosine", configure(Cosine), "warm-up, cosine, constant end (v1: CosineAnnealing)")
    yield Component(
        "inverse_square_root", configure(InverseSquareRoot), "warm-up, 1/sqrt(step) (v1: InverseSquareRootAnnealing)"
    )
    yield Component("noam", configure(Noam), "of the original transformer (v1: NoamAnnealing)")
    yield Component("warmup_annealing", configure(WarmupAnnealing), "warm-up, linear down (v1: WarmupAnnealing)")
    yield Component(
        "warmup_anneal_hold", configure(WarmupAnnealHold), "warm-up, linear down, hold (v1: WarmupAnnealDecayHold)"
    )


@hookimpl
def bionemo_loggers() -> Iterator[Component]:
    """Where metrics go."""
    yield Component("csv", configure(csv), "metrics.csv in the run folder")
    yield Component("tensorboard", configure(tensorboard), "TensorBoard event files in the run folder")
    yield Component("wandb", configure(wandb), "Weights & Biases, offline without a key")


@hookimpl
def bionemo_tasks() -> Iterator[Component]:
    """Offer what `task=` can be."""
    here = "bionemo_core.tasks"
    yield TaskSpec.of(settings.Train, f"{here}.train:train", "pre-train the model")
    yield TaskSpec.of(settings.Embed, f"{here}.embed:embed", "embeddings of the sequences in a file", opens_model=True)
    yield TaskSpec.of(
        settings.Finetune,
        f"{here}.finetune:finetune",
        "train a head, and the encoder if asked",
        opens_model=True,
        defaults=FINETUNE_BRINGS,
    )
    yield TaskSpec.of(
        settings.Evaluate,
        f"{here}.evaluate:evaluate",
        "loss, perplexity and metrics on a split, and a report page",
        opens_model=True,
        uses_run_data=True,
    )
    yield TaskSpec.of(
        settings.Predict,
        f"{here}.predict:predict",
        "a fine-tuned model's answers, or scores of mutations",
        opens_model=True,
    )
    yield TaskSpec.of(
        settings.Sample,
        f"{here}.sample:sample",
        "texts near those of a file, or from the model's prior",
        opens_model=True,
    )
    yield TaskSpec.of(
        settings.Optimize,
        f"{here}.optimize:optimize",
        "search a latent space for texts that score higher",
        opens_model=True,
    )
    yield TaskSpec.of(
        settings.Prepare,
        f"{here}.prepare:prepare",
        "prepare the data, and say what became of each record",
        needs_model=False,
    )
    yield TaskSpec.of(
        settings.Convert,
        f"{here}.convert:convert",
        "write a model in another form: artefact, .nemo, Hugging Face",
        opens_model=True,
    )
