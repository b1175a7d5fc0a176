"""The task `evaluate`: loss, perplexity, pseudo-perplexity and fine-tuning metrics on a split, and a report page."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bionemo_core._version import __version__
from bionemo_core.config.schema import OPENED, Choice, RunSpec
from bionemo_core.data.batches.batch import MicroBatch
from bionemo_core.data.batches.cuts import count_cuts
from bionemo_core.data.batches.loader import LoaderSettings, eval_loader
from bionemo_core.data.batches.pair_objective import learn_pairs
from bionemo_core.data.labelled_records import TARGET_SEPARATOR, LabelledRecords, refuse_labels
from bionemo_core.data.model_input import max_text_tokens
from bionemo_core.data.store.prepare import short_lived_stores
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.finetuning.class_metrics import write_table
from bionemo_core.finetuning.label_checks import LabelCheck
from bionemo_core.finetuning.label_spec import LabelSpec, label_spec_of
from bionemo_core.inference.scoring import scoring_tokens
from bionemo_core.inference.scoring_answers import Predictor
from bionemo_core.io.atomic import write_json, write_text
from bionemo_core.io.plots import optional_picture
from bionemo_core.io.results_folder import fill_folder, is_unfinished
from bionemo_core.models.load import OpenedModel
from bionemo_core.nn.missing_weights import require_weights
from bionemo_core.nn.residue_states import encoder_network, encoder_of, may_pack
from bionemo_core.parallel.weights import network_of
from bionemo_core.plurals import format_count
from bionemo_core.protocols import DataSplits, RecordDataset, Tokenizer
from bionemo_core.reporting.html import Figure, page
from bionemo_core.runs.device import Device, choose_device
from bionemo_core.runs.launch import opening_on_all_ranks
from bionemo_core.runs.plan_text import quieten_libraries
from bionemo_core.tasks.evaluation.evaluation_pictures import plot_predictions, plot_pseudo_perplexities
from bionemo_core.tasks.evaluation.evaluation_work import EvaluationWork
from bionemo_core.tasks.evaluation.pair_evaluation import PairEvaluation
from bionemo_core.tasks.opening import open_for_use, start_workers, weights_fingerprint
from bionemo_core.tasks.pair_answers import write_pair_answers
from bionemo_core.tasks.predict import PREDICTIONS, write_csv
from bionemo_core.tasks.settings import Evaluate
from bionemo_core.tasks.unread_keys import refuse_unread

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

log = logging.getLogger("bionemo")

SPLITS = ("train", "val", "test")


def evaluate(spec: RunSpec, registry: Registry, *, composed_yaml: str = "") -> None:
    """Run the task: write the folder `task.output`.

    Raises:
        BioNeMoError: the task failed.
    """
    quieten_libraries()
    task = Evaluate(**spec.task.params)
    folder = Path(task.output).expanduser()
    if folder.exists() and not task.overwrite and not is_unfinished(folder):
        raise ConfigError(f"task.output={folder}: already exists. Choose another name, or set task.overwrite=true.")
    if task.split not in SPLITS:
        raise ConfigError(f"task.split: got {task.split!r}, expected one of {', '.join(SPLITS)}.")
    device = choose_device(spec)
    ranks = start_workers(spec, device)
    opened = open_for_use(spec, registry, device, ranks)
    _check_weights(opened)
    if label_spec_of(opened.module) is None:
        refuse_unread(task, ("on_bad_label",), "by a model that was not fine-tuned")
    with opening_on_all_ranks():
        tokens = scoring_tokens(None, device.name == "cuda")
        pairs = PairEvaluation.of(task, opened, registry, spec.home, tokens)
    work = EvaluationWork(spec, task, opened, device, ranks, pairs)
    work.lead(lambda: _evaluate(spec, task, work, registry, device))


def _evaluate(spec: RunSpec, task: Evaluate, work: EvaluationWork, registry: Registry, device: Device) -> None:
    """Read the data, and write the folder of results; only rank 0 does this."""
    opened, pairs = work.opened, work.pairs
    data, seed = _choose_data(spec, opened)
    tokenizer = opened.tokenizer if pairs is None else pairs.tokenizer
    splits = _build_splits(data, seed, spec, registry, device, opened, tokenizer)
    if label_spec_of(opened.module) is None:
        refuse_labels(splits, "the evaluation of a model that was not fine-tuned")
    learn_pairs(opened.module, splits, opened.tokenizer, opened.spec.model.name)
    of_pairs = bool(getattr(splits.train, "pairs", False))
    if not of_pairs:
        refuse_unread(task, ("beam_size", "beam_alpha"), "by data that are not pairs")
    records: RecordDataset | None = getattr(splits, task.split)
    if records is None or not len(records):
        raise ConfigError(f"task.split={task.split}: the data set {data.name!r} has no such split.")
    _check_same_kind(pairs, records)
    if (label_spec := label_spec_of(opened.module)) and isinstance(records, LabelledRecords):
        check = LabelCheck(opened.tokenizer, label_spec, task.on_bad_label)
        records = check.parts({task.split: records.unchanged()})[task.split]
    evaluation = _Evaluation(spec, task, work, device, data.name, seed)
    columns = work.columns if of_pairs and task.beam_size else None
    folder = Path(task.output).expanduser()
    with fill_folder(folder, "task.output"):
        evaluation.measure(records)
        if evaluation.label_spec:
            assert isinstance(records, LabelledRecords)
            evaluation.predict(records, folder)
        if columns is not None:
            evaluation.metrics |= write_pair_answers(records, columns, folder / PREDICTIONS, work.answers)
        if task.pseudo_perplexity:
            evaluation.pseudo_perplexity(records, task.pseudo_perplexity)
        evaluation.write(folder, len(records))


def _check_same_kind(pairs: PairEvaluation | None, records: RecordDataset) -> None:
    """Check that model and data are both of single sequences, or both of labelled pairs.

    Raises:
        ConfigError: they are not.
    """
    if bool(getattr(records, "seconds", None)) != (pairs is not None):
        what, others = ("single sequences", "pairs") if pairs is None else ("pairs of sequences", "no pairs")
        raise ConfigError(
            f"task=evaluate: the model reads {what}, but the data are {others}. Choose data=labelled_pairs for a model "
            "that was fine-tuned on pairs, and other data for other models."
        )


def _check_weights(opened: OpenedModel) -> None:
    """Check that all weights are there that the loss, or the predictions of a fine-tuned model, depend on.

    Raises:
        ArtefactError: one was not loaded.
    """
    network = network_of(opened.module)
    encoder = encoder_network(network)
    require_weights(network, "task=evaluate")
    if encoder is not network:
        require_weights(encoder, "task=evaluate", encoder_of(encoder).unread)


def _choose_data(spec: RunSpec, opened: OpenedModel) -> tuple[Choice, int]:
    """Return the chosen data, else the training data of the model, and the seed of the splits."""
    if spec.data.name != OPENED:
        if opened.data is not None and spec.data.name == "sample" != opened.data.name:  # it may be the default
            log.warning("Evaluating on the bundled sample, but the model was trained on data=%s.", opened.data.name)
        return spec.data, spec.seed
    if opened.data is None:
        source = spec.task.params.get("adapter") or spec.restore_from_path
        raise ConfigError(
            f"task=evaluate: {source} does not record its training data. Choose the data to evaluate on: "
            "data=NAME data.path=FILE."
        )
    return opened.data, opened.facts.get("seed", spec.seed)


def _build_splits(
    data: Choice,
    seed: int,
    spec: RunSpec,
    registry: Registry,
    device: Device,
    opened: OpenedModel,
    tokenizer: Tokenizer,
) -> DataSplits:
    """Build the splits; check that training data of the model are unchanged."""
    own = spec.data.name == OPENED
    context = replace(device.context(spec), seed=seed)
    try:
        with short_lived_stores():
            splits: DataSplits = registry.build(data, tokenizer=tokenizer, context=context)
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
    """The results so far."""

    spec: RunSpec
    task: Evaluate
    work: EvaluationWork
    device: Device
    data: str
    """The name of the data set."""
    seed: int
    """The seed of the splits and of the masks."""
    metrics: dict[str, float] = field(default_factory=dict)
    classes: list[dict[str, str]] = field(default_factory=list)
    """The metrics of each class or target."""
    figures: list[Figure] = field(default_factory=list)
    cuts: str = ""
    """How many sequences the objective cuts; empty: none."""
    used: Any = None
    """Of a model of labelled pairs: the pairs that the metrics cover, and their predictions."""
    evaluated: int = 0
    """The number of sequences that the metrics cover."""

    @property
    def opened(self) -> OpenedModel:
        return self.work.opened

    @property
    def module(self) -> Any:
        return self.opened.module

    @property
    def label_spec(self) -> LabelSpec | None:
        """The label spec of a fine-tuned model; None for other models."""
        return label_spec_of(self.module)

    @property
    def max_residues(self) -> int:
        """The length in residues of the longest sequence that a fine-tuned model takes without truncation."""
        return max_text_tokens(self.module, sum(self.module.network.encoder.form.terminals))

    def measure(self, records: RecordDataset) -> None:
        """Compute the loss over the whole split, as a validation does, and the metrics of the module's probes."""
        if self.label_spec and not isinstance(records, LabelledRecords):
            raise ConfigError(
                "data: evaluating a fine-tuned model needs labels. Choose data=labelled_csv or data=flip_fasta."
            )
        module, batch = self.module, self.spec.batch
        if self.work.pairs is not None:
            assert isinstance(records, LabelledRecords)
            used = self.work.pairs.fitting(records, self.task.split)
            self.used = used, self.work.use_pairs(used)
            records = used  # type: ignore[assignment]  # a labelled record takes the place of a text
        elif self.label_spec:
            records = records.drop_longer(self.max_residues, self.task.split, self.opened.tokenizer)  # type: ignore[attr-defined]
        self.evaluated = len(records)
        cuts = count_cuts(records, module.objective, batch.seq_length or module.seq_length)
        self.cuts = cuts.text if cuts is not None else ""
        measured = self.work.measure(self._micro_batches(records))
        means = measured.means
        if means is not None:
            self.metrics["loss"] = means.loss
            self.metrics |= means.logged
            if not self.label_spec:
                self.metrics["perplexity"] = math.exp(min(means.tokens, 700.0))
        self.metrics |= measured.metrics
        self.classes += measured.table

    def _micro_batches(self, records: RecordDataset) -> Iterator[MicroBatch]:
        """Yield the micro batches of the ranks in turn: the same for any number of ranks, and empty ones at the end."""
        module, batch, size = self.module, self.spec.batch, self.work.ranks.size
        loaders = [
            eval_loader(
                records,
                self.opened.tokenizer,
                module.objective,
                LoaderSettings(
                    seq_length=batch.seq_length or module.seq_length,
                    micro_batch_size=batch.micro_batch_size,
                    global_batch_size=batch.micro_batch_size * size,
                    packing=batch.packing and may_pack(module),
                    pack_window=batch.pack_window,
                    dynamic_padding=batch.dynamic_padding,
                    seed=self.seed,
                    num_workers=batch.num_workers,
                    dp_rank=rank,
                    dp_size=size,
                ),
            )
            for rank in range(size)
        ]
        for steps in zip(*loaders, strict=True):
            for step in steps:
                yield from step.micro_batches

    def predict(self, records: LabelledRecords, folder: Path) -> None:
        """Write every prediction beside its label; plot those of untruncated sequences, which the metrics cover.

        Pairs that are too long for a model have none.
        """
        predictor: Predictor
        if self.work.pairs is None:
            predictor = self.work.predictor
            predictions = self.work.predictions(records.sequences, records.ids)
            cut = [predictor.is_long(sequence) for sequence in records.sequences]
        else:
            predictor, (records, predictions) = self.work.pairs.predictor, self.used
            cut = [False] * len(records)
        rows = [
            [name, *label.split(TARGET_SEPARATOR), *predictor.row(prediction), str(int(too_long))]
            for name, label, prediction, too_long in zip(records.ids, records.labels, predictions, cut, strict=True)
        ]
        label_names = [f"label_{name}" for name in records.targets] or ["label"]
        write_csv(folder / PREDICTIONS, ["id", *label_names, *predictor.header(), "truncated"], rows)
        kept = [row for row, too_long in enumerate(cut) if not too_long]
        if self.label_spec.matching:  # a cosine without a label to compare it with
            return
        objective = getattr(self.module.objective, "inner", self.module.objective)
        with optional_picture("The picture of the predictions"):
            self.figures += plot_predictions(objective, records, predictions, kept)

    def pseudo_perplexity(self, records: RecordDataset, count: int) -> None:
        """Mask each residue alone, in the first `count` sequences that fit the model."""
        scorer = self.work.scorer
        chosen: list[str] = []
        too_long = 0
        for row in range(len(records)):
            record: Any = records[row]
            text = getattr(record, "sequence", record)
            text = text.decode("latin-1") if isinstance(text, bytes) else text
            if len(self.opened.tokenizer.encode(text)) <= scorer.seq_length - 2:
                chosen.append(text)
            else:
                too_long += 1
            if len(chosen) == count:
                break
        if not chosen:
            raise ConfigError("task.pseudo_perplexity: no sequence of the split is short enough for the model.")
        if too_long:
            log.warning(
                "The pseudo-perplexity leaves out %s too long for the model.", format_count(too_long, "sequence")
            )
        scores = list(scorer.pseudo_log_likelihoods(chosen))
        total = -float(np.concatenate(scores).mean(dtype=np.float64))
        self.metrics |= {"pseudo_perplexity": math.exp(total), "pseudo_perplexity_sequences": float(len(chosen))}
        each = np.array([math.exp(-float(score.mean())) for score in scores])
        of_residue: dict[str, list[float]] = {}
        for text, score in zip(chosen, scores, strict=True):
            for letter, value in zip(text, score.tolist(), strict=False):
                of_residue.setdefault(letter, []).append(-value)
        means = {letter: float(np.mean(values)) for letter, values in of_residue.items()}
        with optional_picture("The picture of the pseudo-perplexities"):
            self.figures += plot_pseudo_perplexities(each, np.array([float(len(text)) for text in chosen]), means)

    def _sequences(self, num_records: int) -> str:
        if self.evaluated == num_records:
            return format_count(num_records, "sequence")
        return f"{self.evaluated:,} of {format_count(num_records, 'sequence')}, those that fit the model"

    def write(self, folder: Path, num_records: int) -> None:
        """Write metrics and report to the folder.

        Raises:
            StorageError: the metrics cannot be written.
        """
        facts = {
            "model": f"{self.opened.spec.model.name} ({self.opened.spec.model.distribution})",
            "weights": self.spec.restore_from_path or "random",
            "data": f"{self.data}, {self.task.split}: {self._sequences(num_records)}",
            **({"cut": self.cuts} if self.cuts else {}),
            "made by": f"bionemo-run {__version__}, {self.device.name}, precision {self.device.precision}",
        }
        content = {
            **facts,
            "weights": Path(facts["weights"]).name,
            "fingerprint": weights_fingerprint(self.module),
            "step": self.opened.facts.get("step"),
            "seed": self.seed,
            "metrics": self.metrics,
        }
        write_json(folder / "metrics.json", content, indent=2)
        self.opened.report.write(folder)
        table = write_table(folder, self.classes) if self.classes else ""
        report = folder / "report.html"
        with optional_picture(report):
            write_text(report, page(f"Evaluation of {facts['model']}", facts, self.metrics, self.figures))
        width = max(map(len, self.metrics), default=0)
        print("\n".join(f"{name:>{width}}  {value:.5g}" for name, value in self.metrics.items()))
        if table:
            print(table)
        if self.cuts:
            print(f"cut: {self.cuts}")
        print(report if report.exists() else folder / "metrics.json")
