"""Downstream validation while pre-training: at every validation a small head on the frozen encoder's states.

No `from __future__ import annotations` and no torch at import: the configuration reads this signature.
"""

from typing import TYPE_CHECKING, Any, Optional

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
    num_epochs: int = 10,
    batch_size: int = 128,
    lr: float = 1e-4,
    weight_decay: float = 0.01,
    max_sequences: Optional[int] = 2000,
    random_seed: int = 1234,
    *,
    registry: "Registry",
) -> Any:
    """Trains a new head at every validation, on states of the model as it is then (v1's `dwnstr_task_validation`).

    Its metrics on the test split, else on the validation split, stand beside the loss as `downstream_<task>_<metric>`.

    Args:
        dataset: a data component with labels: labelled_csv, flip_fasta.
        kind: sequence_regression, sequence_classification, token_classification or token_regression.
        dataset_params: the keys of that component, `{dataset_path: ..., target_column: ...}`.
        task_name: what the metrics are called; null: the dataset's name.
        head: a component of group head; null: v1's, [hidden, 256, 128, n] with dropout 0.1, for residues the ConvNet.
        head_params: the keys of the head.
        num_epochs: passes over the training sequences.
        batch_size: sequences a step.
        lr: Adam's rate.
        weight_decay: its decoupled decay.
        max_sequences: of the training split at most so many, chosen by the seed; null: all.
        random_seed: of the head and its batches.
        registry: where data and head are looked up.

    Raises:
        ConfigError: the kind or a component is unknown.
    """
    from bionemo_core.finetuning.downstream_callback import DownstreamSettings, DownstreamValidation
    from bionemo_core.finetuning.model import V1_KINDS, check_kind

    kind = V1_KINDS.get(kind, kind)
    check_kind(kind)
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
    )
    return DownstreamValidation(settings, registry)
