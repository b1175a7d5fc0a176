"""The base class of a plugin's conformance tests."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from bionemo_core.errors import BioNeMoError
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.testing import (
    callbacks,
    capabilities,
    configs,
    connectors,
    datasets,
    decoding,
    heads,
    imports,
    keys_read,
    networks,
    tokenizers,
    training,
)
from bionemo_core.testing.optional import (
    augmentations,
    loggers,
    losses,
    optimizers,
    oracles,
    readers,
    schedules,
    tasks,
)
from bionemo_core.testing.references import Reference
from bionemo_core.testing.subject import ConformanceError, KitSettings, Subject

SLOW_VARIABLE = "BIONEMO_TEST_SLOW"


class PluginConformance:
    """Tests that every plugin must pass, alone with the core.

    Put this into the plugin's tests, and run pytest:

        from bionemo_core.testing import PluginConformance

        class TestMine(PluginConformance):
            plugin = "mine"
            small = {"num_layers": 2, "hidden_size": 64}

    Each capability that a model declares is tested. The tests of `tensor_parallel` and `pipeline_parallel` start two
    processes, so they run only if BIONEMO_TEST_SLOW=1 is set or pytest gets `-m slow`.
    """

    plugin: ClassVar[str] = ""
    """The name of the plugin's entry point or distribution."""

    models: ClassVar[Sequence[str] | None] = None
    """The models to train; by default all models of the plugin."""

    small: ClassVar[Mapping[str, Any]] = {}
    """Parameters that make every model small enough to train in seconds."""

    parameters: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Parameters of single components, of the plugin or the core, by GROUP/NAME:
    `{"model/large": {"num_layers": 2}, "data/csv": {"path": "tests/ten.csv"}}`."""

    references: ClassVar[Mapping[str, Reference]] = {}
    """By the name of a connector, a function that computes with a model that it wrote, by the foreign implementation:
    `{"mine_nemo": nemo_outputs}`; see `bionemo_core.testing.references`. For Hugging Face it is `transformers`."""

    overrides: ClassVar[Sequence[str]] = ()
    """More arguments for the command line of the runs: `["data=mine"]`."""

    steps: ClassVar[int] = 16
    """Optimizer steps of a run; a checkpoint is saved in the middle."""

    learning_rate: ClassVar[float] = 2e-3
    """The learning rate with which the loss must fall within those steps."""

    @pytest.fixture
    def subject(self, tmp_path_factory: pytest.TempPathFactory) -> Subject:
        """Return the plugin under test, which all tests of a class share."""
        cls = type(self)
        if "_subject" not in vars(cls):
            cls._subject = Subject(_settings(cls), tmp_path_factory.mktemp("conformance"))
        return cls._subject

    _subject: ClassVar[Subject]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrize each test with the components that it needs."""
        for argument, group in _ARGUMENTS.items():
            if argument in metafunc.fixturenames:
                found = _components_for(type(self), group, argument)
                marks = _marks(metafunc)
                several = group is None
                ids = [f"{one.group}-{one.name}" if several else one.name for one in found]
                rows = [pytest.param(one, id=name, marks=marks) for one, name in zip(found, ids, strict=True)]
                metafunc.parametrize(argument, rows)

    def test_is_found_and_loads(self, subject: Subject) -> None:
        imports.check_found(subject)

    def test_declares_which_core_it_needs(self, subject: Subject) -> None:
        imports.check_core_requirement(subject)

    def test_is_light_to_import(self, subject: Subject) -> None:
        imports.check_light_import(subject)

    def test_names_are_its_own(self, subject: Subject) -> None:
        imports.check_names(subject)

    def test_parameters_are_typed(self, subject: Subject, any_component: RegisteredComponent) -> None:
        configs.check_parameters(subject, any_component)

    def test_keys_have_an_effect(self, any_component: RegisteredComponent) -> None:
        keys_read.check_keys_are_read(any_component)

    def test_defaults_exist(self, subject: Subject, any_model: RegisteredComponent) -> None:
        configs.check_defaults(subject, any_model)

    def test_published_weights_can_be_opened(self, subject: Subject, any_model: RegisteredComponent) -> None:
        configs.check_published(subject, any_model)

    def test_configuration_survives_files(self, subject: Subject, any_model: RegisteredComponent) -> None:
        configs.check_round_trip(subject, any_model)

    def test_tokenizer_round_trip(self, subject: Subject, tokenizer: RegisteredComponent) -> None:
        tokenizers.check_tokenizer(subject, tokenizer)

    def test_dataset_is_deterministic(self, subject: Subject, dataset: RegisteredComponent) -> None:
        datasets.check_dataset(subject, dataset)

    def test_model_is_typed(self, subject: Subject, model: RegisteredComponent) -> None:
        capabilities.check_types(subject, model)

    def test_weights_come_from_the_seed(self, subject: Subject, model: RegisteredComponent) -> None:
        networks.check_seed(subject, model)

    def test_objective_draws_from_its_argument(self, subject: Subject, model: RegisteredComponent) -> None:
        networks.check_objective(subject, model)

    def test_loss_is_a_sum(self, subject: Subject, model: RegisteredComponent) -> None:
        networks.check_loss_is_a_sum(subject, model)

    def test_states_are_of_one_sequence(self, subject: Subject, model: RegisteredComponent) -> None:
        networks.check_states(subject, model)

    def test_model_trains(self, subject: Subject, model: RegisteredComponent) -> None:
        training.check_trains(subject, model)

    def test_model_resumes(self, subject: Subject, model: RegisteredComponent) -> None:
        training.check_resumes(subject, model)

    def test_connector_there_and_back(self, subject: Subject, connector: RegisteredComponent) -> None:
        models = _tested_models(type(self), subject)
        connectors.check_connector(subject, connector, models, self.references.get(connector.name))

    def test_head_answers(self, subject: Subject, head: RegisteredComponent) -> None:
        heads.check_head(subject, head)

    def test_run_with_callback(self, subject: Subject, callback: RegisteredComponent) -> None:
        models = _tested_models(type(self), subject)
        callbacks.check_callback(subject, callback, models[0] if models else None)

    def test_schedule_is_pure(self, subject: Subject, scheduler: RegisteredComponent) -> None:
        schedules.check_schedule(subject, scheduler)

    def test_run_with_logger(self, subject: Subject, logger: RegisteredComponent) -> None:
        loggers.check_logger(subject, logger)

    def test_oracle_scores(self, subject: Subject, oracle: RegisteredComponent) -> None:
        oracles.check_oracle(subject, oracle)

    def test_reader_reads(self, subject: Subject, reader: RegisteredComponent) -> None:
        readers.check_reader(subject, reader)

    def test_optimizer_steps(self, subject: Subject, optimizer: RegisteredComponent) -> None:
        optimizers.check_optimizer(subject, optimizer)

    def test_loss_is_of_labels(self, subject: Subject, loss: RegisteredComponent) -> None:
        losses.check_loss(subject, loss)

    def test_augmentation_is_drawn(self, subject: Subject, augmentation: RegisteredComponent) -> None:
        augmentations.check_augmentation(subject, augmentation)

    def test_task_starts(self, subject: Subject, task: RegisteredComponent) -> None:
        tasks.check_task(subject, task)

    def test_packed_equals_unpacked(self, subject: Subject, packing_model: RegisteredComponent) -> None:
        capabilities.check_packing(subject, packing_model)

    def test_decoding_is_exact(self, subject: Subject, decoding_model: RegisteredComponent) -> None:
        decoding.check_decoding(subject, decoding_model)

    def test_two_ranks_equal_one(
        self, subject: Subject, tensor_parallel_model: RegisteredComponent, request: pytest.FixtureRequest
    ) -> None:
        _skip_unless_slow(request)
        capabilities.check_tensor_parallel(subject, tensor_parallel_model)

    def test_two_stages_equal_one(
        self, subject: Subject, pipeline_parallel_model: RegisteredComponent, request: pytest.FixtureRequest
    ) -> None:
        _skip_unless_slow(request)
        capabilities.check_pipeline_parallel(subject, pipeline_parallel_model)


