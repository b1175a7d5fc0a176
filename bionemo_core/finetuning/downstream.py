"""Downstream validation during pre-training: at every validation, train a small head on frozen encoder states.

No `from __future__ import annotations` and no torch at import: the configuration reads this signature.
"""

from typing import TYPE_CHECKING, Any, Optional

from bionemo_core.errors import ConfigError
from bionemo_core.ranges import Count, Natural, NotNegative, Positive

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry


# Long: a signature that is its keys, and their help.
def downstream(
    dataset: str,
    kind: str,
    dataset_params: Any = None,
    task_name: Optional[str] = None,
    head: Optional[str] = None,
    head_params: Any = None,
    num_epochs: Count = 10,
    batch_size: Count = 128,
    lr: Positive = 1e-4,
    weight_decay: NotNegative = 0.01,
    max_sequences: Optional[Count] = 2000,
    random_seed: Natural = 1234,
    on_bad_label: str = "error",
    *,
    registry: "Registry",
) -> Any:
    """Train a new head at every validation, on current states of the model (v1's `dwnstr_task_validation`).

    Its metrics on the test split, else on the validation split, are logged as `downstream_<task>_<metric>`.

    Args:
        dataset: a data component with labels: labelled_csv, flip_fasta.
        kind: sequence_regression, sequence_classification, token_classification or token_regression.
        dataset_params: the keys of that component, `{dataset_path: ..., target_column: ...}`.
        task_name: the name in the metrics; null: the name of the dataset.
        head: a component of group head; null: v1's MLP [hidden, 256, 128, n] with dropout 0.1, or ConvNet for residues.
        head_params: the keys of that head.
        num_epochs: passes over the training sequences.
        batch_size: sequences per step.
        lr: learning rate of AdamW.
        weight_decay: weight decay of AdamW.
        max_sequences: use at most this many training sequences, chosen at random; null: all.
        random_seed: seed of the head, its batches and the choice of sequences.
        on_bad_label: a missing or unreadable label: error, skip it, or class to take NaN, NA, - and such as classes.
        registry: where data and head are looked up.

    Raises:
        ConfigError: the kind or a component is unknown.
    """
    from bionemo_core.finetuning.downstream_callback import DownstreamSettings, DownstreamValidation
    from bionemo_core.finetuning.label_spec import MATCHING, MULTILABEL, read_kind

    kind = read_kind(kind, "callbacks.downstream.kind")
    if head_params and head is None:
        raise ConfigError(
            "callbacks.downstream.head_params: not used without callbacks.downstream.head. Name the head, or leave it "
            "out."
        )
    if kind == MULTILABEL:
        raise ConfigError(
            f"callbacks.downstream.kind={MULTILABEL}: downstream validation predicts one label. Set "
            "callbacks.downstream.kind=sequence_classification, and name one column of labels."
        )
    if kind == MATCHING:
        raise ConfigError(f"callbacks.downstream.kind={MATCHING}: downstream validation reads single sequences.")
    settings = DownstreamSettings(
        dataset=registry.get("data", dataset).qualified_name,
        dataset_params=dict(dataset_params or {}),
        kind=kind,
        task_name=task_name or dataset,
        head=head,
        head_params=dict(head_params or {}),
        num_epochs=num_epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        max_sequences=max_sequences,
        seed=random_seed,
        on_bad_label=on_bad_label,
    )
    return DownstreamValidation(settings, registry)
