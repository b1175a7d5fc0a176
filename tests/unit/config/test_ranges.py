"""Every numeric key has a range; a value outside is refused before anything starts, and one inside is no bug."""

import copy
import math
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.plugins.environments import LightningEnvironment

from bionemo_core.builtin import load_registry
from bionemo_core.config.batch_plan import batch_plan
from bionemo_core.config.schema import CORE_GROUPS, OPENED, SEVERAL_AT_ONCE
from bionemo_core.config.spec import make_spec
from bionemo_core.errors import BioNeMoError, ConfigError
from bionemo_core.parallel.rendezvous import RankLauncher
from bionemo_core.plugins import Component, RegisteredComponent, configure
from bionemo_core.plugins.configure import NO_VALUE, ConfigKey, keys_of_dataclass
from bionemo_core.protocols import BuildContext
from bionemo_core.ranges import ANY, Count, Dropout, Natural, Range, check_range
from bionemo_core.runs import cores, memory_estimate
from bionemo_core.runs.cores import refuse_oversubscription
from bionemo_core.runs.device import Device, choose_device

pytest.importorskip("bionemo_molbart")
pytest.importorskip("bionemo_t5")

VALUES = (0, -1, 2, 1_000_000_000, math.nan)
CORE_KEYS = [(group, key) for group, schema in CORE_GROUPS.items() for key in keys_of_dataclass(schema)]
CONTEXT = BuildContext(seed=1, home="home")


def is_number(kind: Any) -> bool:
    return kind in (int, float) or any(is_number(member) for member in get_args(kind))


def component_keys() -> Iterator[tuple[RegisteredComponent, ConfigKey]]:
    for registered in load_registry().components():
        yield from ((registered, key) for key in registered.keys if is_number(key.type))


def test_every_numeric_key_declares_its_range():
    core = [f"{group}.{key.name}" for group, key in CORE_KEYS if is_number(key.type) and key.limits is None]
    others = {f"{one.group}={one.name}: {key.name}" for one, key in component_keys() if key.limits is None}
    assert (core, others) == ([], set())


def test_every_default_is_in_its_range():
    for registered, key in component_keys():
        if key.default != NO_VALUE:
            check_range(f"{registered.group}.{registered.name}.{key.name}", key.default, key.limits)


def typed(kind: Any, value: float) -> Any:
    """The value as the configuration has it: in a list if the key takes one, a float if it takes floats."""
    members = [member for member in (kind, *get_args(kind)) if is_number(member)]
    if any("list" in str(member) for member in members):
        return [float(value)]
    return value if int in members or math.isnan(value) else float(value)


@pytest.fixture(scope="module")
def tiny(composed) -> DictConfig:
    """A configuration that is composed once; composing takes ten times as long as all that is tested here."""
    return composed("model=esm1nv_tiny")


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(("group", "key"), [pair for pair in CORE_KEYS if is_number(pair[1].type)])
def test_a_value_of_the_core_is_refused_by_name_or_taken(tiny, registry, group, key, value):
    whole = int in (key.type, *get_args(key.type))
    limits = key.limits or ANY
    config = copy.deepcopy(tiny)
    try:
        OmegaConf.update(config, f"{group}.{key.name}", value)
        spec = make_spec(config, registry)
    except ConfigError as error:
        assert f"{group}.{key.name}" in str(error)
        assert not limits.admits(value) or (group, key.name) in {
            ("parallel", "pipeline_model_parallel_size"), ("parallel", "tensor_model_parallel_size"),
            ("trainer", "activations_checkpoint_num_layers"),
        }  # fmt: skip
    except OmegaConfBaseException as error:
        assert whole and math.isnan(value), error
        assert f"full_key: {group}.{key.name}" in str(error)
    else:
        assert limits.admits(value)
        assert getattr(getattr(spec, group), key.name) == value


@pytest.mark.parametrize(("value", "taken"), [(0, False), (-1, False), (2, True), (math.nan, False)])
def test_a_value_that_is_typed_goes_the_same_way(spec_of, value, taken):
    typed_words = ("model=esm1nv_tiny", f"trainer.log_every_n_steps={value}")
    if taken:
        assert spec_of(*typed_words).trainer.log_every_n_steps == value
    else:
        with pytest.raises((ConfigError, HydraException), match=r"trainer\.log_every_n_steps"):
            spec_of(*typed_words)


