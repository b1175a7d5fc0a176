"""The hooks: five that name the framework, and optional ones. The core offers its own components through them too.

Each is a function without arguments that yields `Component`s. A plugin's module marks its
functions with `@hookimpl`, sets `BIONEMO_PLUGIN_API = 1`, and imports nothing heavy.
"""

from collections.abc import Iterable

import pluggy

from bionemo_core.plugins.component import Component

hookspec = pluggy.HookspecMarker("bionemo")


class PluginHooks:
    """The hooks that a plugin may implement; the first five are the framework, the others are optional."""

    @hookspec
    def bionemo_tokenizers(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield tokenizers; a factory returns a `Tokenizer`."""

    @hookspec
    def bionemo_datasets(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield datasets; a factory may take `tokenizer` and returns `DataSplits`."""

    @hookspec
    def bionemo_models(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield models; a factory takes `tokenizer` and `context` and returns a `LightningModule`."""

    @hookspec
    def bionemo_connectors(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield connectors, which convert checkpoints from and to the formats of other programs."""

    @hookspec
    def bionemo_callbacks(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield callbacks; a factory returns a Lightning callback."""

    @hookspec
    def bionemo_heads(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield heads for fine-tuning; a factory returns settings with `build(hidden_size, outputs, per_residue)`."""

    @hookspec
    def bionemo_schedulers(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield learning-rate schedules; a factory returns a `Schedule`, a pure function of the step."""

    @hookspec
    def bionemo_loggers(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield metric loggers; a factory takes `run`, a `RunContext`, and returns a Lightning logger."""

    @hookspec
    def bionemo_oracles(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield scores of texts for `task=optimize`; a factory returns an `Oracle`."""

    @hookspec
    def bionemo_readers(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield file formats; a factory without parameters returns a `Reader`."""

    @hookspec
    def bionemo_optimizers(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield optimizers; a factory returns `OptimizerSettings`."""

    @hookspec
    def bionemo_losses(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield losses for fine-tuning; a factory returns a `Loss`, a function of outputs and labels."""

    @hookspec
    def bionemo_augmentations(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield random changes of training records; a factory may take `tokenizer` and returns an `Augmentation`."""

    @hookspec
    def bionemo_tasks(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield choices of `task=`, each a `TaskSpec`."""


GROUP_OF_HOOK = {
    "bionemo_tokenizers": "tokenizer",
    "bionemo_datasets": "data",
    "bionemo_models": "model",
    "bionemo_connectors": "connector",
    "bionemo_callbacks": "callbacks",
    "bionemo_heads": "head",
    "bionemo_schedulers": "scheduler",
    "bionemo_loggers": "logger",
    "bionemo_oracles": "oracle",
    "bionemo_readers": "reader",
    "bionemo_optimizers": "optim",
    "bionemo_losses": "loss",
    "bionemo_augmentations": "augmentation",
    "bionemo_tasks": "task",
}
"""The configuration group of the components that a hook yields."""

MAIN_HOOKS = tuple(GROUP_OF_HOOK)[:5]
"""The five hooks that name the framework."""

GROUPS = tuple(GROUP_OF_HOOK.values())

_NOUNS = {"data": "data source", "callbacks": "callback", "optim": "optimizer"}


def noun_of(group: str) -> str:
    """Return what a message calls one component of a group: `data source` of `data`."""
    return _NOUNS.get(group, group)


NAMED_BY = {
    "head": ("task.head={name}", "task.head_params={{{key}: ...}}"),
    "loss": ("task.loss={name}", "task.loss_params={{{key}: ...}}"),
    "oracle": ("task.oracle={name}", "task.oracle_params={{{key}: ...}}"),
    "reader": ("data.format={name}", ""),
    "augmentation": ("data.augmentations=[{name}]", "data.augmentations=[{{augmentation: {name}, {key}: ...}}]"),
}
"""How a component and a key of it are typed, in the groups that are not chosen by `GROUP=NAME`."""


def typed_choice(group: str, name: str) -> str:
    """Return how a component is chosen on the command line: `model=esm2_8m`, `task.head=mlp`."""
    choice, _ = NAMED_BY.get(group, (f"{group}={{name}}", ""))
    return choice.format(name=name)


def typed_key(group: str, name: str, key: str) -> str:
    """Return how a key of a component is typed where its group has no keys of its own; else an empty text."""
    _, typed = NAMED_BY.get(group, ("", ""))
    return typed.format(name=name, key=key)
