"""Linear heads in closed form, against scikit-learn and against the conditions that define them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.label_spec import LabelSpec
from bionemo_core.finetuning.linear.baseline import Baseline, fill_network, read_baseline, sampled, solve_baseline
from bionemo_core.finetuning.linear.solve import RIDGE_PENALTIES, LinearFit, StateRows, fit_linear
from bionemo_core.finetuning.network import FineTunedNetwork, MlpHead, StateScaler
from bionemo_core.nn.residue_states import ResidueStates
from bionemo_core.tasks.finetuning.setting_checks import check_settings
from bionemo_core.tasks.settings import Finetune

NUM, WIDTH = 300, 12
WEIGHTS = [1.0, 2.0, 0.5]


@pytest.fixture(scope="module")
def states() -> np.ndarray:
    """Columns of different scales around large means, one of them constant."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(NUM, WIDTH)) * draw.uniform(0.01, 3, WIDTH) + draw.normal(size=WIDTH) * 5
    x[:, 3] = 0.7
    return x


def labels(states: np.ndarray, num_classes: int | None) -> np.ndarray:
    draw = np.random.default_rng(1)
    scaled = (states - states.mean(0)) @ draw.normal(size=(WIDTH, num_classes or 1))
    scaled = scaled + draw.normal(size=scaled.shape) * 2
    return scaled[:, 0] if num_classes is None else scaled.argmax(1)


def rows_of(states: np.ndarray, of: np.ndarray, chosen: slice = slice(None)) -> StateRows:
    return StateRows(torch.from_numpy(states), np.arange(len(states))[chosen], of[chosen])


def scaled_columns(states: np.ndarray) -> np.ndarray:
    deviation = states.std(0)
    deviation[3] = 1
    return (states - states.mean(0)) / deviation


@pytest.mark.parametrize("penalty", [0.1, 10.0])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_classes_against_scikit_learn(states, num_classes, penalty):
    linear_model = pytest.importorskip("sklearn.linear_model")
    y, weights = labels(states, num_classes), WEIGHTS[:num_classes]
    fit = fit_linear(rows_of(states, y), None, num_classes=num_classes, class_weights=weights, penalty=penalty)
    theirs = linear_model.LogisticRegression(
        C=1 / penalty, tol=1e-10, max_iter=10_000, class_weight=dict(enumerate(weights))
    ).fit(scaled_columns(states), y)
    ours = fit.outputs(rows_of(states, y)).softmax(-1).numpy()
    assert np.abs(ours - theirs.predict_proba(scaled_columns(states))).max() < 1e-4


@pytest.mark.parametrize("penalty", [0.1, 100.0])
def test_values_against_scikit_learn(states, penalty):
    linear_model = pytest.importorskip("sklearn.linear_model")
    y = labels(states, None)
    fit = fit_linear(rows_of(states, y), None, num_classes=None, penalty=penalty)
    theirs = linear_model.Ridge(alpha=penalty).fit(scaled_columns(states), y)
    assert np.abs(fit.outputs(rows_of(states, y))[:, 0].numpy() - theirs.predict(scaled_columns(states))).max() < 1e-4


def test_values_solve_the_normal_equations(states):
    y, x = labels(states, None), scaled_columns(states)
    fit = fit_linear(rows_of(states, y), None, num_classes=None, penalty=3.0)
    expected = np.linalg.solve(x.T @ x + 3.0 * np.eye(WIDTH), x.T @ (y - y.mean()))
    assert np.abs(fit.weight[0].numpy() - expected).max() < 1e-9


def test_classes_are_at_the_minimum(states):
    y, x = labels(states, 3), torch.from_numpy(scaled_columns(states))
    fit = fit_linear(rows_of(states, y), None, num_classes=3, class_weights=WEIGHTS, penalty=2.0)
    weight, bias = fit.weight.clone().requires_grad_(), fit.bias.clone().requires_grad_()
    each = torch.tensor(WEIGHTS, dtype=torch.float64)[torch.from_numpy(y)]
    log_p = (x @ weight.T + bias).log_softmax(-1)[torch.arange(NUM), torch.from_numpy(y)]
    (-(each * log_p).sum() + weight.square().sum()).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 1e-4


