"""The training step against the same steps written out with plain torch: losses, norms, rates and weights."""

import copy
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bionemo_core.data.batches.batch import StepBatch, TokenBatch
from bionemo_core.data.batches.loader import LoaderSettings, train_loader
from bionemo_core.data.batches.masking import MaskedLanguageObjective
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import NonFiniteError
from bionemo_core.parallel.dropout import seed_micro_batch
from bionemo_core.parallel.strategy import MegatronStrategy
from bionemo_core.testing.runs import alone_in_process
from bionemo_core.training.gradients import LossScaler
from bionemo_core.training.losses import Losses
from bionemo_core.training.module import MAX_SKIPPED_STEPS, LanguageModule, Recipe
from bionemo_core.training.optim import AdamW

pytestmark = pytest.mark.filterwarnings("ignore")

TOKENIZER = CharacterTokenizer(
    ["<pad>", "<bos>", "<eos>", "<unk>", "<mask>", *"ACDEFGHIKL"], pad_id=0, bos_id=1, eos_id=2, unk_id=3, mask_id=4
)
OBJECTIVE = MaskedLanguageObjective(
    mask_id=TOKENIZER.mask_id, special_ids=TOKENIZER.special_ids, vocab_size=TOKENIZER.vocab_size
)
SEED, CLIP, STEPS = 7, 0.4, 6
OPTIM = AdamW(lr=0.02, weight_decay=0.5, betas=[0.8, 0.9])


class Network(nn.Module):
    """Dropout, a norm and biases; its loss of sequences is the square of the head's bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENIZER.vocab_size, 16)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, TOKENIZER.vocab_size)
        self.step, self.bad_steps = -1, range(0)

    def set_step(self, step: int) -> None:
        self.step = step

    def forward(self, batch: TokenBatch) -> Losses:
        hidden = F.dropout(self.norm(self.embedding(batch.tokens)), 0.3, self.training)
        logits = self.head(hidden[batch.loss_mask]).float()
        tokens = F.cross_entropy(logits, batch.labels[batch.loss_mask], reduction="sum")
        factor = math.inf if self.step in self.bad_steps else 1.0
        return Losses(tokens * factor, self.head.bias.float().square().sum() * batch.num_sequences)


def rate(step: int) -> float:
    return 0.01 * (step + 1)


def new_network(bad_steps: range = range(0)) -> Network:
    torch.manual_seed(1)
    network = Network()
    network.bad_steps = bad_steps
    return network


def batches(first: int = 0, last: int = STEPS, consumed: int = 0) -> list[StepBatch]:
    proteins = ["ACDEFGHIKL" * (1 + n % 5) for n in range(50)]  # so that the counts of tokens differ
    settings: dict[str, Any] = {"seq_length": 64, "micro_batch_size": 3, "global_batch_size": 6, "packing": False}
    where = {"first_step": first, "last_step": last, "consumed_samples": consumed}
    return list(train_loader(proteins, TOKENIZER, OBJECTIVE, LoaderSettings(**settings), **where))


class Steps:
    """A loader; Lightning takes a list for several loaders."""

    def __init__(self, steps: list[StepBatch]) -> None:
        self.steps = copy.deepcopy(steps)

    def __iter__(self) -> Iterator[StepBatch]:
        return iter(self.steps)


class Recorder(pl.Callback):
    """What every step logged, and the weights after it."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []
        self.weights: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.metrics.append(dict(pl_module.metrics))
        self.weights.append({name: value.detach().clone() for name, value in pl_module.network.state_dict().items()})


def fit(
    network: Network,
    steps: list[StepBatch],
    scaler: LossScaler | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    checkpoint: Path | None = None,
    save: Path | None = None,
) -> Recorder:
    """Train as a run does, in this process; resume from `checkpoint`, and save one below `save` at the end."""
    recorder = Recorder()
    module = LanguageModule(network, OBJECTIVE, seq_length=64)
    module.recipe = Recipe(OPTIM, rate, seed=SEED, gradient_clip_val=CLIP, scaler=scaler or LossScaler())
    with alone_in_process(), patch.dict(os.environ):  # Lightning leaves its port there
        trainer = pl.Trainer(
            strategy=MegatronStrategy(dtype=dtype),
            accelerator="cpu",
            devices=1,
            max_steps=steps[-1].step + 1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[recorder],
        )
        resumed: Any = {"ckpt_path": str(checkpoint), "weights_only": False} if checkpoint else {}
        trainer.fit(module, train_dataloaders=Steps(steps), **resumed)
        if save:
            trainer.save_checkpoint(save)
    return recorder


