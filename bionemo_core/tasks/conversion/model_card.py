"""The model card of a Hugging Face folder: README.md, from what the source records; the unknown is left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bionemo_core._version import __version__
from bionemo_core.config.schema import Choice
from bionemo_core.errors import ConfigError
from bionemo_core.interop.huggingface import TOKENIZER_FILES
from bionemo_core.interop.stored import StoredModel
from bionemo_core.models.load import OpenedModel
from bionemo_core.reporting.metrics_file import NAME, STEP, read_rows
from bionemo_core.reporting.summary import TEST, TRAIN_LOSS
from bionemo_core.tasks.conversion.read_back import ReadBack

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_PIPELINES = {"ForMaskedLM": "fill-mask", "EncoderModel": "feature-extraction"}
"""What a class of transformers is used for, by the end of its name."""


@dataclass(frozen=True)
class Card:
    """What a card says beside the facts of the model and of its source."""

    name: str
    """The name of the folder, or ORG/NAME on the hub."""
    license: str | None = None
    adapter: str | None = None
    """The folder of adapters that were merged into the weights; only its last part is told."""


def check_license(license_: str | None) -> None:
    """Check that this can be an identifier of a licence on the hub.

    Raises:
        ConfigError: it cannot.
    """
    if license_ is not None and not _LICENSE.fullmatch(license_):
        raise ConfigError(
            f"task.license: got {license_!r}, expected an identifier in lower case, such as apache-2.0, mit or other."
        )


def write_card(
    card: Card,
    stored: StoredModel,
    opened: OpenedModel,
    config: Mapping[str, Any],
    files: Iterable[str],
    equality: ReadBack,
) -> str:
    """Return the text of the card, with the YAML header that the hub reads.

    Args:
        card: name and licence.
        stored: the source; of its path only the last part is told.
        opened: the model.
        config: the content of the folder's config.json.
        files: the names of the tokenizer's files.
        equality: what was compared after writing.
    """
    kind = _class_of(config)
    with_tokenizer = any(name in TOKENIZER_FILES for name in files)
    parts = [
        f"---\n{yaml.safe_dump(_header(card, config, kind, with_tokenizer), sort_keys=False)}---",
        f"# {card.name.rpartition('/')[2]}",
        f"The model `{opened.spec.model.name}` of {_origin(opened.spec.model)}, as a folder of Hugging Face "
        f"transformers. bionemo-run {__version__} wrote it, and this card, with `task=convert`.",
        "## Model",
        _table(_sizes(opened, kind, equality)),
        "## Training",
        _training(stored, card.adapter),
        "## How to open it",
        _usage(card.name, kind, with_tokenizer),
        "## Equality",
        f"After writing, the folder was read again: all {equality.num_tensors:,} tensors "
        f"({equality.num_values:,} numbers) are equal to those of the converted model, bit for bit.",
    ]
    return "\n\n".join(parts) + "\n"


def _header(card: Card, config: Mapping[str, Any], kind: str, with_tokenizer: bool) -> dict[str, Any]:
    header: dict[str, Any] = {"library_name": "transformers", "tags": ["bionemo-run"]}
    if isinstance(config.get("model_type"), str):
        header["tags"].append(config["model_type"])
    pipeline = next((task for ending, task in _PIPELINES.items() if kind.endswith(ending)), None)
    if pipeline and with_tokenizer:  # a pipeline gets texts
        header["pipeline_tag"] = pipeline
    if card.license:
        header["license"] = card.license
    return header


def _class_of(config: Mapping[str, Any]) -> str:
    """Return the class of transformers that opens the folder."""
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else "AutoModel"


def _origin(choice: Choice) -> str:
    return f"{choice.distribution} {choice.version}".strip()


def _sizes(opened: OpenedModel, kind: str, equality: ReadBack) -> dict[str, Any]:
    params = opened.spec.model.params
    sizes = {key: value for key, value in params.items() if isinstance(value, int) and not isinstance(value, bool)}
    vocabulary = f"`{opened.spec.tokenizer.name}`, {opened.tokenizer.vocab_size:,} pieces"
    return {"class in transformers": f"`{kind}`", "numbers": equality.num_values, "tokenizer": vocabulary, **sizes}


def _training(stored: StoredModel, adapter: str | None) -> str:
    facts = stored.facts
    known: dict[str, Any] = {
        "run": facts.get("run"),
        "steps": facts.get("step"),
        "sequences": facts.get("consumed_samples"),
        "seed": None if "seed" not in facts else str(facts["seed"]),
        "data": None if stored.data is None else _data(stored.data),
        "fingerprint of the data": facts.get("data_fingerprint"),
        **_metrics(stored),
        "merged adapters": None if adapter is None else Path(adapter).name,
    }
    known = {name: value for name, value in known.items() if value is not None}
    if known:
        return _table(known)
    return f"The source, {_cell(Path(stored.source).name)} ({stored.format}), records nothing about its training."


def _data(choice: Choice) -> str:
    """Return the data source and the names of its files; their folders are those of one machine."""
    names = sorted({_last_part(text) for text in _texts(choice.params) if "/" in text} - {""})
    return f"`{choice.name}` of {_origin(choice)}" + (f": {', '.join(names)}" if names else "")


def _last_part(path: str) -> str:
    # Query and fragment of an address may hold a secret.
    return re.split(r"[?#]", path)[0].rstrip("/").rpartition("/")[2]


def _texts(values: Any) -> Iterable[str]:
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, (list, tuple)):
        return [text for value in values for text in _texts(value)]
    return [values] if isinstance(values, str) else []


def _metrics(stored: StoredModel) -> dict[str, float]:
    """Return the last value of each loss and test metric up to the step of the weights; empty if not from a run."""
    path = Path(stored.source).parent.parent / NAME
    if stored.format != "run" or not path.is_file():
        return {}
    last: dict[str, float] = {}
    for row in read_rows(path):
        if row[STEP] <= stored.facts.get("step", 0):
            last |= {name: value for name, value in row.items() if _is_metric(name)}
    return {name: last[name] for name in sorted(last)}


def _is_metric(name: str) -> bool:
    return name == TRAIN_LOSS or name.startswith(("val_", TEST))


def _usage(name: str, kind: str, with_tokenizer: bool) -> str:
    classes = ["AutoTokenizer", kind] if with_tokenizer else [kind]
    lines = [f"from transformers import {', '.join(classes)}", ""]
    lines += [f"tokenizer = AutoTokenizer.from_pretrained({name!r})"] if with_tokenizer else []
    lines += [f"model = {kind}.from_pretrained({name!r})"]
    command = f"bionemo-run task=embed restore_from_path={name} task.input=FILE task.output=embeddings.npz"
    return "\n".join(["```python", *lines, "```", "", "```sh", command, "```"])


def _table(rows: Mapping[str, Any]) -> str:
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _cell(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", r"\|").split())
