"""The rows of `flip_secondary_structure.py`: what each begins with, and the commands that train and evaluate it."""

import argparse
import json
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bionemo_core.config.schema import Choice
from bionemo_core.data.readers import FastaSource
from bionemo_core.models.locate import complete_choice, open_stored
from bionemo_core.nn.residue_states import encoder_of
from bionemo_core.plugins import Registry
from bionemo_core.protocols import BuildContext
from bionemo_core.reporting.metrics_file import read_rows
from bionemo_core.testing.throwaway import make_plugin

PLUGIN = '''\
"""Residues as one-hot vectors, to compare learned states with."""

from bionemo_core import Component, configure, hookimpl

BIONEMO_PLUGIN_API = 1


def one_hot(seq_length: int = 1024, *, tokenizer, context):
    from one_hot.network import build

    return build(seq_length, tokenizer)


@hookimpl
def bionemo_models():
    yield Component("one_hot", configure(one_hot), "residues as one-hot vectors", capabilities=frozenset({"packing"}))
'''

NETWORK = '''\
import torch
from torch import nn

from bionemo_core.data.batches.masking import MaskedLanguageObjective
from bionemo_core.training.module import LanguageModule


class OneHot(nn.Module):
    """Nothing to train: a fixed vector for every residue of the alphabet, zeros for all other tokens."""

    def __init__(self, residues, vocab_size):
        super().__init__()
        self.hidden_size = len(residues)
        self.embedding = nn.Embedding.from_pretrained(torch.eye(vocab_size)[:, residues].contiguous(), freeze=True)

    def hidden_states(self, batch):
        return self.embedding(batch.tokens).transpose(0, 1)


def build(seq_length, tokenizer):
    residues = [number for number in range(tokenizer.vocab_size) if number not in tokenizer.special_ids]
    objective = MaskedLanguageObjective(
        mask_id=tokenizer.mask_id, special_ids=tokenizer.special_ids, vocab_size=tokenizer.vocab_size
    )
    return LanguageModule(OneHot(residues, tokenizer.vocab_size), objective, seq_length=seq_length)
'''


class Row(NamedTuple):
    """One line of the table: what the head is put on, and how that is trained."""

    what: str
    start: str  # one-hot, random, pre-trained
    encoder: str  # frozen, full, lora


ROWS = {
    "one-hot": Row("one-hot residues", "one-hot", "frozen"),
    "random-frozen": Row("random weights, frozen", "random", "frozen"),
    "frozen": Row("pre-trained, frozen", "pre-trained", "frozen"),
    "full": Row("pre-trained, full", "pre-trained", "full"),
    "lora": Row("pre-trained, LoRA", "pre-trained", "lora"),
    "random-full": Row("random weights, full", "random", "full"),
}

BASELINES = ("one-hot", "random-frozen")

LONGEST_FIRST = ("full", "random-full", "lora", "frozen", "random-frozen", "one-hot")


class Flip(NamedTuple):
    """The benchmark's files, and of its test proteins which residues are resolved."""

    files: dict[str, Path]
    resolved: dict[str, np.ndarray]

    @property
    def arguments(self) -> list[str]:
        """The data set on the command line."""
        return ["data=flip_fasta", *(override(f"data.{key}", str(path)) for key, path in self.files.items())]


class Finished(NamedTuple):
    """A fine-tuning: its rate and run folder, what it ran on, and how long the command took, start to end."""

    rate: float
    run: Path
    device: str | None
    seconds: float

    @property
    def validation(self) -> float:
        """The last accuracy on the validation split; 0 if time was up before the first."""
        rows = read_rows(self.run / "metrics.csv")
        return next((row["val_accuracy"] for row in reversed(rows) if "val_accuracy" in row), 0.0)


class Failed(Exception):
    """A command ended with another status than 0."""


def override(key: str, value: Any) -> str:
    """`key=value` as the command line takes it."""
    if isinstance(value, str):
        plain = re.fullmatch(r"[\w./-]+", value)
        return f"{key}={value}" if plain else f"{key}='{value}'"
    return f"{key}={json.dumps(value)}"  # null, true, numbers and lists of these are written as in JSON


