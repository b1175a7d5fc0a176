"""Measure a model on a split: loss, perplexity, a fine-tuned model's metrics, pseudo-perplexity, and a report page."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from bionemo_core._version import __version__
from bionemo_core.config.schema import OPENED, Choice, RunSpec
from bionemo_core.data.batches.loader import eval_loader
from bionemo_core.data.labelled_records import LabelledRecords
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.embedding import EmbeddingSettings
from bionemo_core.inference.scoring import MaskedScorer
from bionemo_core.inference.scoring_answers import Predictor
from bionemo_core.io.atomic import write_json, write_text
from bionemo_core.models.load import OpenedModel
from bionemo_core.nn.residue_states import encoder_of
from bionemo_core.parallel.groups import start_groups
from bionemo_core.protocols import DataSplits, RecordDataset
from bionemo_core.reporting.html import Figure, bars, confusion, histogram, page, points, scatter
from bionemo_core.runs.device import Device, choose_device
from bionemo_core.runs.plan_text import quieten_libraries
from bionemo_core.tasks.opening import open_for_use, single_process, weights_fingerprint
from bionemo_core.tasks.predict import write_csv
from bionemo_core.tasks.settings import Evaluate
from bionemo_core.training.losses import Losses, LossSums

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

log = logging.getLogger("bionemo")

SPLITS = ("train", "val", "test")
_LAST_STEP = 1 << 40
"""Later than any ramp of a loss ends."""


def evaluate(spec: RunSpec, registry: Registry, *, composed_yaml: str = "") -> None:
    """Run the task: fill the folder `task.output`.

    Raises:
        BioNeMoError: every failure that a user can meet.
    """
    quieten_libraries()
    task = Evaluate(**spec.task.params)
    folder = Path(task.output).expanduser()
    if folder.exists() and not task.overwrite:
        raise ConfigError(f"task.output={folder}: already exists. Choose another name, or set task.overwrite=true.")
    if task.split not in SPLITS:
        raise ConfigError(f"task.split: got {task.split!r}, expected one of {', '.join(SPLITS)}.")
    if task.pseudo_perplexity is not None and task.pseudo_perplexity < 0:
        raise ConfigError(f"task.pseudo_perplexity: got {task.pseudo_perplexity}, expected a number of sequences.")
    device = choose_device(spec)
    opened = open_for_use(spec, registry, device, single_process(spec, device))
    data, seed = _data(spec, opened)
    splits = _splits(data, seed, spec, registry, device, opened)
    records: RecordDataset | None = getattr(splits, task.split)
    if records is None or not len(records):
        raise ConfigError(f"task.split={task.split}: the data set {data.name!r} has no such split.")
    evaluation = _Evaluation(spec, task, opened, device, data.name, seed)
    scorer = evaluation.scorer() if task.pseudo_perplexity else None
    evaluation.measure(records)
    if evaluation.answers:
        assert isinstance(records, LabelledRecords)
        evaluation.predict(records, folder)
    if scorer is not None and task.pseudo_perplexity:
        evaluation.pseudo_perplexity(records, task.pseudo_perplexity, scorer)
    evaluation.write(folder, len(records))


def _data(spec: RunSpec, opened: OpenedModel) -> tuple[Choice, int]:
    """Return the data that are chosen, or else those that the run was trained on, and the seed of their splits."""
    if spec.data.name != OPENED:
        if opened.data is not None and spec.data.name == "sample" != opened.data.name:  # maybe nobody chose it
            log.warning("Evaluating on the embedded sample, but the model was trained on data=%s.", opened.data.name)
        return spec.data, spec.seed
    if opened.data is None:
        source = spec.task.params.get("adapter") or spec.restore_from_path
        raise ConfigError(
            f"task=evaluate: {source} does not record its training data. Choose the data to evaluate on: "
            "data=NAME data.path=FILE."
        )
    return opened.data, opened.facts.get("seed", spec.seed)


def _splits(
    data: Choice, seed: int, spec: RunSpec, registry: Registry, device: Device, opened: OpenedModel
) -> DataSplits:
    """Return the data; where they are the run's own, it is made sure that they still are what it was trained on."""
    own = spec.data.name == OPENED
    try:
        splits: DataSplits = registry.build(
            data, tokenizer=opened.tokenizer, context=replace(device.context(spec), seed=seed)
        )
    except DataError as error:
        if not own:
            raise
        raise DataError(
            f"the training data of {spec.restore_from_path}: {error} Or choose other data: data=NAME data.path=FILE."
        ) from error
    then = opened.facts.get("data_fingerprint", splits.fingerprint)
    if own and then != splits.fingerprint:
        raise ConfigError(
            f"task=evaluate: the training data of {spec.restore_from_path} changed (fingerprint {then} then, "
            f"{splits.fingerprint} now), so its splits are different. Put the old files back, or choose the data to "
            "evaluate on: data=NAME data.path=FILE."
        )
    return splits


