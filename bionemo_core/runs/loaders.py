"""The batches of a run: training from a position on, validation, test."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bionemo_core.config.batch_plan import BatchPlan
from bionemo_core.config.schema import RunSpec
from bionemo_core.data.batches.loader import eval_loader, train_loader
from bionemo_core.data.batches.prefetch import Prefetcher
from bionemo_core.errors import ConfigError
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.protocols import DataSplits, Model, RecordDataset, Tokenizer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RunLoaders:
    """What this rank reads; the same global batches on any number of ranks."""

    spec: RunSpec
    plan: BatchPlan
    splits: DataSplits
    tokenizer: Tokenizer
    model: Model
    groups: ProcessGroups
    on_gpu: bool
    static_shapes: bool
    """Whether batches shall have one of few shapes, because layers are compiled for each."""

    def train(self, consumed_samples: int, first_step: int) -> StepStream:
        """Return the training batches from this position on."""
        return StepStream(
            lambda: train_loader(
                self.splits.train,
                self.tokenizer,
                self.model.objective,
                consumed_samples=consumed_samples,
                first_step=first_step,
                last_step=self.spec.trainer.max_steps,
                **self._shape(),
            )
        )

    def val(self) -> Any:
        """Return the validation batches, the same at every validation; None where there is no such split."""
        return self._evaluation(self.splits.val, self.spec.trainer.limit_val_batches)

    def test(self) -> Any:
        """The test batches; None where there is no such split."""
        return self._evaluation(self.splits.test, self.spec.trainer.limit_test_batches)

    def _evaluation(self, records: RecordDataset | None, limit: int) -> Any:
        if records is None or not len(records) or not limit:
            return None
        return eval_loader(records, self.tokenizer, self.model.objective, limit_batches=limit, **self._shape())

    def _shape(self) -> dict[str, Any]:
        batch = self.spec.batch
        seq_length = batch.seq_length or self.model.seq_length
        if seq_length > self.model.seq_length:
            raise ConfigError(
                f"batch.seq_length={seq_length} is longer than the model's {self.model.seq_length} positions; "
                "raise model.seq_length too."
            )
        return {
            "seq_length": seq_length,
            "micro_batch_size": self.plan.micro_batch_size,
            "global_batch_size": self.plan.global_batch_size,
            "packing": batch.packing,
            "pack_window": batch.pack_window,
            "dynamic_padding": batch.dynamic_padding,
            "static_shapes": self.static_shapes,
            "pin_memory": self.on_gpu,
            "seed": self.spec.seed,
            "num_workers": batch.num_workers,
            "dp_rank": self.groups.data_rank,
            "dp_size": self.groups.data_size,
        }


class StepStream:
    """A stream of steps without a length: Lightning would count the steps before a resume against it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        # Not kept alive: a walk that is dropped half way takes its loader's workers along.
        self._walk: weakref.ref[Prefetcher] | None = None

    def __iter__(self) -> Iterator[Any]:
        ahead = Prefetcher(iter(self._make()))
        self._walk = weakref.ref(ahead)
        return ahead

    def look_ahead(self, device: torch.device) -> None:
        """Fetch the batch that is asked for next, and start to copy it to the device, if it is not there yet."""
        ahead = self._walk() if self._walk is not None else None
        if ahead is not None:
            ahead.fetch(device)
