"""What the tasks that decode share: the texts of a file, the folder of results, tables and progress."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bionemo_core.config.schema import RunSpec
from bionemo_core.errors import ConfigError, DataError, StorageError
from bionemo_core.inference.sampling import Seq2SeqInference
from bionemo_core.io.atomic import new_text
from bionemo_core.models.load import OpenedModel
from bionemo_core.nn.seq2seq import Seq2SeqLM
from bionemo_core.protocols import BuildContext, TextJudge
from bionemo_core.runs.device import Device
from bionemo_core.runs.folder import RunFolder, new_folder
from bionemo_core.runs.resume import write_spec
from bionemo_core.tasks.embed import open_input

ON_LONG = ("error", "skip")
_CPU_BATCH, _GPU_BATCH = 256, 8_192


@dataclass(frozen=True)
class Texts:
    """Texts of a file, in its order."""

    ids: list[str]
    texts: list[str]
    num_rejected: int = 0
    """Records of the whole file that its rules rejected."""
    num_long: int = 0
    """Left out because the model takes no texts as long."""
    num_invalid: int = 0
    """Left out because they stand for nothing."""

    @property
    def left_out(self) -> str:
        """What was left out and why; empty where nothing was."""
        reasons = (
            (self.num_rejected, "rejected"),
            (self.num_long, "too long"),
            (self.num_invalid, "invalid"),
        )
        return ", ".join(f"{number:,} {reason}" for number, reason in reasons if number)


def inference_of(
    opened: OpenedModel, spec: RunSpec, batch_size: int | None, max_length: int | None = None
) -> Seq2SeqInference:
    """Return the interface to an opened model, with the batch that suits its device.

    A GPU replays the steps of the core's encoder-decoder unless `trainer.compile=false`; with true the layers of a step
    are compiled too, which takes some ten seconds.

    Raises:
        ConfigError: the model cannot decode.
    """
    on_gpu = any(parameter.is_cuda for parameter in opened.module.parameters())
    size = batch_size if batch_size is not None else _GPU_BATCH if on_gpu else _CPU_BATCH
    network: Any = getattr(opened.module, "network", None)
    recorded = on_gpu and spec.trainer.compile is not False and isinstance(network, Seq2SeqLM)
    if recorded and spec.trainer.compile:
        network.compile_decoding()
    return Seq2SeqInference.of(opened, batch_size=size, max_length=max_length, record_steps=recorded)


def judge_of(opened: OpenedModel) -> TextJudge | None:
    """Return what the model's plugin knows of the texts that it writes, if anything."""
    judge = getattr(opened.module, "judge", None)
    return judge if isinstance(judge, TextJudge) else None


def read_texts(task: Any, path: str, inference: Seq2SeqInference, context: BuildContext) -> Texts:
    """Return the texts of a file that the model can take; `task` has the keys for reading, `limit` and `on_long`.

    Raises:
        ConfigError: a key is out of its range, or the format cannot be told.
        DataError: the file or a record cannot be used, or none is left.
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
                f"{path}: record {name!r} has {num_tokens} tokens, the model takes {inference.seq_length}. "
                "Skip such records with task.on_long=skip."
            )
    if not texts:
        raise DataError(f"{path}: there is no text to start from; {num_long} were skipped as too long.")
    return Texts(ids, texts, sum(store.manifest["records"]["rejected"].values()), num_long)


def results_folder(spec: RunSpec, output: str | None, composed_yaml: str) -> RunFolder:
    """Return an empty folder for the results, with the specification of the run in it.

    Raises:
        ConfigError: the folder that was named holds something.
        StorageError: it cannot be made.
    """
    if output is None:
        folder = new_folder(Path(spec.home), spec.name)
    else:
        path = Path(output).expanduser()
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise ConfigError(
                    f"task.output={output}: the folder is not empty. Choose another, or leave task.output out."
                )
        except OSError as error:
            raise StorageError(f"task.output={output}: cannot be created: {error.strerror or error}.") from error
        folder = RunFolder(path)
    write_spec(folder, spec, composed_yaml)
    return folder


def refuse_several_devices(spec: RunSpec) -> None:
    """Accept a run on one device.

    Raises:
        ConfigError: more are asked for.
    """
    if spec.trainer.devices * spec.trainer.num_nodes > 1:
        raise ConfigError(
            f"task={spec.task.name} runs on one device, got trainer.devices={spec.trainer.devices} and "
            f"trainer.num_nodes={spec.trainer.num_nodes}. Leave both at 1."
        )


def start_on(device: Device) -> str:
    """Torch's name of the one device that decodes."""
    if device.name == "cuda":
        torch.cuda.set_device(0)
        return "cuda:0"
    return "cpu"


@contextmanager
def new_table(path: Path, columns: Sequence[str]) -> Iterator[Callable[[Iterable[Sequence[Any]]], None]]:
    """Give a function that adds rows to a CSV file, which appears when the block ends well.

    None and NaN leave a place empty.

    Raises:
        StorageError: the file system refused.
    """
    with new_text(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        yield lambda rows: writer.writerows([[_plain(value) for value in row] for row in rows])


def _plain(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return int(value)
    return f"{value:.6g}" if isinstance(value, float) else value
