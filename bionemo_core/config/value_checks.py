"""Checks of values beyond their types: ranges, allowed words, and names that become folders."""

import dataclasses
import re

from bionemo_core.config.schema import CORE_GROUPS, Checkpoint, Parallel, Restore, RunSpec, Trainer
from bionemo_core.errors import ConfigError
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.ranges import check_fields

ACCELERATORS = ("auto", "cpu", "gpu")
PRECISIONS = ("auto", "32", "bf16-mixed", "16-mixed", "fp8-mixed")
FP8_RECIPES = ("tensorwise", "rowwise")
MODES = ("min", "max")
SHARDING_STRATEGIES = ("auto", "full", "hybrid", "none")
REDUCE_DTYPES = ("float32", "bfloat16")
VOCABULARY_METHODS = ("tile", "mean")
POSITION_METHODS = ("tile", "cut", "interpolate", "restart")
MAX_SEED = 2**32 - 1
_RUN_NAME = re.compile(r"[\w][\w.+=@ -]*")


def refuse_null_group(group: str) -> None:
    """Refuse null in the place of a group of the core's keys.

    Raises:
        ConfigError: always.
    """
    first = dataclasses.fields(CORE_GROUPS[group])[0].name
    raise ConfigError(
        f"{group}: got null, expected keys such as {group}.{first}. Leave {group} out to have the default of each."
    )


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
    for group in CORE_GROUPS:
        check_fields(getattr(spec, group), f"{group}.")
    _check_words(spec.trainer, spec.checkpoint)
    _check_fp8(spec)
    _check_sharding(spec.parallel)
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


def _check_words(trainer: Trainer, checkpoint: Checkpoint) -> None:
    _one_of("trainer.accelerator", trainer.accelerator, ACCELERATORS)
    _one_of("trainer.precision", trainer.precision, PRECISIONS)
    if checkpoint.mode is not None:
        _one_of("checkpoint.mode", checkpoint.mode, MODES)
    if not checkpoint.monitor:
        raise ConfigError("checkpoint.monitor: got '', expected the name of a metric such as val_loss.")


def _check_fp8(spec: RunSpec) -> None:
    recipe, tensor_size = spec.trainer.fp8_recipe, spec.parallel.tensor_model_parallel_size
    if recipe is not None:
        _one_of("trainer.fp8_recipe", recipe, FP8_RECIPES)
    if spec.trainer.precision != "fp8-mixed":
        if recipe is not None:
            raise ConfigError(
                f"trainer.fp8_recipe={recipe} is not used with trainer.precision={spec.trainer.precision}. Leave it "
                "out, or use trainer.precision=fp8-mixed."
            )
        return
    if spec.task.name != "train":
        raise ConfigError(
            f"trainer.precision=fp8-mixed is for task=train, and not for task={spec.task.name}. "
            "Use trainer.precision=bf16-mixed."
        )
    if tensor_size > 1:
        raise ConfigError(
            f"trainer.precision=fp8-mixed does not work with parallel.tensor_model_parallel_size={tensor_size} yet. "
            "Use trainer.precision=bf16-mixed, or parallel.tensor_model_parallel_size=1 with "
            "parallel.sharding_strategy=full."
        )


def _check_sharding(parallel: Parallel) -> None:
    _one_of("parallel.sharding_strategy", parallel.sharding_strategy, SHARDING_STRATEGIES)
    _one_of("parallel.reduce_dtype", parallel.reduce_dtype, REDUCE_DTYPES)
    if parallel.shard_size is not None and parallel.sharding_strategy in ("full", "none"):
        raise ConfigError(
            f"parallel.shard_size={parallel.shard_size} is not used with "
            f"parallel.sharding_strategy={parallel.sharding_strategy}. Leave it out, or use "
            "parallel.sharding_strategy=hybrid."
        )


def _one_of(key: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ConfigError(f"{key}: got {value!r}.{did_you_mean(value, words)} Allowed: {', '.join(words)}.")
