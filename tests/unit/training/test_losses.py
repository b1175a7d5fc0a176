"""Losses of tokens and of whole sequences, summed over the micro batches of an evaluation."""

from types import SimpleNamespace

import pytest
import torch

from bionemo_core.errors import ConfigError
from bionemo_core.parallel.groups import start_groups
from bionemo_core.training.losses import Losses, LossSums, run_pass
from bionemo_core.training.module import LanguageModule


def micro_batch(tokens: int, sequences: int) -> SimpleNamespace:
    return SimpleNamespace(num_loss_tokens=tokens, num_sequences=sequences)


def losses(tokens: float, sequences: float, **logged: float) -> Losses:
    return Losses(torch.tensor(tokens), torch.tensor(sequences), {k: torch.tensor(v) for k, v in logged.items()})


def test_each_sum_is_divided_by_its_own_count() -> None:
    sums = LossSums()
    sums.add(losses(10.0, 3.0, latent=8.0), micro_batch(4, 1))
    sums.add(losses(2.0, 6.0, latent=1.0), micro_batch(2, 2))
    sums.add(losses(99.0, 99.0, latent=99.0), micro_batch(0, 0))  # it only keeps the ranks synchronised
    assert sums.means(start_groups()) == (12 / 6 + 9 / 3, 12 / 6, {"latent": 3.0})


def test_a_bare_sum_is_a_loss_of_tokens() -> None:
    sums = LossSums()
    sums.add(Losses.of(torch.tensor(6.0)), micro_batch(3, 1))
    assert sums.means(start_groups()) == (2.0, 2.0, {})


def test_without_a_loss_token_there_is_no_loss() -> None:
    assert LossSums().means(start_groups()) is None
    sums = LossSums()
    sums.add(losses(0.0, 0.0), micro_batch(0, 0))
    assert sums.means(start_groups()) is None


def test_logged_names_must_not_change() -> None:
    sums = LossSums()
    sums.add(losses(1.0, 1.0, latent=1.0), micro_batch(1, 1))
    with pytest.raises(ConfigError, match="logs other for one micro batch and latent for another"):
        sums.add(losses(1.0, 1.0, other=1.0), micro_batch(1, 1))


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "returned a NoneType"),
        ((torch.tensor(1.0),), "returned a tuple"),
        (1.0, "returned a float"),
        (torch.ones(2, 3), r"returned a Tensor of shape \[2, 3\], expected a scalar tensor"),
        (torch.tensor(1.0), "depends on no parameter that is trained"),
    ],
)
def test_what_is_no_loss_is_named(returned, words) -> None:
    with pytest.raises(ConfigError, match=words):
        run_pass(lambda batch: returned, micro_batch(1, 1), 1.0, 1.0)


def test_a_network_without_a_parameter_to_train_is_refused() -> None:
    module = LanguageModule(torch.nn.Linear(1, 1).requires_grad_(False), object(), seq_length=1)
    with pytest.raises(ConfigError, match="no parameter of its network requires a gradient"):
        module.configure_optimizers()
