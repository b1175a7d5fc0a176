"""The ranking loss: pairs counted one by one, and a head that learns an order that squared errors hardly see."""

import math
from types import SimpleNamespace

import pytest
import torch

from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import Batch
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.label_spec import LabelSpec
from bionemo_core.finetuning.losses import ranking, squared_error
from bionemo_core.finetuning.metrics import metrics_of
from bionemo_core.tasks.finetuning.setting_checks import check_loss, check_settings
from bionemo_core.tasks.settings import Finetune


@pytest.mark.parametrize("outputs", [1, 3])
def test_it_is_the_mean_over_pairs_of_each_target_times_its_labels(outputs):
    torch.manual_seed(0)
    answers, labels = torch.randn(7, outputs), torch.randint(3, (7, outputs)).float()
    counts = torch.rand(7, outputs) > 0.3
    expected = 0.0
    for target in range(outputs):
        known = [row for row in range(7) if counts[row, target]]
        losses = [
            -math.log(1 / (1 + math.exp(float(answers[low, target] - answers[high, target]))))
            for high in known
            for low in known
            if labels[high, target] > labels[low, target]
        ]
        expected += sum(losses) / max(len(losses), 1) * len(known)
    assert float(ranking(answers, labels, counts)) == pytest.approx(expected, rel=1e-5)


def test_labels_without_an_order_have_no_loss():
    answers = torch.randn(4, 1, requires_grad=True)
    loss = ranking(answers, torch.ones(4, 1), torch.ones(4, 1, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert torch.equal(answers.grad, torch.zeros(4, 1))
    assert ranking(answers, torch.arange(4.0)[:, None], torch.zeros(4, 1, dtype=torch.bool)) == 0


def learn(loss) -> float:
    """The Spearman correlation on held-out rows of a linear layer that learned fitness with a long tail."""
    torch.manual_seed(1)
    states = torch.randn(400, 8)
    labels = (states @ torch.randn(8, 1) * 2).exp() + 0.05 * torch.randn(400, 1)
    labels = (labels - labels.mean()) / labels.std()
    layer = torch.nn.Linear(8, 1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for step in range(300):
        rows = torch.arange(32) + step * 32 % 288
        optimizer.zero_grad()
        (loss(layer(states[rows]), labels[rows], torch.ones(32, 1, dtype=torch.bool)) / 32).backward()
        optimizer.step()
    with torch.no_grad():
        predicted = layer(states[320:])[:, 0]
    return metrics_of(LabelSpec("sequence_regression"), predicted, labels[320:, 0])["spearman"]


def test_it_learns_the_order_of_values_with_a_long_tail_better_than_squared_errors():
    assert learn(ranking) > max(0.95, learn(squared_error) + 0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "hinge"}, r"no loss is called 'hinge'\. Available: .*ranking"),
        (
            {"loss": "ranking", "kind": "sequence_classification"},
            r"is for task\.kind=sequence_regression, got ",
        ),
        ({"loss": "ranking", "head": "linear"}, r"task\.loss has no effect with task\.head=linear"),
    ],
)
def test_where_it_has_no_meaning_it_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        task = Finetune(**{"kind": "sequence_regression", **settings})
        check_settings(task)
        check_loss(task, SimpleNamespace(batch=Batch()), load_registry())
