"""The Python interface: the tasks of the command as functions, for a notebook or a script.

`import bionemo_core` offers the same functions: `bionemo_core.open_model("RUN")`. Importing this module is cheap; torch
is imported when a function runs. Every failure that a user can meet is a `bionemo_core.errors.BioNeMoError`.

A setting is written as on the command line, `"trainer.max_steps=100"`, or in a mapping, `{"trainer.max_steps": 100}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bionemo_core.builtin import load_registry
from bionemo_core.cli.failures import classify
from bionemo_core.cli.run import compose, run_task
from bionemo_core.machine import device as default_device

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bionemo_core.config.schema import Choice
    from bionemo_core.models.load import OpenedModel
    from bionemo_core.tasks.training_parts import TrainingParts

__all__ = [
    "build",
    "convert",
    "embed",
    "evaluate",
    "finetune",
    "open_model",
    "predict",
    "sample",
    "score",
    "train",
]

Settings = str | Mapping[str, object]
"""One setting as it is typed, or several as a mapping from keys to values; a group may be a mapping of its own keys."""

_PLAIN_TEXT = re.compile(r"[\w/.+*@%-]*")


def open_model(
    path: str | PathLike[str],
    *,
    device: str = "auto",
    dtype: str = "float32",
    strict: bool = True,
    overrides: Mapping[str, Any] | None = None,
    connector: Choice | None = None,
    home: str = "",
) -> OpenedModel:
    """Open a model with its weights, in evaluation mode; `.module` is its `LightningModule`.

    Args:
        path: a run folder, a checkpoint folder, an artefact, a `.nemo` archive, a Hugging Face folder or id, or an
            address.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.
        dtype: float32, bfloat16 or float16, of weights and computation.
        strict: fail if a tensor is missing or unexpected.
        overrides: parameters of the model that replace those it was saved with.
        connector: the connector that reads a foreign format; None: the one that recognises the model.
        home: the folder of downloads; empty: $BIONEMO_HOME or ~/.bionemo.

    Raises:
        BioNeMoError: `path` is not a model, or it cannot be loaded.
    """
    from bionemo_core.models.load import open_model as open_with

    return open_with(
        str(path),
        load_registry(),
        device=_device(device),
        dtype=dtype,
        strict=strict,
        overrides=overrides,
        connector=connector,
        home=home,
    )


def embed(
    model: OpenedModel | str | PathLike[str],
    sequences: Sequence[str | bytes],
    *,
    device: str = "cpu",
    canonicalize: bool = True,
    **settings: Any,
) -> NDArray[np.float32]:
    """Return the embedding of each sequence, float32 [sequences, hidden]; see `docs/embeddings.md`.

    Args:
        model: an opened model, or the path of one.
        sequences: residues in either case, or texts such as SMILES.
        device: where a model that is given by its path computes.
        canonicalize: read texts in the canonical form of the tokenizer, if it has one.
        settings: fields of `bionemo_core.inference.embedding.EmbeddingSettings`.

    Raises:
        BioNeMoError: the model cannot be loaded, or a sequence cannot be used.
    """
    from bionemo_core.inference.embedding import embed as embed_with

    opened = _opened(model, device)
    return embed_with(opened.module, opened.tokenizer, sequences, canonicalize=canonicalize, **settings)


def predict(
    model: OpenedModel | str | PathLike[str],
    sequences: Sequence[str | bytes] | Sequence[tuple[str | bytes, str | bytes]],
    *,
    second_model: OpenedModel | str | PathLike[str] | None = None,
    device: str = "cpu",
    **settings: Any,
) -> list[NDArray[np.float32]]:
    """Return a fine-tuned model's prediction for each sequence or pair: float32 [1, outputs], or [residues, outputs].

    Outputs are the probabilities of the classes, whose names are `model.module.answers.classes`, or values in the units
    of the labels.

    Args:
        model: an opened model, or the path of one.
        sequences: residues in either case, or texts such as SMILES; pairs of them for a model that was fine-tuned on
            pairs.
        second_model: as `task.second_model`.
        device: where a model that is given by its path computes.
        settings: fields of `bionemo_core.inference.embedding.EmbeddingSettings`.

    Raises:
        BioNeMoError: the model has no prediction head, or a sequence cannot be used.
    """
    from bionemo_core.finetuning.pairs.predictor import predictor_of
    from bionemo_core.finetuning.pairs.second_model import open_second_for
    from bionemo_core.inference.embedding import EmbeddingSettings

    opened = _opened(model, device)
    named = str(second_model) if isinstance(second_model, str | PathLike) else second_model
    second = open_second_for(opened, named, load_registry())
    predictor = predictor_of(opened, EmbeddingSettings.named(**settings), second)
    return predictor.predict(predictor.clean(sequences))


def score(
    model: OpenedModel | str | PathLike[str],
    sequences: Sequence[str],
    *,
    wild_type: str | None = None,
    scoring: str = "masked_marginals",
    device: str = "cpu",
) -> NDArray[np.float64]:
    """Return a score for each sequence, or for each variant of a wild type, float64 [sequences]; higher is likelier.

    Without `wild_type` a score is the pseudo-log-likelihood in nats: the sum over residues of the log-probability of
    each with it alone masked (Salazar et al. 2020). With `wild_type`, `sequences` are variants such as `A24G` or
    `A24G:K30R`, and a score is the difference to the wild type, whose own is 0 (Meier et al. 2021).

    Args:
        model: an opened masked language model, or the path of one.
        sequences: residues, or variants of `wild_type`.
        wild_type: the sequence that the variants change.
        scoring: how variants are scored, one of `bionemo_core.inference.scoring.METHODS`.
        device: where a model that is given by its path computes.

    Raises:
        BioNeMoError: the model predicts no masked residues, or a sequence or variant cannot be used.
    """
    import numpy as np

    from bionemo_core.data.text_lists import check_texts
    from bionemo_core.inference.scoring import MaskedScorer, read_variant

    opened = _opened(model, device)
    scorer = MaskedScorer(opened.module, opened.tokenizer)
    if wild_type is not None:
        before = wild_type.strip().upper()
        variants = [read_variant(text, before) for text in check_texts(sequences, "variant")]
        return scorer.score_variants(before, variants, scoring)
    each = [scorer.pseudo_log_likelihood(sequence).sum(dtype=np.float64) for sequence in scorer.clean(sequences)]
    return np.array(each, dtype=np.float64)


def sample(
    model: OpenedModel | str | PathLike[str],
    texts: Sequence[str] | None = None,
    *,
    num_samples: int = 1,
    seed: int = 1234,
    device: str = "cpu",
    **options: Any,
) -> list[Any]:
    """Return texts of an encoder-decoder: `num_samples` near each of `texts`, `[text][sample]`, else from its prior.

    Args:
        model: an opened model, or the path of one.
        texts: SMILES or other texts, read in canonical form; None: draw `num_samples` from the prior, [sample].
        num_samples: samples near each text; without texts, samples in total.
        seed: a sample depends on this, its text and its number, and on nothing else.
        device: where a model that is given by its path computes.
        options: further arguments of `bionemo_core.inference.sampling.Seq2SeqInference.sample`.

    Raises:
        BioNeMoError: the model generates no texts, or a text or an option cannot be used.
    """
    from bionemo_core.inference.sampling import Seq2SeqInference

    inference = Seq2SeqInference.of(_opened(model, device))
    if texts is None:
        return inference.sample_prior(num_samples, seed=seed, **options)
    found: list[Any] = inference.sample(num_samples, seqs=texts, seed=seed, **options)
    return found


def train(*settings: Settings) -> Path:
    """Train a model as `bionemo-run` does, and return the run's folder.

    Raises:
        BioNeMoError: a setting is invalid, or training failed.
    """
    return _run_folder("train", settings)


def finetune(*settings: Settings) -> Path:
    """Fine-tune the model at `restore_from_path`, and return the run's folder.

    Raises:
        BioNeMoError: a setting is invalid, or training failed.
    """
    return _run_folder("finetune", settings)


def evaluate(model: str | PathLike[str], output: str | PathLike[str], *settings: Settings) -> dict[str, float]:
    """Evaluate the model at a path, write the folder `output`, and return its metrics by name.

    Raises:
        BioNeMoError: a setting is invalid, or the evaluation failed.
    """
    paths = {"restore_from_path": str(model), "task.output": str(output)}
    _run("evaluate", (paths, *settings))
    content = json.loads((Path(output).expanduser() / "metrics.json").read_text())
    metrics: dict[str, float] = content["metrics"]
    return metrics


def convert(model: str | PathLike[str], output: str | PathLike[str], *settings: Settings) -> Path:
    """Write the model at a path in another format, with `task.to=artefact`, `nemo` or `huggingface`.

    Raises:
        BioNeMoError: a setting is invalid, or the model cannot be written in that format.
    """
    paths = {"restore_from_path": str(model), "task.output": str(output)}
    _run("convert", (paths, *settings))
    return Path(output).expanduser()


def build(*settings: Settings) -> TrainingParts:
    """Build tokenizer, data, model and batches of a training, for a `Trainer` or a training loop of your own.

    Raises:
        BioNeMoError: a setting is invalid, or a part cannot be built.
    """
    from bionemo_core.config.spec import make_spec
    from bionemo_core.tasks.training_parts import build_parts

    registry = load_registry()
    with _known_failures():
        return build_parts(make_spec(compose(_typed("train", settings), registry), registry), registry)


def _run_folder(task: str, settings: Sequence[Settings]) -> Path:
    folder = _run(task, settings)
    assert isinstance(folder, Path)
    return folder


def _run(task: str, settings: Sequence[Settings]) -> Any:
    with _known_failures():
        return run_task(compose(_typed(task, settings), load_registry()))


@contextmanager
def _known_failures() -> Iterator[None]:
    """Raise what the command prints as a message for failures that are other classes, such as those of Hydra.

    Raises:
        BioNeMoError: such a failure.
    """
    try:
        yield
    except Exception as error:
        known = classify(error)
        if known is None or known is error:
            raise
        raise known from error


def _typed(task: str, settings: Sequence[Settings]) -> list[str]:
    """Return the settings as they would be typed after `bionemo-run`."""
    typed = [f"task={task}"]
    for one in settings:
        typed += [one] if isinstance(one, str) else _typed_mapping(one)
    return typed


def _typed_mapping(settings: Mapping[str, object]) -> list[str]:
    """Return settings as they would be typed; `{"trainer": {"max_steps": 5}}` is `{"trainer.max_steps": 5}`."""
    typed: list[str] = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and "." not in key:
            typed += _typed_mapping({f"{key}.{name}": inner for name, inner in value.items()})
            continue
        spelt = _spell(value)
        typed.append(f"{key}={value}" if isinstance(value, str) and value == value.strip() else f"{key}={spelt}")
    return typed


def _spell(value: object) -> str:
    """Return a value as Hydra reads it within a list or a mapping."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_spell(key)}:{_spell(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_spell, value))}]"
    text = str(value)
    if _PLAIN_TEXT.fullmatch(text) or text[:1] + text[-1:] in ("[]", "{}"):  # a list or a mapping as it is typed
        return text
    from bionemo_core.config.v1.range_quoting import quote_text

    return quote_text(text)


def _opened(model: OpenedModel | str | PathLike[str], device: str) -> OpenedModel:
    return open_model(model, device=device) if isinstance(model, str | PathLike) else model


def _device(wanted: str) -> str:
    return default_device() if wanted == "auto" else wanted
