"""A saved run consists of names and plain values, and is the same after reading it back."""

import json
from dataclasses import replace

import pytest

from bionemo_core.builtin import load_registry
from bionemo_core.config.batch_plan import BatchPlan, batch_plan, refuse_unsupported
from bionemo_core.config.schema import Batch, Choice, Parallel, RunSpec, Trainer
from bionemo_core.config.spec import Change, difference, from_json, to_json
from bionemo_core.config.task_spec import task_spec
from bionemo_core.config.value_checks import check_values
from bionemo_core.errors import ArtefactError, ConfigError


@pytest.fixture(scope="module")
def spec(spec_of) -> RunSpec:
    return spec_of("model=esm1nv_tiny", "logger=[csv,wandb]")


def test_json_round_trip(spec):
    assert from_json(to_json(spec)) == spec


def test_a_home_in_a_storage_service_is_refused(spec_of):
    with pytest.raises(ConfigError, match="home=s3://bucket/home: expected a folder on a disk"):
        spec_of("model=esm1nv_tiny", "home=s3://bucket/home")


def changed(spec: RunSpec, **changes: object) -> str:
    content = json.loads(to_json(spec))
    for dotted, value in changes.items():
        *folders, last = dotted.split("__")
        inner = content
        for folder in folders:
            inner = inner[folder]
        inner[last] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    "changes",
    [
        {"model__params___target_": "os.system"},
        {"model__params__num_layers": {"_target_": "os.system"}},
        {"model__params__activation": "${oc.env:HOME}"},
        {"model__params__activation": "???"},
        {"name": "../outside"},
        {"home": "${oc.env:HOME}"},
        {"extra": 1},
        {"trainer__extra": 1},
        {"trainer__max_steps": "many"},
        {"trainer__devices": -1},
        {"model__group": "task"},
        {"model__extra": 1},
        {"seed": True},
        {"seed": "1"},
        {"loggers": {}},
        {"format": "other"},
        {"format_version": 99},
    ],
)
def test_hostile_or_damaged_json_is_refused(spec, changes):
    with pytest.raises(ArtefactError):
        from_json(changed(spec, **changes))


def test_a_run_of_an_earlier_version_has_the_later_settings_by_default(spec):
    content = json.loads(to_json(spec))
    del content["trainer"]["cuda_graphs"]
    assert from_json(json.dumps(content)) == spec
    del content["trainer"]["max_steps"]
    with pytest.raises(ArtefactError, match=r"trainer: wrong keys \(missing: max_steps\)"):
        from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 100_000])
def test_what_is_no_run_is_refused(text):
    with pytest.raises(ArtefactError):
        from_json(text)


def test_difference_names_keys_as_they_are_typed(spec):
    other = replace(
        spec,
        model=replace(spec.model, params={**spec.model.params, "num_layers": 9}),
        trainer=replace(spec.trainer, max_steps=1),
        data=Choice("data", "fasta", {"path": "x"}),
    )
    changes = difference(spec, other)
    assert Change("model.num_layers", spec.model.params["num_layers"], 9) in changes
    assert Change("trainer.max_steps", 5000, 1) in changes
    assert Change("data", "sample", "fasta") in changes
    assert Change("data.path", "(absent)", "x") in changes
    assert difference(spec, spec) == []


def sized(spec: RunSpec, *, devices: int = 1, tp: int = 1, **batch: object) -> RunSpec:
    return replace(
        spec,
        trainer=Trainer(devices=devices),
        parallel=Parallel(tensor_model_parallel_size=tp),
        batch=Batch(**batch),
    )


@pytest.mark.parametrize(
    ("sizes", "frozen", "expected"),
    [
        ({"devices": 4, "micro_batch_size": 2}, None, BatchPlan(4, 1, 2, 1, 8)),
        ({"devices": 4, "tp": 2, "micro_batch_size": 2, "accumulate_grad_batches": 3}, None, BatchPlan(2, 2, 2, 3, 12)),
        ({"devices": 2, "micro_batch_size": 2, "global_batch_size": 32}, None, BatchPlan(2, 1, 2, 8, 32)),
        ({"micro_batch_size": 2, "global_batch_size": 8, "accumulate_grad_batches": 4}, None, BatchPlan(1, 1, 2, 4, 8)),
        ({"devices": 1, "micro_batch_size": 4, "accumulate_grad_batches": 1}, 16, BatchPlan(1, 1, 4, 4, 16)),
        ({"devices": 4, "micro_batch_size": 4, "accumulate_grad_batches": 7}, 16, BatchPlan(4, 1, 4, 1, 16)),
    ],
)
def test_batch_arithmetic(spec, sizes, frozen, expected):
    assert batch_plan(sized(spec, **sizes), frozen_global_batch_size=frozen) == expected


@pytest.mark.parametrize(
    ("sizes", "frozen", "words"),
    [
        (
            {"devices": 2, "micro_batch_size": 4, "global_batch_size": 10, "accumulate_grad_batches": 2}, None,
            r"micro 4 x accumulate 2 x devices 2 x nodes 1 / \(tp 1 x pp 1\) = 16",
        ),
        ({"micro_batch_size": 4, "global_batch_size": 6}, None, "batch.micro_batch_size=3 works"),
        ({"devices": 3, "tp": 2}, None, "cannot be split into groups of 2"),
        ({"devices": 3, "micro_batch_size": 1}, 16, "divides 16; 3 does not"),
        ({"global_batch_size": 8}, 16, "began with 16"),
    ],
)  # fmt: skip
def test_contradictions_are_refused_with_the_arithmetic(spec, sizes, frozen, words):
    with pytest.raises(ConfigError, match=words):
        batch_plan(sized(spec, **sizes), frozen_global_batch_size=frozen)


def test_layouts_that_are_not_supported_are_refused_by_name(spec):
    with pytest.raises(
        ConfigError, match=r"sequence_parallel=true does not work with .*pipeline_model_parallel_size=2"
    ):
        refuse_unsupported(replace(spec, parallel=Parallel(2, 2, sequence_parallel=True)))
    downstream = (Choice("callbacks", "downstream"),)
    with pytest.raises(ConfigError, match=r"downstream.* needs the whole model .*pipeline_model_parallel_size=2"):
        refuse_unsupported(replace(spec, parallel=Parallel(1, 2), callbacks=downstream))
    with pytest.raises(ConfigError, match="sequence_parallel=true"):
        refuse_unsupported(replace(spec, parallel=Parallel(1, sequence_parallel=True)))


@pytest.mark.parametrize("model", ["prott5nv_tiny", "megamolbart", "molmim_70m"])
def test_a_pipeline_of_an_encoder_decoder_is_refused_by_name(spec_of, model):
    with pytest.raises(ConfigError, match=f"{model} does not declare 'pipeline_parallel'"):
        spec_of(f"model={model}", "parallel.pipeline_model_parallel_size=2", "trainer.devices=2")


def test_every_task_names_a_function_that_is_there():
    registry = load_registry()
    for name in registry.names("task"):
        assert callable(task_spec(registry, name).load())


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_beyond_32_bits_is_refused(spec, seed):
    check_values(replace(spec, seed=2**32 - 1))
    with pytest.raises(ConfigError, match=f"seed: got {seed}, expected 0 to 4294967295"):
        check_values(replace(spec, seed=seed))