def plain_steps(network: Network, steps: list[StepBatch], skipped: range = range(0)) -> Iterator[tuple[float, float]]:
    """Train with plain torch; yield the loss and the gradient norm of each step."""
    decayed = [network.embedding.weight, network.head.weight]
    kept = [network.norm.weight, network.norm.bias, network.head.bias]
    groups = [{"params": decayed, "weight_decay": 0.5}, {"params": kept, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.02, betas=(0.8, 0.9), eps=1e-8)
    for number, step in enumerate(steps):
        tokens, sequences = step.num_loss_tokens, step.num_sequences
        optimizer.zero_grad()
        total = 0.0
        for index, micro_batch in enumerate(step.micro_batches):
            seed_micro_batch(SEED, number, 0, index)
            losses = network(micro_batch)
            loss = losses.tokens / tokens + losses.sequences / sequences
            loss.backward()
            total += loss.item()
        norm = nn.utils.clip_grad_norm_(network.parameters(), CLIP).item()
        for group in optimizer.param_groups:
            group["lr"] = rate(number)
        if number not in skipped:
            optimizer.step()
        yield total, norm


@pytest.mark.parametrize("scale", [1.0, 2.0**14])
def test_a_step_is_that_of_plain_torch(scale: float) -> None:
    steps = batches()
    network, plain = new_network(), new_network()
    scaler = LossScaler(scale=scale, dynamic=scale > 1)
    recorder = fit(network, steps, scaler)
    for number, (loss, norm) in enumerate(plain_steps(plain, steps)):
        metrics = recorder.metrics[number]
        assert metrics["reduced_train_loss"] == pytest.approx(loss, rel=1e-5)
        assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-5)
        assert metrics["lr"] == rate(number)
        assert metrics["loss_scale"] == scale
        for name, weights in plain.state_dict().items():
            assert torch.allclose(recorder.weights[number][name], weights, atol=1e-5), f"step {number}: {name}"
    assert norm > CLIP, "nothing was clipped"


def test_a_step_that_overflows_is_skipped_and_lowers_the_scale() -> None:
    steps, bad = batches(), range(2, 4)
    plain = new_network()
    recorder = fit(new_network(bad), steps, LossScaler(scale=2.0**14, dynamic=True))
    for number, _ in enumerate(plain_steps(plain, steps, skipped=bad)):
        for name, weights in plain.state_dict().items():
            assert torch.allclose(recorder.weights[number][name], weights, atol=1e-5), f"step {number}: {name}"
    scales = [metrics["loss_scale"] for metrics in recorder.metrics]
    assert scales == [2.0**14] * 3 + [2.0**13] * 3  # the first overflow is free


def test_an_overflow_without_loss_scaling_stops_the_run_and_too_many_with_it() -> None:
    network = new_network(range(2, 3))
    with pytest.raises(NonFiniteError, match="step 2: got loss inf"):
        fit(network, batches())
    with pytest.raises(NonFiniteError, match=f"after {MAX_SKIPPED_STEPS - 1} skipped steps in a row"):
        fit(new_network(range(100)), batches(last=MAX_SKIPPED_STEPS + 2), LossScaler(scale=2.0**14, dynamic=True))


def test_float16_finds_its_scale_and_learns_and_a_resume_goes_on_with_it(tmp_path: Path) -> None:
    total, middle = 40, 25

    def scaler() -> LossScaler:
        return LossScaler.for_dtype(torch.float16)

    whole = fit(new_network(), batches(last=total), scaler(), dtype=torch.float16)
    scales = [metrics["loss_scale"] for metrics in whole.metrics]
    assert scales[0] == 2.0**32 and 2.0**8 <= scales[-1] <= 2.0**20, scales
    losses = [metrics["reduced_train_loss"] for metrics in whole.metrics]
    assert losses[-1] < losses[0] - 0.3

    first = fit(new_network(), batches(last=middle), scaler(), dtype=torch.float16, save=tmp_path)
    consumed = int(first.metrics[-1]["consumed_samples"])
    rest = fit(
        new_network(),
        batches(middle, total, consumed),
        scaler(),
        dtype=torch.float16,
        checkpoint=tmp_path / f"step-{middle:08d}",
    )
    for resumed, straight in zip(rest.metrics, whole.metrics[middle:], strict=True):
        for key in ("reduced_train_loss", "grad_norm", "loss_scale", "lr"):
            assert resumed[key] == straight[key], f"step {straight['global_step']}: {key}"
