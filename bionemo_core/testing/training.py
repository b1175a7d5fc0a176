"""Checks that a model learns, and that a stopped run can be resumed."""

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from bionemo_core.config.schema import RunSpec
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.testing.runs import alone_in_process, build_model, run_spec, train_model
from bionemo_core.testing.subject import Subject, fail

LEAST_FALL = 0.02
"""The fraction by which the loss must fall."""


@dataclass(frozen=True)
class TrainedRun:
    """A finished run, and its loss by step."""

    spec: RunSpec
    folder: Path
    losses: dict[int, float]


def get_trained_run(subject: Subject, registered: RegisteredComponent) -> TrainedRun:
    """Return the tiny run of a model, which is trained at the first call.

    Raises:
        ConformanceError: the training fails.
    """
    key = ("run", registered.name)
    if key not in subject.kept:
        with alone_in_process():
            build_model(subject, registered)  # refuses too large a model before it trains
        spec = run_spec(subject, registered.name)
        folder = subject.folder / "runs" / f"{registered.name}-whole"
        losses = train_model(spec, subject, f"model {registered.name!r}: training", folder)
        subject.kept[key] = TrainedRun(spec, folder, losses)
    run: TrainedRun = subject.kept[key]
    return run


def check_trains(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that the loss of a model is finite and falls within a few steps.

    Raises:
        ConformanceError: it does not; the message shows the losses.
    """
    run = get_trained_run(subject, registered)
    losses = list(run.losses.values())
    shown = " ".join(f"{loss:.4f}" for loss in losses)
    where = f"model {registered.name!r}"
    if not all(map(math.isfinite, losses)):
        fail(f"{where}: its loss is not finite: {shown}. Try a smaller `learning_rate`.")
    quarter = max(1, len(losses) // 4)
    first, last = fmean(losses[:quarter]), fmean(losses[-quarter:])
    if last > first - LEAST_FALL * abs(first):
        fail(
            f"{where}: its loss does not fall within {len(losses)} steps at a learning rate of "
            f"{run.spec.optim.params.get('lr')}: {shown}. Check that gradients reach the parameters and "
            "that the loss is that of the objective. For a model that learns slowly, set `steps` and `learning_rate` "
            "in the test class."
        )


def check_resumes(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a model resumes from a checkpoint, with identical losses if it declares `exact_resume`.

    Raises:
        ConformanceError: there is no checkpoint, it cannot be read, or a loss differs; the message shows the first such
            step.
    """
    from bionemo_core.checkpoint.folder_names import list_checkpoints, step_name
    from bionemo_core.reporting.metrics_file import NAME

    run = get_trained_run(subject, registered)
    where = f"model {registered.name!r}"
    middle = run.spec.checkpoint.every_n_steps or 0
    saved = list_checkpoints(run.folder / "checkpoints")
    if middle not in saved:
        fail(f"{where}: training saved no checkpoint at step {middle}; it saved: {sorted(saved) or 'none'}.")
    copy = subject.folder / "runs" / f"{registered.name}-resumed"
    shutil.copytree(run.folder, copy)
    (copy / NAME).unlink()
    spec = replace(run.spec, resume=str(copy / "checkpoints" / step_name(middle)))
    resumed = train_model(spec, subject, f"{where}: resuming from step {middle}", copy)
    expected = {step: loss for step, loss in run.losses.items() if step > middle}
    if resumed.keys() != expected.keys():
        fail(f"{where}: resumed from step {middle}, it ran the steps {_steps(resumed)}, expected {_steps(expected)}.")
    if "exact_resume" not in registered.component.capabilities:
        return
    for step, loss in expected.items():
        if loss.hex() != resumed[step].hex():
            fail(
                f"{where} declares 'exact_resume', but the loss of step {step} is {loss!r} without a stop and "
                f"{resumed[step]!r} after resuming from step {middle}. All state that affects a step must be a "
                "parameter, a buffer, saved in on_save_checkpoint, or computed from the step's own seed; keep no "
                "counter or random generator elsewhere. Or do not declare the capability."
            )


def _steps(losses: dict[int, float]) -> str:
    return f"{min(losses)} to {max(losses)}" if losses else "none"
