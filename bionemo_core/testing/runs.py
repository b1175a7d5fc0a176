"""Tiny training runs of a model: in this process, or on several ranks."""

import os
import random
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bionemo_core.config.schema import RunSpec
from bionemo_core.config.spec import to_json
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer
from bionemo_core.testing.subject import Subject, explain_failures, fail

if TYPE_CHECKING:
    from omegaconf import DictConfig

LOSS = "reduced_train_loss"
MAX_PARAMETERS = 5_000_000
SEQ_LENGTH = 128
RANKS_TIMEOUT_S = 240
RANKS_GRACE_S = 10
TAIL = 3000


@dataclass(frozen=True)
class BuiltModel:
    """A model with the run, tokenizer and data that it was built from."""

    module: Any
    tokenizer: Tokenizer
    splits: DataSplits
    spec: RunSpec


@contextmanager
def alone_in_process() -> Iterator[None]:
    """Run a block with its own process groups and one thread; warnings are shown and never raised."""
    import torch

    from bionemo_core.parallel.groups import stop_groups

    threads = torch.get_num_threads()
    stop_groups()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            torch.set_num_threads(1)
            yield
    finally:
        stop_groups()
        torch.set_num_threads(threads)


@contextmanager
def kept_generators() -> Iterator[None]:
    """Restore the states of the global random generators after a block."""
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def run_spec(subject: Subject, model: str, **changes: Any) -> RunSpec:
    """Return a short run of the model on the CPU; `changes` are keys with `__` in place of the dot.

    Raises:
        ConformanceError: the model does not compose to such a run.
    """
    settings = subject.settings
    schedule = () if any(one.startswith("scheduler=") for one in settings.overrides) else ("scheduler=constant",)
    config = subject.compose(model, *schedule)
    values = {
        "name": "conformance",
        "home": str(subject.folder),
        "trainer.accelerator": "cpu",
        "trainer.precision": "32",
        "trainer.devices": 1,
        "trainer.num_nodes": 1,
        "trainer.max_steps": settings.steps,
        "trainer.log_every_n_steps": 1,
        "trainer.val_check_interval": settings.steps,
        "trainer.limit_val_batches": 1,
        "trainer.num_threads": 1,
        "trainer.progress_bar": False,
        "batch.micro_batch_size": 4,
        "batch.num_workers": 0,
        "batch.seq_length": min(SEQ_LENGTH, _seq_length(config)),
        "checkpoint.every_n_steps": max(1, settings.steps // 2),
        "checkpoint.keep_last": 2,
        "optim.lr": settings.learning_rate,
    }
    overridden = {one.partition("=")[0].lstrip("+") for one in settings.overrides}
    values = {key: value for key, value in values.items() if key not in overridden}
    _update(config, {**values, **{key.replace("__", "."): value for key, value in changes.items()}})
    return subject.spec(config)


def _seq_length(config: "DictConfig") -> int:
    length = config.model.get("seq_length")
    return length if isinstance(length, int) else SEQ_LENGTH


def _update(config: "DictConfig", values: Mapping[str, Any]) -> None:
    from omegaconf import OmegaConf

    for key, value in values.items():
        group, _, name = key.rpartition(".")
        if not group or name in OmegaConf.select(config, group):
            OmegaConf.update(config, key, value, merge=False)


def build_model(subject: Subject, registered: RegisteredComponent, spec: RunSpec | None = None) -> BuiltModel:
    """Build the model as a run does, in this process; call it inside `alone_in_process`.

    It is the model of the run `spec`; None: of the run that the kit trains.

    Raises:
        ConformanceError: it cannot be built, or is too large for a test.
    """
    spec = spec or run_spec(subject, registered.name)
    context = BuildContext(seed=spec.seed, home=spec.home)
    where = f"model {registered.name!r}"
    with explain_failures(f"{where}: building it with {spec.model.params}"):
        tokenizer = subject.registry.build(spec.tokenizer, context=context)
        splits = subject.registry.build(spec.data, tokenizer=tokenizer, context=context)
        _check_size(subject, spec, where, tokenizer, context)
        module = subject.registry.build(spec.model, tokenizer=tokenizer, context=context)
    return BuiltModel(module, tokenizer, splits, spec)


def _check_size(subject: Subject, spec: RunSpec, where: str, tokenizer: Tokenizer, context: BuildContext) -> None:
    """Check that a model is small enough for a test, by building it without memory for its weights."""
    import torch

    try:
        with torch.device("meta"):
            module = subject.registry.build(spec.model, tokenizer=tokenizer, context=context)
        size = sum(parameter.numel() for parameter in module.parameters())
    except Exception:  # some networks cannot be built on the meta device, which is allowed
        return
    if size > MAX_PARAMETERS:
        fail(
            f"{where} has {size / 1e6:,.1f} million parameters, too many for a quick test (limit "
            f"{MAX_PARAMETERS / 1e6:.0f} million). Make it smaller with `small = {{...}}` or "
            f'`parameters = {{"model/{spec.model.name}": {{...}}}}`; it has: {", ".join(spec.model.params) or "none"}. '
            "Or name the models to train in `models`."
        )


def train_model(spec: RunSpec, subject: Subject, what: str, folder: Path, registry: Any = None) -> dict[int, float]:
    """Run the task of a specification in this process, with the run folder `folder`, and return the loss of each step.

    Its components come from `registry`; None: the subject's.

    Raises:
        ConformanceError: the run fails, or logs no loss.
    """
    from bionemo_core.config.task_spec import task_spec
    from bionemo_core.runs.folder import FOLDER_VARIABLE

    components = registry or subject.registry
    run = task_spec(components, spec.task.qualified_name).load()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[FOLDER_VARIABLE] = str(folder)
    try:
        with explain_failures(what), alone_in_process(), kept_generators():
            run(spec, components)
    finally:
        os.environ.pop(FOLDER_VARIABLE, None)
    return read_losses(folder, what)


def read_losses(folder: Path, what: str) -> dict[int, float]:
    """Return the loss by step from a run folder's metrics.

    Raises:
        ConformanceError: no loss was logged.
    """
    from bionemo_core.reporting.metrics_file import NAME, STEP, read_rows

    path = folder / NAME
    rows = read_rows(path) if path.exists() else []
    losses = {int(row[STEP]): float(row[LOSS]) for row in rows if LOSS in row}
    if not losses:
        fail(
            f"{what}: no {LOSS} was logged. A LanguageModule logs it; any other LightningModule must call "
            f"self.log({LOSS!r}, loss) in its training step."
        )
    return losses


def train_on_ranks(spec: RunSpec, subject: Subject, what: str, folder: Path, num_ranks: int) -> dict[int, float]:
    """Train a run on gloo ranks, one process each, and return the loss of each step.

    Raises:
        ConformanceError: a rank fails; the message shows the end of its output.
    """
    from bionemo_core.runs.folder import FOLDER_VARIABLE

    folder.mkdir(parents=True)
    spec_path = folder / "asked.json"
    spec_path.write_text(to_json(spec))
    shared = {
        **os.environ,
        **subject.environment,
        FOLDER_VARIABLE: str(folder),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(num_ranks),
        "NODE_RANK": "0",
        "OMP_NUM_THREADS": "1",
    }
    outputs = [folder / f"rank-{rank}.txt" for rank in range(num_ranks)]
    ranks = []
    for rank, output in enumerate(outputs):
        with output.open("w") as stream:
            ranks.append(
                subprocess.Popen(  # noqa: S603 - this interpreter, with a module of ours
                    [sys.executable, "-m", "bionemo_core.testing.rank", str(spec_path)],
                    env={**shared, "LOCAL_RANK": str(rank), "RANK": str(rank)},
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                )
            )
    failures = _wait_for_failures(ranks)
    if failures:
        shown = (f"rank {rank} {how}:\n{outputs[rank].read_text(errors='replace')[-TAIL:]}" for rank, how in failures)
        fail(f"{what} failed:\n" + "\n".join(shown))
    return read_losses(folder, what)


def _wait_for_failures(ranks: "list[subprocess.Popen[bytes]]") -> list[tuple[int, str]]:
    """Wait for the ranks and return those that failed and how; when one fails, kill the others."""
    give_up = time.monotonic() + RANKS_TIMEOUT_S
    try:
        while any(rank.poll() is None for rank in ranks) and time.monotonic() < give_up:
            if any(rank.returncode for rank in ranks):
                # One failure makes other ranks fail; wait briefly, so that the message also shows the cause.
                give_up = min(give_up, time.monotonic() + RANKS_GRACE_S)
            time.sleep(0.1)
        states = [rank.returncode for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    failures = [(i, f"exited with status {state}") for i, state in enumerate(states) if state]
    if not failures and None in states:
        return [(states.index(None), f"did not finish within {RANKS_TIMEOUT_S} s")]
    return failures


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
