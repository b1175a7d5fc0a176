"""Checks that a model learns, and that a stopped run can be resumed."""

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from bionemo_core.config.schema import Choice, RunSpec
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.testing.runs import alone_in_process, build_model, run_spec, train_model
from bionemo_core.testing.subject import Subject, fail

LEAST_FALL = 0.02
"""The fraction by which the loss must fall."""


@dataclass(frozen=True)
class TrainedRun:
    """A finished run, and its loss by step."""

    where: str
    """What was trained, for messages."""
    spec: RunSpec
    folder: Path
    losses: dict[int, float]


def get_trained_run(
    subject: Subject,
    registered: RegisteredComponent,
    callback: Choice | None = None,
    registry: Any = None,
) -> TrainedRun:
    """Return the tiny run of a model, which is trained at the first call.

    Args:
        subject: the plugin.
        registered: the model.
        callback: a callback of the run.
        registry: where its components are looked up; None: the subject's registry.

    Raises:
        ConformanceError: the training fails.
    """
    with_callback = f"-{callback.name}" if callback else ""
    key = ("run", registered.name, with_callback)
    if key not in subject.kept:
        with alone_in_process():
            build_model(subject, registered)  # refuses too large a model before it trains
        spec = run_spec(subject, registered.name)
        where = f"model {registered.name!r}"
        if callback:
            spec = replace(spec, callbacks=(*spec.callbacks, callback))
            where = f"callbacks {callback.name!r}, with model {registered.name!r}"
        folder = subject.folder / "runs" / f"{registered.name}{with_callback}-whole"
        losses = train_model(spec, subject, f"{where}: training", folder, registry)
        subject.kept[key] = TrainedRun(where, spec, folder, losses)
    run: TrainedRun = subject.kept[key]
    return run


def check_finite(run: TrainedRun) -> None:
    """Check that the losses of a run are numbers.

    Raises:
        ConformanceError: one is not.
    """
    if not all(map(math.isfinite, run.losses.values())):
        fail(f"{run.where}: its loss is not finite: {_shown(run)}. Try a smaller `learning_rate`.")


def _shown(run: TrainedRun) -> str:
    return " ".join(f"{loss:.4f}" for loss in run.losses.values())


def check_trains(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that the loss of a model is finite and falls within a few steps.

    Raises:
        ConformanceError: it does not; the message shows the losses.
    """
    run = get_trained_run(subject, registered)
    check_finite(run)
    losses = list(run.losses.values())
    quarter = max(1, len(losses) // 4)
    first, last = fmean(losses[:quarter]), fmean(losses[-quarter:])
    if last > first - LEAST_FALL * abs(first):
        fail(
            f"{run.where}: its loss does not fall within {len(losses)} steps at a learning rate of "
            f"{run.spec.optim.params.get('lr')}: {_shown(run)}. Check that gradients reach the parameters and "
            "that the loss is that of the objective. For a model that learns slowly, set `steps` and `learning_rate` "
            "in the test class."
        )


def check_resumes(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a model resumes from a checkpoint, with identical losses if it declares `exact_resume`.

    Raises:
        ConformanceError: there is no checkpoint, it cannot be read, or a loss differs; the message shows the first such
            step.
    """
    compare_resumed(
        subject, get_trained_run(subject, registered), exact="exact_resume" in registered.component.capabilities
    )


def compare_resumed(subject: Subject, run: TrainedRun, *, exact: bool) -> None:
    """Check that a run resumes from the checkpoint in its middle; if `exact`, with identical losses.

    Raises:
        ConformanceError: as for `check_resumes`.
    """
    from bionemo_core.checkpoint.folder_names import list_checkpoints, step_name
    from bionemo_core.reporting.metrics_file import NAME

    where = run.where
    middle = run.spec.checkpoint.every_n_steps or 0
    saved = list_checkpoints(run.folder / "checkpoints")
    if middle not in saved:
        fail(f"{where}: training saved no checkpoint at step {middle}; it saved: {sorted(saved) or 'none'}.")
    copy = run.folder.with_name(f"{run.folder.name.removesuffix('-whole')}-resumed")
    shutil.copytree(run.folder, copy)
    (copy / NAME).unlink()
    spec = replace(run.spec, resume=str(copy / "checkpoints" / step_name(middle)))
    resumed = train_model(spec, subject, f"{where}: resuming from step {middle}", copy)
    expected = {step: loss for step, loss in run.losses.items() if step > middle}
    if resumed.keys() != expected.keys():
        fail(f"{where}: resumed from step {middle}, it ran the steps {_steps(resumed)}, expected {_steps(expected)}.")
    if not exact:
        return
    for step, loss in expected.items():
        if loss.hex() != resumed[step].hex():
            fail(
                f"{where} declares 'exact_resume', but the loss of step {step} is {loss!r} without a stop and "
                f"{resumed[step]!r} after resuming from step {middle}. All state that affects a step must be a "
                "parameter, a buffer, saved in on_save_checkpoint (a callback's in state_dict), or computed from the "
                "step's own seed; keep no counter or random generator elsewhere. Or do not declare the capability."
            )


def _steps(losses: dict[int, float]) -> str:
    return f"{min(losses)} to {max(losses)}" if losses else "none"
