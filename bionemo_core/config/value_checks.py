"""Checks of values beyond their types: ranges, allowed words, and names that become folders."""

import math
import re

from bionemo_core.config.schema import Batch, Checkpoint, Parallel, Restore, RunSpec, Trainer
from bionemo_core.errors import ConfigError
from bionemo_core.plugins.did_you_mean import did_you_mean

ACCELERATORS = ("auto", "cpu", "gpu")
PRECISIONS = ("auto", "32", "bf16-mixed", "16-mixed")
MODES = ("min", "max")
VOCABULARY_METHODS = ("tile", "mean")
POSITION_METHODS = ("tile", "cut", "interpolate", "restart")
MAX_SEED = 2**32 - 1
_RUN_NAME = re.compile(r"[\w][\w.+=@ -]*")


def check_values(spec: RunSpec) -> None:
    """Check the values of a run.

    Raises:
        ConfigError: a value is out of range or not an allowed word; the message names the first such key.
    """
    if not _RUN_NAME.fullmatch(spec.name):
        raise ConfigError(
            f"name: got {spec.name!r}, expected a folder name: letters, digits, '_', '-' or '.', but no '/'."
        )
    if not 0 <= spec.seed <= MAX_SEED:
        raise ConfigError(f"seed: got {spec.seed}, expected 0 to {MAX_SEED}.")
    _check_trainer(spec.trainer)
    _check_batch(spec.batch)
    _check_parallel(spec.parallel)
    _check_checkpoint(spec.checkpoint)
    check_restore(spec.restore)


def check_restore(restore: Restore) -> None:
    """Check the rules for loading weights.

    Raises:
        ConfigError: a rule is not an allowed word.
    """
    if restore.vocabulary is not None:
        _one_of("restore.vocabulary", restore.vocabulary, VOCABULARY_METHODS)
    if restore.positions is not None:
        _one_of("restore.positions", restore.positions, POSITION_METHODS)


def _check_trainer(trainer: Trainer) -> None:
    _one_of("trainer.accelerator", trainer.accelerator, ACCELERATORS)
    _one_of("trainer.precision", trainer.precision, PRECISIONS)
    for name in ("devices", "num_nodes", "max_steps", "log_every_n_steps", "val_check_interval"):
        _at_least(f"trainer.{name}", getattr(trainer, name), 1)
    for name in ("limit_val_batches", "limit_test_batches"):
        _at_least(f"trainer.{name}", getattr(trainer, name), 0)
    if trainer.num_threads is not None:
        _at_least("trainer.num_threads", trainer.num_threads, 1)
    _positive("trainer.gradient_clip_val", trainer.gradient_clip_val)
    _positive("trainer.max_time_min", trainer.max_time_min)


def _check_batch(batch: Batch) -> None:
    for name in ("micro_batch_size", "accumulate_grad_batches", "pack_window"):
        _at_least(f"batch.{name}", getattr(batch, name), 1)
    _at_least("batch.num_workers", batch.num_workers, 0)
    if batch.global_batch_size is not None:
        _at_least("batch.global_batch_size", batch.global_batch_size, 1)
    if batch.seq_length is not None:
        _at_least("batch.seq_length", batch.seq_length, 3)  # BOS, one residue, EOS


def _check_parallel(parallel: Parallel) -> None:
    _at_least("parallel.tensor_model_parallel_size", parallel.tensor_model_parallel_size, 1)
    _at_least("parallel.pipeline_model_parallel_size", parallel.pipeline_model_parallel_size, 1)


def _check_checkpoint(checkpoint: Checkpoint) -> None:
    _one_of("checkpoint.mode", checkpoint.mode, MODES)
    if not checkpoint.monitor:
        raise ConfigError("checkpoint.monitor: got '', expected the name of a metric such as val_loss.")
    if checkpoint.every_n_steps is not None:
        _at_least("checkpoint.every_n_steps", checkpoint.every_n_steps, 1)
    _at_least("checkpoint.save_top_k", checkpoint.save_top_k, 0)
    # The previous checkpoint must be kept until the next one is verified.
    _at_least("checkpoint.keep_last", checkpoint.keep_last, 2)


def _one_of(key: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ConfigError(f"{key}: got {value!r}.{did_you_mean(value, words)} Allowed: {', '.join(words)}.")


def _at_least(key: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{key}: got {value}, expected {least} or more.")


def _positive(key: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{key}: got {value}, expected a number above 0, or null for no limit.")