@pytest.mark.parametrize("value", VALUES)
def test_a_value_of_a_component_is_refused_by_name_before_it_is_built(value):
    for registered, key in component_keys():
        admitted = (key.limits or ANY).admits(value)
        try:
            registered.check_ranges({key.name: typed(key.type, value)})
        except ConfigError as error:
            assert not admitted
            assert str(error).startswith(f"{registered.group}.{key.name}: got ")
        else:
            assert admitted


SMALL = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "seq_length": 32, "ffn_hidden_size": 16}
FAMILIES = ("esm1nv_tiny", "esm2_8m", "prott5nv_tiny", "megamolbart_xsmall", "molmim_xsmall")
BUILT = ("optim", "scheduler", "head")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_is_built_or_refused_whatever_a_number_is(name, spec_of):
    registry = load_registry()
    spec = spec_of(f"model={name}")
    tokenizer = registry.build(spec.tokenizer, context=CONTEXT)
    registered = registry.get("model", name)
    for key in registered.keys:
        for value in VALUES if is_number(key.type) else ():
            params = {**spec.model.params, **SMALL, key.name: typed(key.type, value)}
            run = _replace_model(spec, params)
            try:
                registered.check_ranges(params)
                memory_estimate.refuse_absurd(run, batch_plan(run), Device("cpu", "32"))
                registry.build(run.model, tokenizer=tokenizer, context=CONTEXT)
            except BioNeMoError:
                continue


def _replace_model(spec: Any, params: dict[str, Any]) -> Any:
    from dataclasses import replace

    return replace(spec, model=replace(spec.model, params=params))


@pytest.mark.parametrize("group", BUILT)
def test_other_components_are_built_or_refused_too(group):
    registry = load_registry()
    for registered in registry.components(group):
        needed = {key.name: 8 for key in registered.keys if key.default == NO_VALUE}
        for key in registered.keys:
            for value in VALUES if is_number(key.type) else ():
                try:
                    made = registered.factory(**registered.complete({**needed, key.name: typed(key.type, value)}))
                    if group == "scheduler":
                        assert math.isfinite(made(3, base_lr=1e-3, max_steps=10))
                except BioNeMoError:
                    continue


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.num_layers": 10**9}, r"1,000,000,000 layers x \(4 x .*Lower model.num_layers"),
        ({"model.hidden_size": 10**8}, "weights, gradients and Adam"),
        ({"batch.micro_batch_size": 10**9}, r"1,000,000,000 rows x 512 tokens.*Lower batch.micro_batch_size"),
        ({"batch.accumulate_grad_batches": 10**9}, "the token ids of a step"),
    ],
)
def test_absurd_sizes_are_refused_with_the_arithmetic(changes, words, spec_of):
    spec = spec_of("model=esm1nv_tiny", *(f"{key}={value}" for key, value in changes.items()))
    with pytest.raises(ConfigError, match=words):
        memory_estimate.refuse_absurd(spec, batch_plan(spec), Device("cpu", "32"))


def test_a_window_of_packs_and_the_ranks_are_counted(spec_of, monkeypatch):
    monkeypatch.setattr(memory_estimate, "host_bytes", lambda: 64 * memory_estimate.GIB)
    for changes, words in (
        (["batch.pack_window=1000000000"], r"238\.4 GiB .*1,000,000,000 x 256 bytes.*Lower batch\.pack_window\.$"),
        (["trainer.devices=1000"], r"93\.8 GiB for ranks \(1,000 x 96 MiB\).*Lower trainer\.devices\.$"),
        (["trainer.devices=64", "batch.num_workers=100"], r"has 1\.0 GiB\. Lower batch.num_workers or trainer.devices"),
    ):
        spec = spec_of("model=esm1nv_tiny", *changes)
        with pytest.raises(ConfigError, match=words):
            memory_estimate.refuse_absurd(spec, batch_plan(spec), Device("cpu", "32"))
    spec = spec_of("model=esm1nv_tiny")
    memory_estimate.refuse_absurd(spec, batch_plan(spec), Device("cpu", "32"))