def test_the_validation_split_chooses_the_penalty(states):
    """Labels without any relation to the states deserve the strongest penalty, and exact ones a weak one."""
    train, val = slice(0, 200), slice(200, None)
    noise, exact = np.random.default_rng(2).normal(size=NUM), scaled_columns(states) @ np.arange(WIDTH)
    strong, weak = (
        fit_linear(rows_of(states, y, train), rows_of(states, y, val), num_classes=None) for y in (noise, exact)
    )
    assert strong.penalty > 1e2
    assert weak.penalty == min(RIDGE_PENALTIES)
    assert weak.val_loss is not None
    assert weak.val_loss < 1e-6


def network_of_states(fit: LinearFit, *, solved: bool, per_residue: bool) -> FineTunedNetwork:
    torch.manual_seed(0)
    widths = [WIDTH, fit.weight.shape[0]] if solved else [WIDTH, 8, fit.weight.shape[0]]
    head = MlpHead(widths, 0.0, per_residue=per_residue)
    if not solved:
        head.start_at_zero()
    network = FineTunedNetwork(
        nn.Identity(),
        head,
        per_residue=per_residue,
        num_classes=3,
        frozen=True,
        scaler=StateScaler(WIDTH, whiten=not per_residue),
        start=None if solved else nn.Linear(WIDTH, fit.weight.shape[0]),
    )
    fill_network(network, fit, solved=solved)
    return network