@dataclass
class _Evaluation:
    """What was measured so far."""

    spec: RunSpec
    task: Evaluate
    opened: OpenedModel
    device: Device
    data: str
    """The name of the data set."""
    seed: int
    """Of its splits and of the masks."""
    metrics: dict[str, float] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    evaluated: int = 0
    """Sequences that the metrics are of."""

    @property
    def module(self) -> Any:
        return self.opened.module

    @property
    def answers(self) -> Any:
        """What a fine-tuned model's answers mean; None for a model without a head of that kind."""
        return getattr(self.module, "answers", None)

    @property
    def longest(self) -> int:
        """Residues of the longest sequence that a fine-tuned model takes whole."""
        return int(self.module.seq_length) - (2 if encoder_of(self.module.network).framed else 0)

    @torch.inference_mode()
    def measure(self, records: RecordDataset) -> None:
        """Compute the loss over the whole split, as a validation does, and the metrics of the module's probes."""
        if self.answers and not isinstance(records, LabelledRecords):
            raise ConfigError(
                "data: evaluating a fine-tuned model needs labels. Choose data=labelled_csv or data=flip_fasta."
            )
        module, batch = self.module, self.spec.batch
        if self.answers:
            records = records.drop_longer(self.longest, self.task.split, self.opened.tokenizer)  # type: ignore[attr-defined]
        self.evaluated = len(records)
        loader = eval_loader(
            records,
            self.opened.tokenizer,
            module.objective,
            seq_length=batch.seq_length or module.seq_length,
            micro_batch_size=batch.micro_batch_size,
            global_batch_size=batch.micro_batch_size,
            packing=batch.packing,
            pack_window=batch.pack_window,
            dynamic_padding=batch.dynamic_padding,
            seed=self.seed,
            num_workers=batch.num_workers,
        )
        tell = getattr(module.network, "set_step", None)
        if tell is not None:  # as the validation of that step; of weights that do not say theirs, as after all ramps
            step = self.opened.facts.get("step")
            tell(step if isinstance(step, int) else _LAST_STEP)
        sums, groups = LossSums(), start_groups()
        probes = getattr(module, "probes", ())
        for probe in probes:
            probe.reset()
        for step in loader:
            for micro_batch in step.to(next(module.parameters()).device).micro_batches:
                sums.add(Losses.of(module.network(micro_batch)), micro_batch)
                for probe in probes:
                    probe.update(module.network, micro_batch)
        means = sums.means(groups)
        if means is not None:
            self.metrics["loss"] = means.loss
            self.metrics |= means.logged
            if not self.answers:
                self.metrics["perplexity"] = math.exp(min(means.tokens, 700.0))
        for probe in probes:
            self.metrics |= probe.compute(groups)

    def predict(self, records: LabelledRecords, folder: Path) -> None:
        """Write every prediction beside its label, and draw those of whole sequences, which the metrics are of."""
        settings = EmbeddingSettings(on_long="truncate", unknown="unk")
        predictor = Predictor(self.module, self.opened.tokenizer, settings)
        answers = predictor.answers(records.sequences, records.ids)
        cut = [self._is_too_long(sequence) for sequence in records.sequences]
        rows = [
            [name, label, *predictor.row(answer), str(int(too_long))]
            for name, label, answer, too_long in zip(records.ids, records.labels, answers, cut, strict=True)
        ]
        write_csv(folder / "predictions.csv", ["id", "label", *predictor.header(), "truncated"], rows)
        kept = [row for row, too_long in enumerate(cut) if not too_long]
        self.figures += _drawn(self.module.objective, records, answers, kept)

    def _is_too_long(self, sequence: bytes) -> bool:
        """Whether the model takes only the beginning; letters are an upper bound of tokens."""
        return len(sequence) > self.longest and len(self.opened.tokenizer.encode(sequence)) > self.longest

    def scorer(self) -> MaskedScorer:
        """Return the scorer that asks the model about single residues.

        Raises:
            ConfigError: it has no masked-language head.
        """
        return MaskedScorer(self.module, self.opened.tokenizer, 65_536 if self.device.name == "cuda" else 4_096)

    def pseudo_perplexity(self, records: RecordDataset, count: int, scorer: MaskedScorer) -> None:
        """Mask each residue alone, on the first sequences that the model can take whole."""
        chosen: list[str] = []
        for row in range(len(records)):
            record: Any = records[row]
            text = getattr(record, "sequence", record)
            text = text.decode("latin-1") if isinstance(text, bytes) else text
            if len(self.opened.tokenizer.encode(text)) <= scorer.seq_length - 2:
                chosen.append(text)
            if len(chosen) == count:
                break
        if not chosen:
            raise ConfigError("task.pseudo_perplexity: no sequence of the split is short enough for the model.")
        scores = [scorer.pseudo_log_likelihood(text) for text in chosen]
        total = -float(np.concatenate(scores).mean(dtype=np.float64))
        self.metrics |= {"pseudo_perplexity": math.exp(total), "pseudo_perplexity_sequences": float(len(chosen))}
        each = np.array([math.exp(-float(score.mean())) for score in scores])
        of_residue: dict[str, list[float]] = {}
        for text, score in zip(chosen, scores, strict=True):
            for letter, value in zip(text, score.tolist(), strict=False):
                of_residue.setdefault(letter, []).append(-value)
        lengths = np.array([len(text) for text in chosen])
        self.figures += [
            histogram(each, "pseudo-perplexity", "Pseudo-perplexity of the sequences."),
            points(lengths, each, ("residues", "pseudo-perplexity"), "Pseudo-perplexity by length."),
            bars(
                {letter: float(np.mean(values)) for letter, values in of_residue.items()},
                "nats",
                "Mean of -log p of each residue when it alone is masked.",
            ),
        ]

    def _sequences(self, num_records: int) -> str:
        if self.evaluated == num_records:
            return f"{num_records:,} sequences"
        return f"{self.evaluated:,} of {num_records:,} sequences, those that fit the model"

    def write(self, folder: Path, num_records: int) -> None:
        """Leave metrics and report in the folder.

        Raises:
            StorageError: the file system refuses.
        """
        facts = {
            "model": f"{self.opened.spec.model.name} ({self.opened.spec.model.distribution})",
            "weights": self.spec.restore_from_path or "random",
            "data": f"{self.data}, {self.task.split}: {self._sequences(num_records)}",
            "made by": f"bionemo-run {__version__}, {self.device.name}, precision {self.device.precision}",
        }
        told = {
            **facts,
            "weights": Path(facts["weights"]).name,
            "fingerprint": weights_fingerprint(self.module),
            "step": self.opened.facts.get("step"),
            "seed": self.seed,
            "metrics": self.metrics,
        }
        write_json(folder / "metrics.json", told, indent=2)
        write_text(folder / "report.html", page(f"Evaluation of {facts['model']}", facts, self.metrics, self.figures))
        width = max(map(len, self.metrics), default=0)
        print("\n".join(f"{name:>{width}}  {value:.5g}" for name, value in self.metrics.items()))
        print(f"{folder / 'report.html'}")


def _drawn(
    objective: Any, records: LabelledRecords, answers: list[NDArray[np.float32]], rows: list[int]
) -> list[Figure]:
    """Return the figures of a fine-tuned model's answers for some rows."""
    meaning = objective.answers
    predicted, labels = [], []
    for row in rows:
        values, counts = objective.targets(records[row], len(answers[row]))
        if meaning.of_classes:
            predicted.append(answers[row].argmax(-1)[counts])
            labels.append(values[counts].astype(np.int64))
        else:
            predicted.append(answers[row][counts, 0].astype(np.float64))
            labels.append(values[counts].view(np.float32) * meaning.scale + meaning.mean)
    if not rows:
        return []
    if meaning.of_classes:
        return confusion(np.concatenate(predicted), np.concatenate(labels), meaning.classes)
    return scatter(np.concatenate(predicted), np.concatenate(labels).astype(np.float64))
