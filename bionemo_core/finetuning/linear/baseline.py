"""A linear head for the splits of a run: it scales the states, may be the head itself, and is the run's baseline."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bionemo_core.data.labelled_records import LabelledRecords, LabelledSplits
from bionemo_core.finetuning.label_spec import LabelSpec
from bionemo_core.finetuning.linear.several import fit_several
from bionemo_core.finetuning.linear.solve import LinearFit, StateRows, fit_linear
from bionemo_core.finetuning.metrics import metrics_and_table
from bionemo_core.finetuning.network import FineTunedNetwork
from bionemo_core.finetuning.objective import StoredStatesObjective
from bionemo_core.finetuning.state_cache import StatesTable
from bionemo_core.io.atomic import write_json
from bionemo_core.plurals import format_count

LINEAR = "linear"
"""The head that is solved in closed form."""
BASELINE = "baseline.json"
"""The file in the run folder."""
MOST_NUMBERS = 1 << 26
"""A baseline is solved on at most as many training states as have this many numbers."""


@dataclass(frozen=True)
class Baseline:
    """The metrics of a linear head on frozen states, by split."""

    penalty: float
    states: int
    """The number of training states that it was solved on."""
    metrics: dict[str, dict[str, float]]

    @classmethod
    def of(cls, fit: LinearFit, rows: dict[str, StateRows], label_spec: LabelSpec) -> Baseline:
        """Measure a fit on the validation and the test split."""
        measured = {name: _metrics(fit, part, label_spec) for name, part in rows.items() if name != "train"}
        return cls(fit.penalty, fit.num_rows, measured)

    @property
    def text(self) -> str:
        """One line with all metrics."""
        texts = [
            f"{split} {', '.join(f'{name} {value:.4g}' for name, value in metrics.items())}"
            for split, metrics in self.metrics.items()
        ]
        measured = "; ".join(texts) or "no split to measure on"
        return f"linear head on {format_count(self.states, 'frozen state')}, penalty {self.penalty:g}: {measured}"

    def write(self, folder: Path) -> None:
        """Write the file `baseline.json`."""
        write_json(folder / BASELINE, asdict(self), indent=2)


def sampled(rows: StateRows, seed: int) -> StateRows:
    """Return the rows, or as many of them, drawn at random, as `MOST_NUMBERS` allow."""
    most = max(1, MOST_NUMBERS // rows.table.shape[1])
    if len(rows) <= most:
        return rows
    chosen = np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))
    return StateRows(rows.table, rows.rows.numpy()[chosen], rows.labels.numpy()[chosen])


def labelled_rows(records: LabelledRecords, objective: StoredStatesObjective, states: StatesTable) -> StateRows:
    """Return the states of a split whose labels count."""
    rows: list[Any] = []
    labels: list[Any] = []
    label_spec = objective.inner.label_spec
    of_classes = label_spec.of_classes
    for record in (records[row] for row in range(len(records))):
        start, stop = (int(states.offsets[record.number + place]) for place in (0, 1))
        if label_spec.targets:
            rows.append(np.arange(start, stop, dtype=np.int64))
            labels.append(objective.inner.several_labels(record)[None])
            continue
        values, counts = objective.inner.targets(record, stop - start)
        rows.append(np.arange(start, stop, dtype=np.int64)[counts])
        labels.append((values if of_classes else values.view(np.float32))[counts])
    joined: Any = np.concatenate(labels).astype(np.int64 if of_classes else np.float64)
    return StateRows(states.table, np.concatenate(rows), joined)


def split_rows(splits: LabelledSplits, objective: StoredStatesObjective, states: StatesTable) -> dict[str, StateRows]:
    """Return the rows of every split."""
    return {name: labelled_rows(part, objective, states) for name, part in splits.parts().items()}


def solve_baseline(
    rows: dict[str, StateRows], label_spec: LabelSpec, class_weights: list[float] | None, penalty: float | None = None
) -> LinearFit:
    """Fit a linear head on the training split; the validation split chooses the penalty if none is given."""
    val = None if (found := rows.get("val")) is None else sampled(found, seed=0)
    if label_spec.targets:
        return fit_several(rows["train"], val, multilabel=label_spec.multilabel, penalty=penalty)
    return fit_linear(
        rows["train"],
        val,
        num_classes=len(label_spec.classes) if label_spec.of_classes else None,
        class_weights=class_weights,
        penalty=penalty,
    )


def read_baseline(folder: Path) -> Baseline | None:
    """Return the baseline of a run folder, if it has one."""
    path = folder / BASELINE
    return Baseline(**json.loads(path.read_text())) if path.exists() else None


@torch.no_grad()
def fill_network(
    network: FineTunedNetwork, fit: LinearFit, *, solved: bool, extremes: tuple[Tensor, Tensor] | None = None
) -> None:
    """Take the scaling of a fit, and its weights as the start of the head or, if `solved`, as the head.

    Args:
        network: the network to fill.
        fit: the linear head.
        solved: whether the linear head is the head.
        extremes: what `LinearFit.whitened_range` gives for the training states, for a network that bounds them.
    """
    weight = fit.weight
    if network.scaler is not None:
        network.scaler.mean.copy_(fit.mean)
        network.scaler.scale.copy_(fit.scale)
        if network.scaler.whitens:
            whitening, back = fit.whitening()
            network.scaler.get_buffer("whitening").copy_(whitening)
            weight = fit.weight @ back
        if network.scaler.bounded and extremes is not None:
            for name, bound in zip(("lowest", "highest"), extremes, strict=True):
                network.scaler.get_buffer(name).copy_(bound)
    head: Any = network.head
    layer = head.linears[0] if solved else network.start
    if layer is not None:
        layer.weight.copy_(weight)
        layer.bias.copy_(fit.bias)


def _metrics(fit: LinearFit, rows: StateRows, label_spec: LabelSpec) -> dict[str, float]:
    return metrics_and_table(label_spec, fit.outputs(rows), rows.labels)[0]