def test_processes_and_threads_are_counted_against_the_cores(spec_of, monkeypatch, caplog):
    monkeypatch.setattr(cores, "cpu_threads", lambda: 2)
    for changes, words in (
        (["trainer.devices=1000"], r"trainer\.devices: 1,000 processes, but this machine has 2 CPU cores.*: 32"),
        (["batch.num_workers=1000"], r"batch\.num_workers: 1,000 loader processes.*Lower batch\.num_workers\."),
        (["trainer.num_threads=4096"], r"trainer\.num_threads: 4,096 threads.*Lower trainer\.num_threads\."),
        (["trainer.num_threads=17", "trainer.devices=2"], "17 x 2 devices = 34 threads.*or trainer.devices"),
        (["task=prepare", "task.num_workers=33"], "task.num_workers: 33 processes"),
    ):
        with pytest.raises(ConfigError, match=words):
            refuse_oversubscription(spec_of("model=esm1nv_tiny", *changes), ranks_use_cores=True)
    refuse_oversubscription(spec_of("model=esm1nv_tiny", "trainer.devices=16"), ranks_use_cores=True)
    assert not caplog.records
    refuse_oversubscription(spec_of("model=esm1nv_tiny", "trainer.num_threads=32"), ranks_use_cores=True)
    assert "more threads than the 2 CPU cores" in caplog.text


def test_a_training_has_the_threads_that_were_asked_for(spec_of, monkeypatch):
    """Lightning's launcher sets a number of its own unless a variable of the environment has one."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that it is put back
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("LOCAL_RANK", "0")
    before, asked = torch.get_num_threads(), cores.cpu_threads() + 1
    try:
        choose_device(spec_of("model=esm1nv_tiny", "trainer.accelerator=cpu", f"trainer.num_threads={asked}"))
        assert RankLauncher(LightningEnvironment(), 1, 1).launch(torch.get_num_threads) == asked
    finally:
        torch.set_num_threads(before)


def test_loader_processes_are_counted(spec_of, monkeypatch):
    with pytest.raises(ConfigError, match=r"batch.num_workers: got 10000, expected 0 to 1,024"):
        spec_of("model=esm1nv_tiny", "batch.num_workers=10000")
    spec = spec_of("model=esm1nv_tiny", "batch.num_workers=1000")
    monkeypatch.setattr(memory_estimate, "host_bytes", lambda: 8 * memory_estimate.GIB)
    with pytest.raises(ConfigError, match=r"15\.6 GiB for loader processes \(1,000 x 16 MiB\).*has 8\.0 GiB"):
        memory_estimate.refuse_absurd(spec, batch_plan(spec), Device("cpu", "32"))


def test_the_presets_fit_into_what_they_were_trained_on(spec_of):
    for name in load_registry().names("model"):
        if name in (OPENED, "finetuned"):
            continue
        spec = spec_of(f"model={name}")
        needs = memory_estimate.device_needs(spec, batch_plan(spec), 2)
        assert sum(need.num_bytes for need in needs[:1]) < 320 * memory_estimate.GIB


def test_ranges_in_words():
    assert [str(one) for one in (Range(1), Range(0, 1), Range(above=0), Range(least=0, below=1), ANY)] == [
        "1 or more", "0 to 1", "above 0", "0 or more and below 1", "a finite number",
    ]  # fmt: skip


@given(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([Range(1), Range(0, 1), Range(above=0), ANY]))
def test_only_finite_numbers_are_admitted(value, limits):
    assert not limits.admits(value) or math.isfinite(value)


def test_an_authors_range_is_checked():
    def thing(size: Count = 1, rate: Dropout = 0.0, more: Natural = 0) -> None: ...

    registered = RegisteredComponent("data", Component("thing", configure(thing)), "d", "1")
    assert [key.type for key in registered.keys] == [int, float, int]
    with pytest.raises(ConfigError, match=r"data\.rate: got 1\.0, expected 0 or more and below 1"):
        registered.complete({"rate": 1})
    assert set(SEVERAL_AT_ONCE) == {"logger", "callbacks"}
