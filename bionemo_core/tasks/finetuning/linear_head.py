"""The linear head of a run: it scales frozen states, may be the head itself, and is what the run is compared with."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bionemo_core.data.labelled_records import LabelledSplits
from bionemo_core.finetuning.label_spec import MATCHING
from bionemo_core.finetuning.linear.baseline import (
    LINEAR,
    Baseline,
    fill_network,
    read_baseline,
    sampled,
    solve_baseline,
    split_rows,
)
from bionemo_core.finetuning.linear.solve import LinearFit
from bionemo_core.finetuning.objective import StoredStatesObjective
from bionemo_core.finetuning.state_cache import StatesTable, on_first_rank
from bionemo_core.plurals import format_count
from bionemo_core.runs.hooks import Built
from bionemo_core.tasks.finetuning.frozen_states import finetuned_network
from bionemo_core.tasks.settings import Finetune


class LinearHead:
    """The linear head of one run, and its metrics.

    Args:
        task: the settings of the task.
    """

    def __init__(self, task: Finetune) -> None:
        self.task = task
        self.resumed = False
        """Whether the weights are those of a checkpoint, so that nothing is solved."""
        self._baseline: Baseline | None = None

    def is_affordable(self, parts: Built, splits: LabelledSplits) -> bool:
        """Return whether frozen states take less time than the training of the encoder; say it if not."""
        number = sum(map(len, splits.parts().values()))
        steps = parts.spec.trainer.max_steps
        if self.resumed or number <= steps * (parts.spec.batch.global_batch_size or 1):
            return True
        states = f"the states of {format_count(number, 'sequence')}"
        say(parts, f"none: {states} take longer than {format_count(steps, 'step')} of training")
        return False

    def solve(self, parts: Built, splits: LabelledSplits, kept: StatesTable) -> StoredStatesObjective:
        """Solve the head on stored states, if anything needs it; return the objective over these states."""
        objective = StoredStatesObjective(parts.module.objective, kept.offsets)  # type: ignore[arg-type]
        rows = split_rows(splits, objective, kept)
        network, solved = finetuned_network(parts.module), self.task.head == LINEAR
        if self.resumed:
            self._baseline = read_baseline(parts.folder.path)
            return objective
        if not (solved or self.task.baseline or network.scaler or network.start):
            return objective
        measured = self.task.baseline and self.task.kind != MATCHING
        if not solved:
            rows = {**rows, "train": sampled(rows["train"], parts.spec.seed)}
        params: Any = parts.spec.model.params
        label_spec: Any = parts.module.answers
        penalty = params["head"]["params"].get("penalty") if solved else None
        bounded = network.scaler is not None and network.scaler.bounded

        def solve_and_measure() -> tuple[LinearFit, tuple[Tensor, Tensor] | None]:
            found = solve_baseline(rows, label_spec, params.get("class_weights"), penalty)
            return found, found.whitened_range(rows["train"]) if bounded else None

        fit, extremes = on_first_rank(solve_and_measure)
        fill_network(network, fit, solved=solved, extremes=extremes)
        if measured:
            self._baseline = Baseline.of(fit, rows, label_spec)
            if parts.trainer.is_global_zero:
                self._baseline.write(parts.folder.path)
            say(parts, self._baseline.text)
        return objective

    def repeat(self, parts: Built) -> None:
        """Say the metrics of the baseline again, beside those of the finished run."""
        if self._baseline is not None and self.task.head != LINEAR:
            say(parts, self._baseline.text)


def say(parts: Built, text: str) -> None:
    """Print a line about the baseline, on the first rank."""
    if parts.trainer.is_global_zero:
        print(f"{'baseline':>10}  {text}")
