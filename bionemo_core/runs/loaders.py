"""The data loaders of a run: training from a given position, validation and test."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bionemo_core.config.batch_plan import BatchPlan
from bionemo_core.config.schema import RunSpec
from bionemo_core.data.batches.loader import LoaderSettings, eval_loader, train_loader
from bionemo_core.data.batches.prefetch import Prefetcher
from bionemo_core.errors import ConfigError
from bionemo_core.nn.residue_states import may_pack
from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.protocols import DataSplits, Model, RecordDataset, Tokenizer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RunLoaders:
    """The loaders of this rank; the global batches are the same for any number of ranks."""

    spec: RunSpec
    plan: BatchPlan
    splits: DataSplits
    tokenizer: Tokenizer
    model: Model
    groups: ProcessGroups
    on_gpu: bool
    static_shapes: bool
    """Whether to use few batch shapes, because layers are compiled for each."""

    def train(self, consumed_samples: int, first_step: int) -> StepStream:
        """Return the training batches after `consumed_samples`."""
        return StepStream(
            lambda: train_loader(
                self.splits.train,
                self.tokenizer,
                self.model.objective,
                self.settings(),
                consumed_samples=consumed_samples,
                first_step=first_step,
                last_step=self.spec.trainer.max_steps,
            )
        )

    def val(self) -> Any:
        """Return the validation batches, the same at every validation; None without a validation split."""
        return self._evaluation(self.splits.val, self.spec.trainer.limit_val_batches)

    def test(self) -> Any:
        """Return the test batches; None without a test split."""
        return self._evaluation(self.splits.test, self.spec.trainer.limit_test_batches)

    def _evaluation(self, records: RecordDataset | None, limit: int) -> Any:
        if records is None or not len(records) or not limit:
            return None
        return eval_loader(records, self.tokenizer, self.model.objective, self.settings(), limit_batches=limit)

    def settings(self) -> LoaderSettings:
        """Return the settings of all loaders.

        Raises:
            ConfigError: rows are longer than the model reads, or the model cannot pack.
        """
        batch = self.spec.batch
        seq_length = batch.seq_length or self.model.seq_length
        if seq_length > self.model.seq_length:
            raise ConfigError(
                f"batch.seq_length={seq_length} is longer than the model's {self.model.seq_length} positions; "
                "raise model.seq_length too."
            )
        if batch.packing and not may_pack(self.model):
            raise ConfigError(
                "batch.packing=true: the encoder does not declare 'packing', so its sequences would change each other. "
                "Use batch.packing=false."
            )
        return LoaderSettings(
            seq_length=seq_length,
            micro_batch_size=self.plan.micro_batch_size,
            global_batch_size=self.plan.global_batch_size,
            packing=batch.packing,
            pack_window=batch.pack_window,
            dynamic_padding=batch.dynamic_padding,
            static_shapes=self.static_shapes,
            pin_memory=self.on_gpu,
            seed=self.spec.seed,
            num_workers=batch.num_workers,
            dp_rank=self.groups.data_rank,
            dp_size=self.groups.data_size,
        )


class StepStream:
    """The training batches, without a length: Lightning would subtract the steps before a resume from it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        # A weak reference, so that the loader's workers end with an iteration that stops half way.
        self._prefetcher: weakref.ref[Prefetcher] | None = None

    def __iter__(self) -> Iterator[Any]:
        prefetcher = Prefetcher(iter(self._make()))
        self._prefetcher = weakref.ref(prefetcher)
        return prefetcher

    def look_ahead(self, device: torch.device) -> None:
        """Fetch the next batch and start to copy it to the device, unless that is done."""
        prefetcher = self._prefetcher() if self._prefetcher is not None else None
        if prefetcher is not None:
            prefetcher.fetch(device)