def read_flip(folder: Path) -> Flip:
    """Find the three files, and look at the test proteins."""
    names = {"sequences": "sequences", "labels": "sampled", "mask": "mask"}
    files = {}
    for key, name in names.items():
        found = [path for path in (folder / f"{name}.fasta", folder / f"{name}.fasta.gz") if path.is_file()]
        if not found:
            raise SystemExit(f"{folder}: holds no {name}.fasta or {name}.fasta.gz.")
        files[key] = found[0].resolve()
    labels = FastaSource(files["labels"], columns=("description",))
    test = {record.id.decode() for record in labels.records(files["labels"]) if b"SET=test" in record.columns[0]}
    masks = {record.id.decode(): record.sequence for record in FastaSource(files["mask"]).records(files["mask"])}
    zero = ord("0")
    resolved = {name: np.frombuffer(b"".join(masks[name].split()), dtype=np.uint8) != zero for name in sorted(test)}
    return Flip(files, resolved)


@dataclass(frozen=True)
class Starts:
    """What the rows begin with, each as arguments of the command line."""

    pretrained: list[str]
    random: list[str]
    one_hot: list[str]
    max_residues: int

    @classmethod
    def of(cls, run: str, registry: Registry) -> "Starts":
        """Look at the pre-trained model."""
        stored = open_stored(run, registry)
        stored.close()
        model, tokenizer = stored.spec.model, stored.spec.tokenizer
        context = BuildContext()
        built = registry.build(tokenizer, context=context)
        module = registry.build(model, tokenizer=built, context=context)
        ends = sum(encoder_of(module.network).form.terminals)
        of_tokenizer = chosen(tokenizer, registry)
        source = str(Path(run).resolve()) if Path(run).exists() else run
        return cls(
            pretrained=[override("restore_from_path", source)],
            random=[*chosen(model, registry), *of_tokenizer],
            # A one-hot encoder reads BOS and EOS too: the longest protein shall be the same.
            one_hot=["model=one_hot", f"model.seq_length={module.seq_length - ends + 2}", *of_tokenizer],
            max_residues=module.seq_length - ends,
        )


def chosen(choice: Choice, registry: Registry) -> list[str]:
    """A component by name, and those of its parameters that are not the defaults."""
    usual = complete_choice(choice.group, choice.name, {}, choice.distribution, registry)
    owner = registry.owner(choice.group, choice.name)
    short = owner is not None and owner.distribution == choice.distribution
    name = choice.name if short else f"{choice.distribution}/{choice.name}"
    differing = {key: value for key, value in choice.params.items() if usual.params.get(key) != value}
    return [f"{choice.group}={name}", *(override(f"{choice.group}.{key}", value) for key, value in differing.items())]


def make_one_hot(folder: Path) -> None:
    """Write the plugin that offers the model `one_hot`; this process finds it too."""
    shutil.rmtree(folder, ignore_errors=True)
    make_plugin(folder, "one_hot", PLUGIN, files={"network.py": NETWORK})
    sys.path.insert(0, str(folder))