_ARGUMENTS = {
    "any_component": None,
    "any_model": "model",
    "tokenizer": "tokenizer",
    "dataset": "data",
    "connector": "connector",
    "head": "head",
    "callback": "callbacks",
    "scheduler": "scheduler",
    "logger": "logger",
    "oracle": "oracle",
    "reader": "reader",
    "optimizer": "optim",
    "loss": "loss",
    "augmentation": "augmentation",
    "task": "task",
    "model": "model",
    "packing_model": "model",
    "decoding_model": "model",
    "tensor_parallel_model": "model",
    "pipeline_parallel_model": "model",
}
"""The arguments of the tests, and the group of their components."""

_STARTS_RANKS = frozenset({"tensor_parallel_model", "pipeline_parallel_model"})


def _skip_unless_slow(request: pytest.FixtureRequest) -> None:
    if not os.environ.get(SLOW_VARIABLE) and "slow" not in request.config.getoption("markexpr"):
        pytest.skip(f"starts two processes; set {SLOW_VARIABLE}=1 or give -m slow")


def _settings(cls: type[PluginConformance]) -> KitSettings:
    if not cls.plugin:
        raise ConformanceError(f'{cls.__name__}: name the plugin under test, as in `plugin = "mine"`.')
    return KitSettings(cls.plugin, cls.models, cls.small, cls.parameters, cls.overrides, cls.steps, cls.learning_rate)


def _components_for(cls: type[PluginConformance], group: str | None, argument: str) -> list[RegisteredComponent]:
    """Return the components for an argument; none if the plugin cannot be used, which another test reports."""
    from pathlib import Path

    subject = Subject(_settings(cls), Path())
    try:
        components = subject.components(group)
    except (ConformanceError, BioNeMoError):
        return []
    if group == "model" and argument != "any_model":
        components = _tested_models(cls, subject)
        capability = argument.removesuffix("_model")
        if capability != argument:
            components = [one for one in components if capability in one.component.capabilities]
    return components


def _tested_models(cls: type[PluginConformance], subject: Subject) -> list[RegisteredComponent]:
    if cls.models is None:
        return subject.components("model")
    return [subject.component("model", name) for name in cls.models]


def _marks(metafunc: pytest.Metafunc) -> list[pytest.MarkDecorator]:
    """Return the mark `slow` for a test that starts processes, if the author's project defines that mark."""
    known = any(line.split(":")[0].strip() == "slow" for line in metafunc.config.getini("markers"))
    return [pytest.mark.slow] if known and _STARTS_RANKS.intersection(metafunc.fixturenames) else []
