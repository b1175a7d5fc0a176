"""The core's own components, offered through the same hooks as a plugin's, and the registry of this process."""

import sys
from collections.abc import Iterator
from functools import lru_cache

from bionemo_core.config.brought import problem_with_defaults
from bionemo_core.config.schema import Train
from bionemo_core.data.sources import csv as csv_shards
from bionemo_core.data.sources import fasta, sample
from bionemo_core.plugins import Component, Registry, configure, hookimpl
from bionemo_core.training.loggers import csv, tensorboard, wandb
from bionemo_core.training.optim import adamw
from bionemo_core.training.schedules import (
    constant,
    cosine,
    inverse_square_root,
    noam,
    warmup_anneal_hold,
    warmup_annealing,
)


@lru_cache(maxsize=1)
def load_registry() -> Registry:
    """The registry of this process: core and installed plugins, loaded at the first call.

    Workers of a sweep are processes of their own, so this is computed where it is needed and never sent.
    """
    return Registry.load(sys.modules[__name__], check_defaults=problem_with_defaults)


@hookimpl
def bionemo_datasets() -> Iterator[Component]:
    """Protein sources, which serve several plugins."""
    yield Component("sample", configure(sample), "512 UniProt proteins that ship with the core")
    yield Component("fasta", configure(fasta), "a FASTA file, plain or gzip")
    yield Component("csv", configure(csv_shards), "CSV shards, train/x000.csv and so on")


@hookimpl
def bionemo_optimizers() -> Iterator[Component]:
    """Optimizers."""
    yield Component("adamw", configure(adamw), "AdamW (v1: fused_adam)")


@hookimpl
def bionemo_schedulers() -> Iterator[Component]:
    """Learning-rate schedules."""
    yield Component("constant", configure(constant), "the same rate throughout")
    yield Component("cosine", configure(cosine), "warm-up, cosine, constant end (v1: CosineAnnealing)")
    yield Component(
        "inverse_square_root", configure(inverse_square_root), "warm-up, 1/sqrt(step) (v1: InverseSquareRootAnnealing)"
    )
    yield Component("noam", configure(noam), "of the original transformer (v1: NoamAnnealing)")
    yield Component("warmup_annealing", configure(warmup_annealing), "warm-up, linear down (v1: WarmupAnnealing)")
    yield Component(
        "warmup_anneal_hold", configure(warmup_anneal_hold), "warm-up, linear down, hold (v1: WarmupAnnealDecayHold)"
    )


@hookimpl
def bionemo_loggers() -> Iterator[Component]:
    """Where metrics go."""
    yield Component("csv", configure(csv), "metrics.csv in the run folder")
    yield Component("tensorboard", configure(tensorboard), "TensorBoard event files in the run folder")
    yield Component("wandb", configure(wandb), "Weights & Biases, offline without a key")


@hookimpl
def bionemo_tasks() -> Iterator[Component]:
    """What `task=` can be."""
    yield Component("train", configure(Train), "pre-train the model")
