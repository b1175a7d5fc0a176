"""Checks of a callback: a run with it trains, resumes, and stays in training mode."""

from typing import Any

from bionemo_core.config.schema import Choice
from bionemo_core.plugins import RegisteredComponent, Registry
from bionemo_core.testing.optional.linear_layer import train_linear_layer
from bionemo_core.testing.subject import Subject, explain_failures, fail
from bionemo_core.testing.training import check_finite, compare_resumed, get_trained_run


def check_callback(subject: Subject, registered: RegisteredComponent, model: RegisteredComponent | None) -> None:
    """Check that a callback is one of Lightning's, and that a run with it trains and resumes.

    Args:
        subject: the plugin.
        registered: the callback.
        model: the model to train; None: the plugin has none, and a linear layer is trained by Lightning alone.

    Raises:
        ConformanceError: it does not; the message says what differs.
    """
    from pytorch_lightning import Callback

    where = f"callbacks {registered.name!r}"
    registry = WatchedRegistry(subject.registry)
    built = subject.build(registered)
    if not isinstance(built, Callback):
        fail(f"{where}: its factory returns {type(built).__name__}, expected a pytorch_lightning.Callback.")
    _check_state(where, built, subject.build(registered))
    if model is None:
        train_linear_layer(where, callbacks=[registry.watch(built)])
        _check_state(f"{where}, after training", built, subject.build(registered))
    else:
        params = registered.complete(subject.parameters(registered))
        choice = Choice("callbacks", registered.name, params, registered.distribution, registered.version)
        run = get_trained_run(subject, model, callback=choice, registry=registry)
        check_finite(run)
    if registry.idle_from is not None:
        fail(
            f"{where}: from batch {registry.idle_from + 1} on, the model is not in training mode, so dropout is off. "
            "Call module.train() again after module.eval()."
        )
    if model is not None:
        compare_resumed(subject, run, exact="exact_resume" in model.component.capabilities)


class WatchedRegistry:
    """A registry whose callbacks note from which training batch on the model is not in training mode."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.idle_from: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

    def build(self, choice: Any, **runtime: Any) -> Any:
        """Build the component, and watch it if it is a callback."""
        built = self._registry.build(choice, **runtime)
        return self.watch(built) if choice.group == "callbacks" else built

    def watch(self, callback: Any) -> Any:
        """Return the callback with its hook at the start of a training batch extended."""
        inner = callback.on_train_batch_start

        def on_train_batch_start(trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if not pl_module.training and self.idle_from is None:
                self.idle_from = batch_idx
            inner(trainer, pl_module, batch, batch_idx)

        callback.on_train_batch_start = on_train_batch_start
        return callback


def _check_state(where: str, callback: Any, another: Any) -> None:
    """Check that a fresh callback takes the state of another one, as a resume does."""
    with explain_failures(f"{where}: load_state_dict(state_dict())"):
        another.load_state_dict(callback.state_dict())
