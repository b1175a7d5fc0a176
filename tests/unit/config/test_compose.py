"""What a command line composes to: a model has defaults for other groups, and the command line overrides them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.errors import HydraException

from bionemo_core.config import store
from bionemo_core.config.schema import Choice
from bionemo_core.errors import ConfigError


def test_a_model_chooses_tokenizer_data_and_recipe(spec_of):
    spec = spec_of("model=esm1nv")
    assert (spec.tokenizer.name, spec.data.name, spec.optim.name, spec.scheduler.name) == (
        "esm1nv",
        "sample",
        "adamw",
        "cosine",
    )
    assert spec.optim.params["betas"] == [0.9, 0.98]
    assert spec.name == "esm1nv"
    assert [logger.name for logger in spec.loggers] == ["csv"]
    assert spec.callbacks == ()


def test_the_command_line_overrides_the_defaults_of_the_model(spec_of):
    spec = spec_of("tokenizer=esm2", "model=esm1nv_tiny", "scheduler=constant", "trainer.max_steps=7", "optim.lr=1")
    assert spec.tokenizer.name == "esm2"
    assert spec.scheduler == Choice("scheduler", "constant", {"warmup_steps": 0}, "bionemo-run", spec.scheduler.version)
    assert spec.trainer.max_steps == 7
    assert spec.trainer.val_check_interval == 250, "the rest of the model's own values stays"
    assert spec.optim.params["lr"] == 1.0


def test_qualified_names_are_choices_too(spec_of):
    assert spec_of("model=bionemo-esm/esm1nv").model == spec_of("model=esm1nv").model


def test_several_loggers_each_have_their_key(spec_of):
    spec = spec_of("model=esm1nv", "logger=[csv,wandb]", "logger.wandb.project=p")
    assert [logger.name for logger in spec.loggers] == ["csv", "wandb"]
    assert spec.loggers[1].params["project"] == "p"
    assert spec_of("model=esm1nv", "logger=null").loggers == ()


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder


def test_a_model_of_the_users_yaml_stands_on_a_registered_one(spec_of, tmp_path):
    folder = write(tmp_path, "model/mine.yaml", "defaults: [esm1nv]\nnum_layers: 2\n")
    spec = spec_of("model=mine", "model.hidden_size=64", folder=folder)
    assert (spec.model.name, spec.model.params["num_layers"], spec.model.params["hidden_size"]) == ("esm1nv", 2, 64)
    assert spec.tokenizer.name == "esm1nv"


def test_a_users_yaml_is_checked_against_the_schema(composed, tmp_path):
    folder = write(tmp_path, "model/mine.yaml", "defaults: [esm1nv]\nnum_layer: 2\n")
    with pytest.raises(HydraException, match="num_layer"):
        composed("model=mine", folder=folder)


def test_an_experiment_in_v1s_words(spec_of, tmp_path):
    folder = write(
        tmp_path,
        "experiment/small.yaml",
        """
defaults:
  - base_config
  - override /model: esm1nv_tiny
trainer: {max_steps: 11, accumulate_grad_batches: 2, precision: 32}
model:
  micro_batch_size: 4
  num_layers: 2
  optim: {name: fused_adam, lr: 1e-3, sched: {name: InverseSquareRootAnnealing, warmup_steps: 5}}
  data: {dataset_path: /data, dataset: {train: "x[000..003]"}, dynamic_padding: true}
