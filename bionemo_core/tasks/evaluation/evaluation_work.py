"""What the ranks of an evaluation compute together: losses, predictions, answers and scores of masked residues."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bionemo_core.config.schema import RunSpec
from bionemo_core.data.batches.batch import MicroBatch
from bionemo_core.data.labelled_records import LabelledRecords
from bionemo_core.inference.beam_writer import Written
from bionemo_core.inference.embedding import EmbeddingSettings
from bionemo_core.inference.scoring import MaskedScorer, scoring_tokens
from bionemo_core.inference.scoring_answers import Predictor
from bionemo_core.models.load import OpenedModel
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.runs.device import Device
from bionemo_core.runs.kept_results import KeptResults
from bionemo_core.runs.shared_work import SharedWork
from bionemo_core.tasks.evaluation.pair_evaluation import PairEvaluation
from bionemo_core.tasks.pair_answers import AnswerColumns
from bionemo_core.tasks.predict import keep_results, part_ranges
from bionemo_core.tasks.settings import Evaluate
from bionemo_core.training.losses import Losses, LossSums, MeanLosses

_LAST_STEP = 1 << 40
"""A step after the end of every loss schedule."""
_Piece = tuple[str, Any]
"""What is asked for, and of what."""


class Measured(NamedTuple):
    """What is measured on all micro batches of a split."""

    means: MeanLosses | None
    """The mean losses; None if no token counts."""
    metrics: dict[str, float]
    """The metrics of the module's probes."""
    table: list[dict[str, str]]
    """The metrics of each class or target."""


class EvaluationWork:
    """The model on each rank of an evaluation. Rank 0 leads: it reads the data, and gives every rank its share.

    Each rank sums the losses of its own micro batches in float64, and the sums of all ranks are added. So only the
    order of the additions differs from that of one rank; micro batches and their masks are the same.
    """

    def __init__(
        self,
        spec: RunSpec,
        task: Evaluate,
        opened: OpenedModel,
        device: Device,
        ranks: Ranks,
        pairs: PairEvaluation | None = None,
    ) -> None:
        """Take the model on every rank; `pairs` is how one that was fine-tuned on pairs is evaluated.

        Raises:
            ConfigError: the pseudo-perplexity is asked for, and the model has no masked-language head.
        """
        self.opened, self.ranks, self.spec, self.task, self.pairs = opened, ranks, spec, task, pairs
        self.module: Any = opened.module
        self._tokens = scoring_tokens(None, device.name == "cuda")
        self._sums, self._groups = LossSums(), start_groups()
        self._probes = getattr(self.module, "probes", ())
        for probe in self._probes:
            probe.reset()
        set_step = getattr(self.module.network, "set_step", None)
        if set_step is not None:  # weights without a known step are evaluated as after all schedules
            step = opened.facts.get("step")
            set_step(step if isinstance(step, int) else _LAST_STEP)
        if task.pseudo_perplexity:
            _ = self.scorer  # on every rank, so that all refuse a model that has no masks
        functions: dict[str, Callable[[Any], Any]] = {
            "losses": self._add,
            "means": lambda _: self._measured(),
            "predictions": lambda part: self.predictor.predict(*part),
            "answers": lambda sources: self.columns.predict(sources),
            "residues": lambda queries: self.scorer.answer_group(queries),
            "states": lambda texts: pairs.predictor.mean_states(*texts) if pairs else None,
            "features": lambda features: pairs.use(features) if pairs else None,
        }
        self._work: SharedWork[_Piece, Any] = SharedWork(ranks, lambda piece: functions[piece[0]](piece[1]))
        self._kept: KeptResults[_Piece, Any] = keep_results(self._work, task, opened, lambda result: result)

    def lead(self, task: Callable[[], None]) -> None:
        """Run the task on rank 0, while the other ranks compute what it shares.

        If a signal stops it, the same command computes the losses again, and of the other results those that lack.

        Raises:
            BioNeMoError: on rank 0, what the task or a rank raised.
        """
        self._kept.lead(task)

    def _share(self, kind: str, pieces: Iterable[Any]) -> Iterator[Any]:
        return self._kept.share((kind, piece) for piece in pieces)

    def measure(self, micro_batches: Iterable[MicroBatch]) -> Measured:
        """Compute the losses of a split and the metrics of the module's probes.

        Args:
            micro_batches: those of the ranks in turn, as many for each rank.
        """
        for _ in self._work.share(("losses", micro_batch) for micro_batch in micro_batches):
            pass
        measured: Measured = self._work.together(("means", None))
        return measured

    @torch.inference_mode()
    def _add(self, micro_batch: MicroBatch) -> None:
        micro_batch = micro_batch.to(next(self.module.parameters()).device)
        self._sums.add(Losses.of(self.module.network(micro_batch)), micro_batch)
        for probe in self._probes:
            probe.update(self.module.network, micro_batch)

    @torch.inference_mode()
    def _measured(self) -> Measured:
        """Compute the means and metrics over all ranks, which all call this at once."""
        means = self._sums.means(self._groups)
        metrics: dict[str, float] = {}
        table: list[dict[str, str]] = []
        for probe in self._probes:
            metrics |= probe.compute(self._groups)
            table += getattr(probe, "table", [])
        return Measured(means, metrics, table)

    @cached_property
    def predictor(self) -> Predictor:
        """What predicts, for a fine-tuned model; long sequences are cut."""
        settings = EmbeddingSettings(on_long="truncate", unknown="unk", tokens_per_batch=self._tokens)
        return Predictor(self.module, self.opened.tokenizer, settings)

    def predictions(self, sequences: Sequence[str | bytes], names: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return the predictions of a fine-tuned model, as `Predictor.predict` does."""
        parts = part_ranges([len(sequence) for sequence in sequences], self._tokens)
        pieces = ((sequences[part.start : part.stop], names[part.start : part.stop]) for part in parts)
        return list(itertools.chain.from_iterable(self._share("predictions", pieces)))

    def use_pairs(self, records: LabelledRecords) -> list[NDArray[np.float32]]:
        """Have the head read the features of pairs in `measure`, on every rank; return the predictions of the pairs.

        Raises:
            DataError: a sequence cannot be read.
        """
        assert self.pairs is not None
        predictor = self.pairs.predictor
        features = predictor.features(list(zip(records.sequences, records.seconds, strict=True)), self._mean_states)
        self._work.together(("features", features))
        return predictor.outputs_of(features)

    def _mean_states(self, side: int, texts: Sequence[bytes]) -> NDArray[np.float32]:
        parts = part_ranges([len(text) for text in texts], self._tokens)
        pieces = ((side, texts[part.start : part.stop]) for part in parts)
        return np.concatenate(list(self._share("states", pieces)))

    @cached_property
    def columns(self) -> AnswerColumns:
        """The answers of an encoder-decoder."""
        return AnswerColumns.of(self.opened, self.spec, self.task)

    def answers(self, sources: Iterable[list[str]]) -> Iterator[list[list[Written]]]:
        """Yield the answers to each list of sources, as `AnswerColumns.predict` does."""
        return map(Written.revive, self._share("answers", sources))

    @cached_property
    def scorer(self) -> MaskedScorer:
        """What masks single residues."""
        scorer = MaskedScorer(self.module, self.opened.tokenizer, self._tokens)
        scorer.share = partial(self._share, "residues")
        return scorer