@dataclass(frozen=True)
class Bench:
    """Runs rows."""

    options: argparse.Namespace
    flip: Flip
    starts: Starts
    plugin: Path

    def finetune(self, name: str, devices: "queue.Queue[str | None]") -> list[Finished]:
        """Train a row with each rate, once a device is free; one after the other, as they share a frozen's states."""
        done = []
        device = devices.get()
        try:
            for rate in self.options.rates[ROWS[name].encoder]:
                started = time.perf_counter()
                label = f"{name} {rate:g}"
                folder = self._command(label, "finetune", self._finetune(name, rate), device, r"\n +folder  (.+)\n")
                done.append(Finished(rate, Path(folder), device, time.perf_counter() - started))
        finally:
            devices.put(device)
        return done

    def evaluate(self, name: str, finished: Finished) -> Path:
        """Write the predictions for the test proteins; where they are."""
        report = self.options.out / "evaluation" / name
        arguments = [override("restore_from_path", str(finished.run / "model")), *self.flip.arguments]
        arguments += [override("task.output", str(report)), "task.overwrite=true"]
        self._command(name, "evaluate", arguments, finished.device)
        return report / "predictions.csv"

    def _finetune(self, name: str, rate: float) -> list[str]:
        options, row = self.options, ROWS[name]
        starts = {"one-hot": self.starts.one_hot, "random": self.starts.random, "pre-trained": self.starts.pretrained}
        arguments = [*starts[row.start], "task.kind=token_classification", f"task.encoder={row.encoder}"]
        if row.encoder == "frozen":  # no less exact than bfloat16, in which a GPU computes them, and half as large
            arguments.append("task.states_dtype=float16")
        arguments += [*self.flip.arguments, override("name", f"flip_{name}"), f"seed={options.seed}"]
        arguments += [
            f"optim.lr={rate}",
            f"trainer.max_steps={options.steps}",
            f"batch.micro_batch_size={options.batch}",
        ]
        arguments += [f"trainer.val_check_interval={max(1, options.steps // 4)}", "trainer.progress_bar=false"]
        arguments += [f"batch.num_workers={options.num_workers}"]
        if options.minutes:
            arguments.append(f"trainer.max_time_min={options.minutes}")
        return [*arguments, *options.also]

    def _command(self, label: str, task: str, arguments: Sequence[str], device: str | None, wanted: str = "") -> str:
        """Print and run it; what the regular expression found in its output."""
        extra: dict[str, str] = {}
        if device is not None:
            extra["CUDA_VISIBLE_DEVICES"] = device
        if ROWS[label.split()[0]].start == "one-hot":
            before = os.environ.get("PYTHONPATH")
            extra["PYTHONPATH"] = os.pathsep.join([str(self.plugin), *([before] if before else [])])
        shown = [f"{key}={shlex.quote(value)}" for key, value in extra.items()]
        shown += ["bionemo-run", f"task={task}", *map(shlex.quote, arguments)]
        print(f"[{label}] {' '.join(shown)}", flush=True)
        beside = Path(sys.executable).with_name("bionemo-run")
        program = str(beside) if beside.is_file() else "bionemo-run"
        log = self.options.out / "logs" / f"{task} {label}.txt"
        started = time.perf_counter()
        with log.open("w") as stream:
            done = subprocess.run(
                [program, f"task={task}", *arguments],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **extra},
                check=False,
            )
        text = log.read_text(errors="replace")
        if done.returncode:
            raise Failed(f"{label}: task={task} ended with {done.returncode}:\n{text[-2000:]}")
        print(f"[{label}] {task}: {time.perf_counter() - started:.1f} s", flush=True)
        found = re.search(wanted, text)
        if found is None:
            raise Failed(f"{label}: {log} does not say what was expected of it ({wanted}).")
        return found[1] if wanted else ""


def together(at_a_time: int, names: Sequence[str], work: Callable[[str], Any], failures: list[str]) -> dict[str, Any]:
    """What the work of each name gave; where a command failed, what it said is added to the failures."""
    done = {}
    with ThreadPoolExecutor(at_a_time) as pool:
        running = {name: pool.submit(work, name) for name in names}
        for name, future in running.items():
            try:
                done[name] = future.result()
            except Failed as failure:
                failures.append(str(failure))
    return done


def free_devices(gpus: int, rows_per_gpu: int) -> "queue.Queue[str | None]":
    """One entry for each row that may run at a time: what CUDA_VISIBLE_DEVICES shall be, or None to leave it."""
    devices: queue.Queue[str | None] = queue.Queue()
    if gpus == 1 or not torch.cuda.is_available():
        for _ in range(rows_per_gpu):
            devices.put(None)
        return devices
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    if len(named) < gpus:
        raise SystemExit(f"--gpus {gpus}: there are {len(named)} here.")
    for name in named[:gpus] * rows_per_gpu:
        devices.put(name)
    return devices