exp_manager: {create_wandb_logger: true, wandb_logger_kwargs: {project: p, offline: true}}
""",
    )
    spec = spec_of("+experiment=small", folder=folder)
    assert (spec.model.name, spec.model.params["num_layers"]) == ("esm1nv_tiny", 2)
    assert (spec.trainer.max_steps, spec.trainer.precision) == (11, "32")
    assert (spec.batch.micro_batch_size, spec.batch.accumulate_grad_batches) == (4, 2)
    assert (spec.scheduler.name, spec.scheduler.params["warmup_steps"]) == ("inverse_square_root", 5)
    assert spec.optim.params["lr"] == 1e-3
    assert (spec.data.name, spec.data.params["train"]) == ("csv", "x[000..003]")
    assert [logger.name for logger in spec.loggers] == ["csv", "wandb"]
    assert (
        spec_of(
            "+experiment=small",
            "trainer.max_steps=3",
            "data=sample",
            folder=write(
                tmp_path, "experiment/small.yaml", "defaults: [{override /model: esm1nv}]\ntrainer: {max_steps: 11}\n"
            ),
        ).trainer.max_steps
        == 3
    )


def test_a_key_of_another_group_in_a_model_file_says_where_it_belongs(composed, tmp_path):
    folder = write(tmp_path, "model/mine.yaml", "defaults: [esm1nv]\nmicro_batch_size: 2\n")
    with pytest.raises(ConfigError, match=r"mine.*batch.*experiment"):
        composed("model=mine", folder=folder)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["data=fasta"], "keys need a value: data.path"),
        (["tokenizer=null"], "no tokenizer is chosen"),
        (["home=${oc.env:SURELY_UNSET_VARIABLE}"], "SURELY_UNSET_VARIABLE.*Set it"),
        (["name=a/b"], "name: got 'a/b'"),
        (["trainer.devices=0"], "trainer.devices: got 0"),
        (["trainer.precision=b16-mixed"], "Did you mean 'bf16-mixed'"),
        (["trainer.accelerator=gpus"], "Did you mean 'gpu'"),
        (["parallel.sharding_strategy=ful"], "Did you mean 'full'"),
        (["parallel.reduce_dtype=float16"], "Allowed: float32, bfloat16"),
        (["parallel.sharding_strategy=full", "parallel.shard_size=2"], "use parallel.sharding_strategy=hybrid"),
        (["checkpoint.mode=mins"], "Did you mean 'min'"),
        (["trainer.gradient_clip_val=-1"], "gradient_clip_val"),
        (["trainer.gradient_clip_val=0"], "trainer.gradient_clip_val: got 0"),
        (["checkpoint.keep_last=1"], "checkpoint.keep_last: got 1"),
        (["seed=-1"], "seed: got -1"),
        ([f"seed={2**32}"], "seed: got 4294967296, expected 0 to 4294967295"),
    ],
)
def test_invalid_values_are_refused(spec_of, typed, words):
    with pytest.raises(ConfigError, match=words):
        spec_of("model=esm1nv", *typed)


def test_the_folder_of_runs_follows_the_environment(spec_of, monkeypatch):
    monkeypatch.setenv("BIONEMO_HOME", "~/elsewhere")
    assert spec_of("model=esm1nv").home == str(Path("~/elsewhere").expanduser())


def test_multiply_is_understood(spec_of):
    spec = spec_of(
        "model=esm1nv", "trainer.max_steps=1000", "scheduler.warmup_steps=${multiply:${trainer.max_steps},0.01}"
    )
    assert spec.scheduler.params["warmup_steps"] == 10


def nodes_in(folder: dict[str, Any]) -> Iterator[ConfigNode]:
    for entry in folder.values():
        yield from nodes_in(entry) if isinstance(entry, dict) else (entry,)


def test_only_what_a_run_reads_is_made(registry, composed, monkeypatch):
    """Making, or copying, all nodes would take longer than all else that composing does."""
    monkeypatch.setattr(store, "_filled", None)
    store.fill_store(registry)
    composed("model=esm1nv_tiny")
    held = [node for node in nodes_in(ConfigStore.instance().repo) if isinstance(node, store.LazyNode)]
    made = [node for node in held if "node" in vars(node)]
    assert 10 < len(made) < 40 < len(held)
    assert not hasattr(ConfigStore.instance(), "__deepcopy__")


def test_hydras_store_hands_out_copies(registry):
    store.fill_store(registry)
    first, second = (ConfigStore.instance().load("model/bionemo-esm/esm1nv_tiny.yaml") for _ in range(2))
    assert type(first) is ConfigNode
    before, first.node.num_layers = first.node.num_layers, 1234
    again = ConfigStore.instance().load("model/esm1nv_tiny.yaml")
    assert second.node.num_layers == again.node.num_layers == before
