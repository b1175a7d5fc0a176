"""An encoder-decoder with a loss of whole sequences: the same on any number of ranks and micro batches.

The model is a small MolMIM: the perceiver's latents have a weighted loss of their own, whose weight grows with the
steps, and there is a metric of the decoded tokens.
"""

import csv
import math
import os

import pytest
from runs import Home, finish_ranks

from bionemo_core.testing import make_plugin

HOOKS = """
from bionemo_core import Component, configure, hookimpl

BIONEMO_PLUGIN_API = 1


def latent(positions: str = "learned_absolute", *, tokenizer, context):
    from latent.network import build

    return build(tokenizer, context, positions)


@hookimpl
def bionemo_models():
    yield Component("latent", configure(latent), "a perceiver with a loss of its latents",
                    defaults={"tokenizer": "prott5nv", "data": "sample"},
                    capabilities=frozenset({"packing", "tensor_parallel", "exact_resume"}))
"""
NETWORK = """
import torch

from bionemo_core.nn.layers import transformer_config
from bionemo_core.nn.seq2seq import Seq2SeqLM, Seq2SeqOptions, StackOptions
from bionemo_core.parallel.groups import start_groups
from bionemo_core.training.losses import Losses
from bionemo_core.training.module import LanguageModule
from bionemo_t5.spans import SpanCorruption


class Latent(Seq2SeqLM):
    step_number = 0

    def set_step(self, step):
        self.step_number = step

    def forward(self, batch):
        memory = self.encode(batch.source)
        real = memory.states[:, : memory.num_sequences]
        latent = real.float().square().mean((0, 2)).sum()
        weight = latent.new_tensor(float(self.step_number * memory.num_sequences))
        tokens = self.decoder_loss(memory, batch.target)
        return Losses(tokens, latent * self.step_number, {"latent_loss": latent, "weight": weight})


class FirstToken:
    def reset(self):
        self.sums = torch.zeros(2, dtype=torch.float64)

    def update(self, network, micro_batch):
        state = network.start(network.encode(micro_batch.source), 1)
        first = micro_batch.target.cu_seqlens[:-1].long()
        targets = micro_batch.target.tokens[0][first], micro_batch.target.labels[0][first]
        logits = network.step(targets[0], state)
        count = micro_batch.num_sequences
        self.sums += torch.tensor([torch.nn.functional.cross_entropy(logits, targets[1]) * count, count])

    def compute(self, groups):
        total, count = groups.sum_over_data(self.sums).tolist()
        return {"first_token_loss": total / count}


def build(tokenizer, context, positions):
    config = transformer_config(num_layers=2, hidden_size=32, num_attention_heads=4, init_method_std=0.1,
                                tensor_model_parallel_size=context.tensor_model_parallel_size)
    perceiver = {"encoder_arch": "perceiver", "hidden_steps": 3} if positions != "relative" else {}
    options = Seq2SeqOptions(128, 64, StackOptions(position_embedding_type=positions), **perceiver)
    objective = SpanCorruption(tokenizer, seq_length=128, seq_length_dec=64)
    torch.manual_seed(context.seed)
    groups = start_groups(context.tensor_model_parallel_size)
    network = (Latent if perceiver else Seq2SeqLM)(config, config, tokenizer.vocab_size, options, groups=groups)
    return LanguageModule(network, objective, seq_length=128, probes=[FirstToken()])
"""
STEPS = 4
COMMON = (
    "model=latent",
    "~model.num_layers",
    "~model.hidden_size",
    "batch.global_batch_size=4",
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=2",
    "checkpoint.every_n_steps=2",
    "scheduler=constant",
    "~scheduler.warmup_steps",
)
LAYOUTS = {
    "micro batches": ("batch.micro_batch_size=1",),
    "data": ("trainer.devices=2", "batch.micro_batch_size=2"),
    "tensor": ("trainer.devices=2", "parallel.tensor_model_parallel_size=2", "batch.micro_batch_size=4"),
}
COLUMNS = ("reduced_train_loss", "reduced_train_latent_loss", "grad_norm", "val_loss", "val_first_token_loss")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("plugin")
    make_plugin(folder, "latent", HOOKS, files={"network.py": NETWORK})
    return {"PYTHONPATH": os.fspath(folder), "BIONEMO_LOAD_PLUGINS": "bionemo-t5,bionemo-latent"}


def rows(home: Home, environment: dict[str, str], *arguments: str) -> list[dict[str, str]]:
    run = finish_ranks(home, *COMMON, *arguments, **environment)
    with (run.folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def run_one_process(home: Home, environment: dict[str, str], positions: str) -> list[dict[str, str]]:
    found = rows(home, environment, f"name=one-{positions}", f"model.positions={positions}", "batch.micro_batch_size=4")
    assert [float(row["step"]) for row in found] == list(range(1, STEPS + 1))
    return found


@pytest.fixture(scope="module")
def latent(home: Home, environment: dict[str, str]) -> list[dict[str, str]]:
    return run_one_process(home, environment, "learned_absolute")


def assert_close(found: list[dict[str, str]], reference: list[dict[str, str]]) -> None:
    for got, expected in zip(found, reference, strict=True):
        for column in COLUMNS:
            if expected.get(column):
                assert float(got[column]) == pytest.approx(float(expected[column]), rel=1e-5), column


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_reaches_the_losses_of_one_process(
    home: Home, environment: dict[str, str], latent: list[dict[str, str]], layout: str
) -> None:
    assert_close(rows(home, environment, f"name={layout.replace(' ', '-')}", *LAYOUTS[layout]), latent)


def test_relative_positions_split_over_tensor_ranks(home: Home, environment: dict[str, str]) -> None:
    arguments = ("name=relative-tensor", "model.positions=relative", *LAYOUTS["tensor"])
    assert_close(rows(home, environment, *arguments), run_one_process(home, environment, "relative"))


def test_the_weight_grows_with_the_steps_and_is_a_mean_over_sequences(latent: list[dict[str, str]]) -> None:
    assert [float(row["reduced_train_weight"]) for row in latent] == [0, 1, 2, 3]
    # The token loss is about that of a uniform guess; the reported loss is that plus the weighted latent loss.
    uniform = math.log(126)
    for step, row in enumerate(latent):
        tokens = float(row["reduced_train_loss"]) - step * float(row["reduced_train_latent_loss"])
        assert tokens == pytest.approx(uniform, rel=0.15)
        assert float(row["reduced_train_latent_loss"]) > 0.1
    # An evaluation uses the weight of the step that follows it.
    assert {row["step"]: float(row["val_weight"]) for row in latent if row["val_weight"]} == {"2": 2, "4": 4}