@pytest.mark.parametrize("solved", [True, False])
@pytest.mark.parametrize("per_residue", [True, False])
def test_a_network_answers_as_the_fit_does(states, solved, per_residue, monkeypatch):
    y = labels(states, 3)
    fit = fit_linear(rows_of(states, y), None, num_classes=3, penalty=1.0)
    network = network_of_states(fit, solved=solved, per_residue=per_residue)
    lengths = torch.ones(NUM, dtype=torch.int64)
    network.stored = lambda batch: ResidueStates(torch.from_numpy(states).float(), lengths)
    answers = network.predictions(SimpleNamespace())
    assert torch.allclose(answers.double(), fit.outputs(rows_of(states, y)), atol=1e-4)
    trained = {name.partition(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {"head"}, "the linear start is not trained"


def test_whitened_states_are_uncorrelated():
    draw = np.random.default_rng(3)
    x = draw.normal(size=(500, 4)) @ draw.normal(size=(4, 4)) + 100
    fit = fit_linear(rows_of(x, x[:, 0]), None, num_classes=None, penalty=1e-9)
    scaler = StateScaler(4, whiten=True)
    scaler.mean.copy_(fit.mean)
    scaler.scale.copy_(fit.scale)
    scaler.whitening.copy_(fit.whitening()[0])
    white = scaler(ResidueStates(torch.from_numpy(x), torch.tensor([500]))).states
    assert torch.allclose(white.T @ white / 500, torch.eye(4), atol=1e-3)


def test_states_outside_the_range_of_the_training_are_moved_to_its_edge():
    """A direction that hardly varies in training: an unusual sequence stays near the others, all else is untouched."""
    draw = np.random.default_rng(5)
    x = draw.normal(size=(400, 3))
    x[:, 2] = x[:, 0] + 1e-4 * draw.normal(size=400)
    rows = rows_of(x, x[:, 0] + 1e3 * (x[:, 2] - x[:, 0]))
    fit = fit_linear(rows, None, num_classes=None, penalty=1e-6)

    def answers(states: np.ndarray, *, bounded: bool) -> torch.Tensor:
        torch.manual_seed(0)
        scaler, head = StateScaler(3, whiten=True, bounded=bounded), MlpHead([3, 8, 1], 0.0, per_residue=False)
        head.start_at_zero()
        network = FineTunedNetwork(
            nn.Identity(), head, per_residue=False, num_classes=None, frozen=True, scaler=scaler, start=nn.Linear(3, 1)
        )
        fill_network(network, fit, solved=False, extremes=fit.whitened_range(rows))
        found = []
        # A sequence as its mean, as it is stored, and as two residues that are each far outside the range.
        for per_residue in (states, np.stack((states + 9, states - 9), axis=1).reshape(-1, 3)):
            lengths = torch.full((len(states),), len(per_residue) // len(states))
            network.stored = lambda batch, rows=per_residue, own=lengths: ResidueStates(torch.from_numpy(rows), own)
            found.append(network.predictions(SimpleNamespace())[:, 0].detach())
        scale = float(found[0].abs().max())
        assert torch.allclose(*found, atol=2e-2 * scale), "the mean of a sequence counts"
        return found[0]

    free, bounded = answers(x, bounded=False), answers(x, bounded=True)
    assert torch.allclose(free, bounded, atol=1e-4), "nothing of the training moves"
    unusual = np.array([[0.0, 0.0, 0.5], [0.2, -0.1, -3.0]])
    plain, kept = answers(unusual, bounded=False), answers(unusual, bounded=True)
    assert plain.abs().min() > 100
    assert kept.abs().max() < 1.5 * float(free.abs().max())
    tensors = ["mean", "scale", "whitening", "lowest", "highest"]
    assert list(StateScaler(3, whiten=True, bounded=True).state_dict()) == tensors
    assert list(StateScaler(3, whiten=True).state_dict()) == tensors[:3], "as older models have it"
    assert list(StateScaler(3, whiten=False, bounded=True).state_dict()) == tensors[:2], "residues are not bounded"


def test_the_scaling_keeps_its_precision_when_a_module_is_cast():
    scaler = StateScaler(2, whiten=True)
    scaler.mean.copy_(torch.tensor([1.0001, 100.003]))
    scaler.to(torch.bfloat16)
    assert scaler.mean.dtype == torch.float32
    assert torch.equal(scaler.mean, torch.tensor([1.0001, 100.003]))


def test_a_large_table_is_sampled_without_repeats(states, monkeypatch):
    monkeypatch.setattr("bionemo_core.finetuning.linear.baseline.MOST_NUMBERS", 50 * WIDTH)
    rows = rows_of(states, labels(states, None))
    chosen = sampled(rows, seed=1)
    assert len(chosen) == len(set(chosen.rows.tolist())) == 50
    assert torch.equal(chosen.labels, rows.labels[chosen.rows])
    assert not torch.equal(chosen.rows, sampled(rows, seed=2).rows)


def test_a_baseline_is_measured_and_read_again(states, tmp_path):
    y = labels(states, 3)
    parts = {"train": rows_of(states, y, slice(0, 200)), "val": rows_of(states, y, slice(200, None))}
    answers = LabelSpec("sequence_classification", ("a", "b", "c"))
    fit = solve_baseline(parts, answers, None)
    baseline = Baseline.of(fit, parts, answers)
    right = (fit.outputs(parts["val"]).argmax(-1).numpy() == y[200:]).mean()
    assert baseline.metrics["val"]["accuracy"] == pytest.approx(right)
    baseline.write(tmp_path)
    assert read_baseline(tmp_path) == baseline
    assert "on 200 frozen states" in baseline.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "linear", "encoder": "full"}, r"needs task.encoder=frozen, got full"),
        ({"head": "linear", "early_stopping": 3}, r"leave task.early_stopping and task.average_last out"),
        ({"scale_states": False, "encoder": "lora"}, r"scale_states=false has no effect"),
    ],
)
def test_settings_that_a_linear_head_cannot_use(settings, message):
    with pytest.raises(ConfigError, match=message):
        check_settings(Finetune(kind="sequence_regression", **settings))
