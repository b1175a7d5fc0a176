"""Checks of the settings of `task=finetune`, for new and resumed runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bionemo_core.config.schema import RunSpec
from bionemo_core.data.model_input import TEXT_FORMS
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.label_checks import check_on_bad_label
from bionemo_core.finetuning.label_spec import KINDS, MATCHING, MULTILABEL, read_kind
from bionemo_core.finetuning.long_sequences import check_on_long
from bionemo_core.finetuning.lora import TARGETS
from bionemo_core.finetuning.losses import build_loss, kinds_of
from bionemo_core.tasks.settings import Finetune
from bionemo_core.tasks.unread_keys import refuse_unread

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

STATES_DTYPES = ("float32", "float16")
EXPORTS = (None, "last", "best")
_MODEL_KEYS = (
    *("kind", "encoder", "head", "head_params", "freeze_layers", "lora_rank", "lora_alpha", "lora_dropout"),
    *("lora_targets", "class_weights", "balance_classes", "standardise", "on_bad_label", "on_long", "text_form"),
    *("scale_states", "linear_start", "loss", "loss_params", "lora_dora", "projection_size"),
)
"""Keys of the task that define the model; a resumed run may not change them."""


_LORA_KEYS = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "lora_dora")


def check_settings(task: Finetune) -> None:
    """Check the settings.

    Raises:
        ConfigError: a setting is out of its range, or would have no effect.
    """
    for is_wrong, message in (*_about_outputs(task), *_about_training(task)):
        if is_wrong:
            raise ConfigError(f"task.{message}.")
    for keys, why in _unread_keys(task):
        refuse_unread(task, keys, why)
    check_on_long(task.on_long, KINDS[task.kind].per_residue)
    check_on_bad_label("task.on_bad_label", task.on_bad_label, KINDS[task.kind].of_classes)


def check_loss(task: Finetune, spec: RunSpec, registry: Registry) -> None:
    """Check that there is a loss of that name, for this kind of prediction and these batches.

    Raises:
        ConfigError: there is not.
    """
    if task.kind == MATCHING and spec.batch.micro_batch_size == 1 and not spec.batch.packing:
        raise ConfigError(
            "task.kind=pair_matching: compares the pairs of a micro batch, and there is one in each. Set "
            "batch.micro_batch_size=32."
        )
    if task.loss is None:
        return
    registry.get("loss", task.loss)  # with the names that there are, if there is none
    loss = build_loss(task.loss, dict(task.loss_params or {}), registry)
    kinds = kinds_of(loss) if loss else ()
    if task.kind not in kinds:
        raise ConfigError(f"task.loss={task.loss} is for task.kind={' or '.join(kinds)}, got {task.kind}.")
    if task.class_weights or task.balance_classes:
        raise ConfigError(
            f"task.loss={task.loss} takes no weights of classes. Leave task.class_weights and task.balance_classes out."
        )
    if getattr(loss, "compares", False) and spec.batch.micro_batch_size == 1 and not spec.batch.packing:
        raise ConfigError(
            f"task.loss={task.loss}: compares the sequences of a micro batch, and there is one in each. Set "
            "batch.micro_batch_size=32."
        )


def check_pairs(task: Finetune) -> None:
    """Check that the settings are for pairs of sequences.

    Raises:
        ConfigError: there is an output for every residue.
    """
    if KINDS[task.kind].per_residue:
        raise ConfigError(
            f"task.kind={task.kind}: a pair of sequences has one label, and none for each residue. Choose a kind for "
            "whole sequences, such as sequence_regression."
        )


def check_augmented(task: Finetune) -> None:
    """Check that the settings are for sequences that are changed at random.

    Raises:
        ConfigError: the encoder is frozen, or there is an output for every residue.
    """
    if task.encoder == "frozen":
        raise ConfigError(
            "data=augmented: task.encoder=frozen computes the states of each sequence once, so changes would have no "
            "effect. Choose task.encoder=full or lora, or data.source as data."
        )
    if KINDS[task.kind].per_residue:
        raise ConfigError(
            f"data=augmented: task.kind={task.kind} has a label for each residue, which would not follow the changes. "
            "Choose data.source as data."
        )


def _unread_keys(task: Finetune) -> list[tuple[tuple[str, ...], str]]:
    """Return the keys that nothing reads beside the others, and the words for when that is so."""
    one_of_classes = KINDS[task.kind].of_classes or task.kind == MULTILABEL
    return [
        *([(_LORA_KEYS, f"with task.encoder={task.encoder}")] if task.encoder != "lora" else []),
        *([(("linear_start",), f"with task.encoder={task.encoder}")] if task.encoder != "frozen" else []),
        *([(("linear_start",), "with task.head=linear")] if task.head == "linear" else []),
        *([(("linear_start",), "with task.scale_states=false")] if not task.scale_states else []),
        *([(("linear_start", "standardise"), "with task.kind=pair_matching")] if task.kind == MATCHING else []),
        *([(("projection_size",), f"with task.kind={task.kind}")] if task.kind != MATCHING else []),
        *([(("standardise",), f"with task.kind={task.kind}")] if one_of_classes else []),
    ]


def _about_outputs(task: Finetune) -> list[tuple[bool, str]]:
    """Return what may be wrong about labels, loss and what is written: (is it so?, the message)."""
    of_classes = KINDS[task.kind].of_classes
    weights = task.class_weights
    return [
        (task.states_dtype not in STATES_DTYPES, f"states_dtype: got {task.states_dtype!r}, expected float32, float16"),
        (task.text_form not in TEXT_FORMS, f"text_form: got {task.text_form!r}, expected {' or '.join(TEXT_FORMS)}"),
        (task.export not in EXPORTS, f"export: got {task.export!r}, expected last, best or null"),
        (task.export == "best" and task.average_last > 0, "export=best and task.average_last are both given; keep one"),
        (bool(task.loss_params) and task.loss is None, "loss_params are the keys of task.loss, which is not given"),
        (
            task.loss is not None and task.head == "linear",
            "loss has no effect with task.head=linear, which is solved. Leave it out, or choose task.head=mlp",
        ),
        (
            task.kind == MATCHING and task.head == "linear",
            "head=linear is solved for labels, and task.kind=pair_matching has none. Choose task.head=mlp",
        ),
        (bool(weights) and not of_classes, f"class_weights: task.kind={task.kind} has no classes"),
        (task.balance_classes and not of_classes, f"balance_classes: task.kind={task.kind} has no classes"),
        (task.balance_classes and bool(weights), "balance_classes and task.class_weights are both given; keep one"),
    ]


def _about_training(task: Finetune) -> list[tuple[bool, str]]:
    """Return what may be wrong about the training of encoder and head: (is it so?, the message)."""
    return [
        (
            task.lora_targets is not None
            and not 0 < len(set(task.lora_targets) & set(TARGETS)) == len(task.lora_targets),
            f"lora_targets: got {task.lora_targets}, expected some of {', '.join(TARGETS)}",
        ),
        (
            task.lora_dora and task.encoder != "lora",
            f"lora_dora=true needs task.encoder=lora, got {task.encoder}",
        ),
        (
            task.freeze_layers != 0 and task.encoder != "full",
            f"freeze_layers={task.freeze_layers} needs task.encoder=full, got {task.encoder}",
        ),
        (
            task.head == "linear" and task.encoder != "frozen",
            f"head=linear is solved on frozen states and needs task.encoder=frozen, got {task.encoder}; "
            "task.head=mlp with task.head_params={hidden_layer_size: 0} is a linear layer that is trained",
        ),
        (
            not task.scale_states and (task.encoder != "frozen" or task.head == "linear"),
            "scale_states=false has no effect here. It is for task.encoder=frozen and heads that are trained",
        ),
        (
            task.head == "linear" and (task.early_stopping is not None or task.average_last > 0),
            "head=linear is solved, not trained: leave task.early_stopping and task.average_last out",
        ),
    ]


def check_same_model(spec: RunSpec, saved: RunSpec) -> None:
    """Check that a resumed run keeps its model.

    Raises:
        ConfigError: a key that defines the model has another value.
    """
    new, old = Finetune(**spec.task.params), Finetune(**saved.task.params)
    unread = {key for keys, _ in _unread_keys(old) for key in keys}
    for key in _MODEL_KEYS:
        if key in unread:  # an earlier version took them without effect
            continue
        now, before = getattr(new, key), getattr(old, key)
        if key == "kind":
            now, before = read_kind(now, "task.kind"), read_kind(before, "task.kind")
        if now != before:
            raise ConfigError(
                f"task.{key}: {before} -> {now}: a resumed run keeps its model. Give the old value, or start a new run."
            )
