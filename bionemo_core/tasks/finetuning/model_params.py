"""The parameters of the fine-tuned model, from the settings of the task, the pre-trained model and the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bionemo_core.data.labelled_records import LabelledSplits
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.label_spec import KINDS, MATCHING, LabelSpec
from bionemo_core.finetuning.linear.baseline import LINEAR
from bionemo_core.finetuning.lora import TARGETS
from bionemo_core.finetuning.objective import class_counts, classes_of, mean_and_scale
from bionemo_core.finetuning.pairs.second_model import second_facts
from bionemo_core.finetuning.pairs.side_encoder import describe_encoder, describe_second
from bionemo_core.finetuning.several_targets import check_some_label, means_and_scales, several_table
from bionemo_core.models.load import OpenedModel
from bionemo_core.models.named_weights import opened_fingerprint
from bionemo_core.plugins.records import CORE_DISTRIBUTION
from bionemo_core.plurals import format_count
from bionemo_core.tasks.settings import Finetune

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry


def model_params(
    task: Finetune,
    opened: OpenedModel,
    splits: LabelledSplits,
    registry: Registry,
    second: OpenedModel | None = None,
) -> dict[str, Any]:
    """Return the parameters of the fine-tuned model: encoder, head and labels; `second` reads the second of a pair.

    Raises:
        ConfigError: the head is unknown, or the labels do not fit the task.
    """
    head = registry.get("head", task.head or ("convnet" if KINDS[task.kind].per_residue else "mlp"))
    frozen = task.encoder == "frozen"
    without_start = task.head == LINEAR or task.kind == MATCHING
    params: dict[str, Any] = {
        "encoder": describe_encoder(opened.spec),
        "kind": task.kind,
        "head": {
            "name": head.name,
            "params": dict(task.head_params or {}),
            "distribution": head.distribution,
            "version": head.version,
        },
        "encoder_training": task.encoder,
        "freeze_layers": task.freeze_layers,
        "text_form": task.text_form,
        "scaled_states": frozen and (task.scale_states or task.head == LINEAR),
        "bounded_states": frozen and task.scale_states and not (without_start or KINDS[task.kind].per_residue),
        "linear_start": frozen and task.scale_states and task.linear_start and not without_start,
    }
    if task.encoder == "lora":
        params["lora"] = {
            "rank": task.lora_rank,
            "alpha": task.lora_alpha,
            "dropout": task.lora_dropout,
            "targets": list(task.lora_targets or TARGETS),
            **({"dora": True} if task.lora_dora else {}),
            "decoder": False,
        }
        params["base_weights"] = opened_fingerprint(opened)
    if task.loss is not None:
        loss = registry.get("loss", task.loss)
        # The core's by its name alone, as earlier versions wrote it.
        params["loss"] = loss.name if loss.distribution == CORE_DISTRIBUTION else loss.qualified_name
        if task.loss_params:
            params["loss_params"] = dict(task.loss_params)
    return params | _pair_params(splits, second, trained=not frozen) | _label_params(task, splits)


def _pair_params(splits: LabelledSplits, second: OpenedModel | None, *, trained: bool) -> dict[str, Any]:
    if not splits.train.seconds:  # as earlier versions wrote it
        return {}
    params: dict[str, Any] = {"pairs": True} | ({} if second is None else {"second": second_facts(second)})
    return params | (describe_second(second) if second is not None and trained else {})


def _label_params(task: Finetune, splits: LabelledSplits) -> dict[str, Any]:
    per_residue, of_classes = KINDS[task.kind]
    if splits.train.targets:
        return _several_params(task, LabelSpec(task.kind, targets=splits.train.targets), splits)
    if task.kind == MATCHING:
        return {"projection_size": task.projection_size}
    if not of_classes:
        mean, scale = mean_and_scale(splits.train, per_residue) if task.standardise else (0.0, 1.0)
        return {"mean": mean, "scale": scale}
    classes = classes_of(splits.train, per_residue)
    weights = task.class_weights
    if weights is not None and len(weights) != len(classes):
        raise ConfigError(
            f"task.class_weights: got {format_count(len(weights), 'number')}, expected one for each of the "
            f"{format_count(len(classes), 'class', 'classes')}: "
            f"{', '.join(classes)}."
        )
    if task.balance_classes:
        counts = class_counts(splits.train, classes, per_residue)
        weights = [float(counts.sum() / (len(classes) * count)) for count in counts]
    return {"classes": classes, "class_weights": weights}


def _several_params(task: Finetune, label_spec: LabelSpec, splits: LabelledSplits) -> dict[str, Any]:
    names = list(label_spec.targets)
    if label_spec.multilabel or not task.standardise:
        check_some_label(several_table(splits.train, label_spec), label_spec)
        return {"targets": names, "means": [0.0] * len(names), "scales": [1.0] * len(names)}
    means, scales = means_and_scales(splits.train, label_spec)
    return {"targets": names, "means": means, "scales": scales}
