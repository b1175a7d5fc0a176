"""v1's keys are rewritten to today's keys."""

import pytest

from bionemo_core.config.v1.aliases import ALIASES, Fate, alias_table, new_home, render_aliases
from bionemo_core.config.v1.rewriting import rewrite_command_line, rewrite_mapping
from bionemo_core.errors import ConfigError


@pytest.mark.parametrize(
    ("typed", "here"),
    [
        ("trainer.devices=2", ["trainer.devices=2"]),
        ("trainer.precision=bf16", ["trainer.precision=bf16-mixed"]),
        ("trainer.accumulate_grad_batches=4", ["batch.accumulate_grad_batches=4"]),
        ("model.micro_batch_size=4", ["batch.micro_batch_size=4"]),
        ("++model.global_batch_size=64", ["++batch.global_batch_size=64"]),
        ("model.tensor_model_parallel_size=2", ["parallel.tensor_model_parallel_size=2"]),
        ("model.optim.lr=1e-3,2e-3", ["optim.lr=1e-3,2e-3"]),
        ("model.optim.name=fused_adam", ["optim=adamw"]),
        ("++model.optim.sched.name=CosineAnnealing", ["scheduler=cosine"]),
        ("model.optim.sched.warmup_steps=5", ["scheduler.warmup_steps=5"]),
        ("model.optim.sched.max_lr=1e-4", ["optim.lr=1e-4"]),
        ("scheduler=NoamAnnealing", ["scheduler=noam"]),
        ("scheduler=CosineAnnealing,noam", ["scheduler=cosine,noam"]),
        ("model.data.num_workers=3", ["batch.num_workers=3"]),
        ("data.dynamic_padding=True", ["batch.dynamic_padding=True"]),
        ("model.data.modify_percent=0.2", ["model.modify_percent=0.2"]),
        ("data.dataset.train=x[000..049]", ["data.train='x[000..049]'", "data=csv"]),
        ("model.data.dataset_path=/data", ["data.dataset_path=/data", "data=csv"]),
        ("model.data.data_impl=fasta_fields_mmap", ["data=fasta"]),
        ("model.data.data_impl_kwargs.csv_mmap.data_col=1", ["data.data_col=1", "data=csv"]),
        ("exp_manager.checkpoint_callback_params.monitor=val_loss", ["checkpoint.monitor=val_loss"]),
        ("exp_manager.checkpoint_callback_params.save_top_k=3", ["checkpoint.save_top_k=3"]),
        ("exp_manager.create_wandb_logger=True", ["logger=[csv,wandb]"]),
        ("exp_manager.wandb_logger_kwargs.project=p", ["logger.wandb.project=p", "logger=[csv,wandb]"]),
        ("exp_manager.resume_if_exists=True", ["resume=auto"]),
        ("do_training=False", ["task.do_training=False"]),
        ("do_testing=True", ["task.do_testing=True"]),
        ("model.seed=7", ["seed=7"]),
        ("model.activations_checkpoint_granularity=full", ["trainer.activations_checkpoint_granularity=full"]),
        ("model.activations_checkpoint_granularity=null", ["trainer.activations_checkpoint_granularity=none"]),
        ("model.activations_checkpoint_method=block", ["trainer.activations_checkpoint_method=block"]),
        ("model.activations_checkpoint_num_layers=4", ["trainer.activations_checkpoint_num_layers=4"]),
        ("restore_from_path=/x", ["restore_from_path=/x"]),
        ("model.seq_length=128", ["model.seq_length=128"]),
        ("~logger", ["~logger"]),
        ("hydra.run.dir=x[0..1]", ["hydra.run.dir=x[0..1]"]),
        ("seed=${model.seed}", ["seed=${seed}"]),
    ],
)
def test_a_v1_key_on_the_command_line_goes_to_its_new_home(typed, here):
    rewritten, _ = rewrite_command_line([typed])
    assert rewritten == here
    assert rewrite_command_line(rewritten)[0] == here, "the other ranks repeat the command line"


