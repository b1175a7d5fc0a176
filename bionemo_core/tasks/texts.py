"""Shared parts of `sample` and `optimize`: reading texts, the results folder, tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bionemo_core.config.schema import RunSpec
from bionemo_core.errors import ConfigError, DataError, StorageError
from bionemo_core.inference.sampling import Seq2SeqInference
from bionemo_core.interop.load_report import LoadReport
from bionemo_core.io.atomic import new_csv
from bionemo_core.io.results_folder import fill_folder, is_unfinished
from bionemo_core.models.load import OpenedModel
from bionemo_core.nn.seq2seq import Seq2SeqLM
from bionemo_core.parallel.weights import network_of
from bionemo_core.protocols import BuildContext, TextJudge
from bionemo_core.runs.folder import RunFolder, new_folder, write_spec
from bionemo_core.tasks.input_file import open_input

ON_LONG = ("error", "skip")
_CPU_BATCH, _GPU_BATCH = 256, 8_192


@dataclass(frozen=True)
class Texts:
    """Texts of a file, in its order."""

    ids: list[str]
    texts: list[str]
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Records of the whole file that the filter rejected, by reason."""
    num_long: int = 0
    """Texts left out because they are too long for the model."""
    num_invalid: int = 0
    """Texts left out because they are not valid, such as SMILES that name no molecule."""

    @property
    def left_out(self) -> str:
        """The counts of texts left out, by reason; empty if there are none."""
        by_reason = ", ".join(f"{reason} {number:,}" for reason, number in self.rejected.items())
        reasons = (
            (sum(self.rejected.values()), f"rejected ({by_reason})"),
            (self.num_long, "too long"),
            (self.num_invalid, "invalid"),
        )
        return ", ".join(f"{number:,} {reason}" for number, reason in reasons if number)


def inference_of(
    opened: OpenedModel, spec: RunSpec, batch_size: int | None, max_length: int | None = None
) -> Seq2SeqInference:
    """Return the sampling interface of an opened model, with a batch size for its device, for texts of `read_texts`.

    On a GPU the decoding steps of the core's encoder-decoder run as CUDA graphs, unless `trainer.compile=false`; with
    true their layers are compiled too, which takes about ten seconds.

    Raises:
        ConfigError: the model cannot decode.
    """
    on_gpu = any(parameter.is_cuda for parameter in opened.module.parameters())
    size = batch_size if batch_size is not None else _GPU_BATCH if on_gpu else _CPU_BATCH
    network: Any = network_of(opened.module)
    recorded = on_gpu and spec.trainer.compile is not False and isinstance(network, Seq2SeqLM)
    if recorded and spec.trainer.compile:
        network.compile_decoding()
    return Seq2SeqInference.of(opened, batch_size=size, max_length=max_length, use_cuda_graphs=recorded, clean=False)


def judge_of(opened: OpenedModel) -> TextJudge | None:
    """Return the judge of the model's texts, or None if its plugin has none."""
    judge = getattr(opened.module, "judge", None)
    return judge if isinstance(judge, TextJudge) else None


def read_texts(task: Any, path: str, inference: Seq2SeqInference, context: BuildContext) -> Texts:
    """Return the texts of a file that fit the model; `task` has the keys for reading, `limit` and `on_long`.

    Raises:
        ConfigError: a key is out of its range, or the format is unknown.
        DataError: the file or a record cannot be used, or no text is left.
    """
    if task.on_long not in ON_LONG:
        raise ConfigError(f"task.on_long: got {task.on_long!r}, expected one of {', '.join(ON_LONG)}.")
    store = open_input(path, task, inference.tokenizer, context)
    ids, texts, num_long = [], [], 0
    for row in range(len(store) if task.limit is None else min(task.limit, len(store))):
        text, name = store[row].decode("latin-1"), str(store.id(row))
        num_tokens = len(inference.tokenizer.encode(text))
        if num_tokens <= inference.seq_length:
            ids.append(name)
            texts.append(text)
        elif task.on_long == "skip":
            num_long += 1
        else:
            raise DataError(
                f"{path}: record {name!r} has {num_tokens} tokens, but the model takes {inference.seq_length}. "
                "Skip such records with task.on_long=skip."
            )
    if not texts:
        raise DataError(f"{path}: there is no text to start from; {num_long} were skipped as too long.")
    return Texts(ids, texts, store.manifest["records"]["rejected"], num_long)


@contextmanager
def results_folder(spec: RunSpec, output: str | None, composed_yaml: str, loaded: LoadReport) -> Iterator[RunFolder]:
    """Create a folder for the results, with the run specification and the load report; remove it if the block fails.

    Raises:
        ConfigError: the folder `output` is not empty.
        StorageError: the folder cannot be created.
    """
    just_made = output is None or not Path(output).expanduser().exists()
    if output is None:
        try:
            folder = new_folder(Path(spec.home), spec.name)
        except StorageError as error:
            raise StorageError(f"{error} Or name a folder for the results with task.output=FOLDER.") from error
    else:
        path = Path(output).expanduser()
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()) and not is_unfinished(path):
                raise ConfigError(
                    f"task.output={output}: the folder is not empty. Choose another, or leave task.output out."
                )
        except OSError as error:
            raise StorageError(
                f"task.output={output}: cannot be created: {error.strerror or error}. Name another folder."
            ) from error
        folder = RunFolder(path)
    with fill_folder(folder.path, "task.output", just_made=just_made):
        folder.spec.unlink(missing_ok=True)  # of a start that was killed
        write_spec(folder, spec, composed_yaml)
        loaded.write(folder.path)
        yield folder


@contextmanager
def new_table(path: Path, columns: Sequence[str]) -> Iterator[Callable[[Iterable[Sequence[Any]]], None]]:
    """Yield a function that adds rows to a CSV file; the file appears when the block ends without an error.

    None and NaN are written as empty cells.

    Raises:
        StorageError: the file cannot be written.
    """
    with new_csv(path, columns) as add_rows:
        yield lambda rows: add_rows([_plain(value) for value in row] for row in rows)


def _plain(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return int(value)
    return f"{value:.6g}" if isinstance(value, float) else value