def test_wandb_settings_are_dropped_where_wandb_is_switched_off():
    typed = [
        "exp_manager.create_wandb_logger=False",
        "exp_manager.wandb_logger_kwargs.project=p",
        "logger=[csv,tensorboard]",
    ]
    assert rewrite_command_line(typed)[0] == ["logger=[csv,tensorboard]"]


def test_a_choice_that_is_typed_beats_the_implied_one():
    assert rewrite_command_line(["data=mine", "data.dataset_path=/x"])[0] == ["data=mine", "data.dataset_path=/x"]


def test_keys_without_a_meaning_are_said_aloud_once():
    _, notes = rewrite_command_line(["model.pre_process=True", "model.pre_process=True", "trainer.benchmark=True"])
    assert len(notes) == 2
    assert "model.pre_process is ignored" in notes[0]


def test_a_key_that_a_component_has_is_its_own():
    rewritten, notes = rewrite_command_line(
        ["model.bias_activation_fusion=false"], frozenset({"model.bias_activation_fusion"})
    )
    assert rewritten == ["model.bias_activation_fusion=false"]
    assert notes == []


@pytest.mark.parametrize(
    "typed",
    [
        "model.bert_binary_head=True",
        "data.reset_attention_mask=true",
        "trainer.devices=[0,1]",
        "data.use_upsampling=False",
    ],
)
def test_what_would_change_the_result_is_refused(typed):
    with pytest.raises(ConfigError, match=typed.partition("=")[0]):
        rewrite_command_line([typed])
    if typed.startswith("model.bert"):
        assert rewrite_command_line(["model.bert_binary_head=False"]) == ([], [])


def test_a_v1_file_is_read_whole():
    content = {
        "name": "mine",
        "do_testing": True,
        "trainer": {"devices": 1, "precision": "16", "accumulate_grad_batches": 2, "logger": False},
        "exp_manager": {"create_wandb_logger": True, "wandb_logger_kwargs": {"project": "p"}, "exp_dir": "/x"},
        "model": {
            "micro_batch_size": 4,
            "num_layers": 3,
            "tokenizer": {"library": "sentencepiece"},
            "optim": {"name": "fused_adam", "lr": 1e-3, "sched": {"name": "NoamAnnealing", "warmup_steps": 5}},
            "data": {
                "dataset_path": "/data",
                "dataset": {"train": "x[000..003]", "val": "x000"},
                "micro_batch_size": "${model.micro_batch_size}",
                "max_seq_length": "${model.seq_length}",
                "modify_percent": 0.2,
            },
        },
    }
    rewritten, entries, notes = rewrite_mapping(content)
    assert rewritten == {
        "name": "mine",
        "task": {"do_testing": True},
        "trainer": {"devices": 1, "precision": "16-mixed"},
        "batch": {"accumulate_grad_batches": 2, "micro_batch_size": 4, "seq_length": "${model.seq_length}"},
        "logger": {"wandb": {"project": "p"}},
        "model": {"num_layers": 3, "modify_percent": 0.2},
        "optim": {"lr": 1e-3},
        "scheduler": {"warmup_steps": 5},
        "data": {"dataset_path": "/data", "train": "x[000..003]", "val": "x000"},
    }
    assert {"override /data": "csv"} in entries
    assert {"override /scheduler": "noam"} in entries
    assert {"override /logger": ["csv", "wandb"]} in entries
    assert any("model.tokenizer" in note for note in notes)


def test_the_table_documents_itself_and_every_key_comes_to_rest():
    assert len(alias_table()) == len(ALIASES)
    assert len({alias.old for alias in ALIASES}) == len(ALIASES)
    assert "| `model.micro_batch_size` | `batch.micro_batch_size` |" in render_aliases()
    for alias in ALIASES:
        if alias.fate is Fate.MOVED:
            new_home(alias.old.replace("*", "anything"))
        if alias.fate in (Fate.IGNORED, Fate.REFUSED):
            assert alias.note
