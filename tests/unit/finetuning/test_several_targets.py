"""Several labels of a sequence, some missing: batches, losses, linear heads and metrics, against scikit-learn."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    mean_squared_error,
    r2_score,
    roc_auc_score,
)
from sklearn.preprocessing import StandardScaler

from bionemo_core.builtin import load_registry
from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.data.labelled_records import LabelledRecords, LabelledSplits
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.finetuning.downstream import downstream
from bionemo_core.finetuning.label_checks import LabelCheck, labels_text
from bionemo_core.finetuning.label_spec import LabelSpec
from bionemo_core.finetuning.linear.several import fit_several
from bionemo_core.finetuning.linear.solve import StateRows
from bionemo_core.finetuning.losses import squared_error, yes_or_no
from bionemo_core.finetuning.metrics import metrics_and_table
from bionemo_core.finetuning.network import FineTunedNetwork, MlpHead
from bionemo_core.finetuning.objective import LabelObjective
from bionemo_core.finetuning.several_targets import means_and_scales
from bionemo_core.nn.residue_states import ResidueStates
from bionemo_core.protocols import BuildContext, InputForm

presets = pytest.importorskip("bionemo_esm.presets")

NAMES = ("first", "second", "third")
VALUES = LabelSpec("sequence_regression", targets=NAMES, means=(1.0, 0.0, -2.0), scales=(2.0, 1.0, 0.5))
YES_NO = LabelSpec("sequence_multilabel", targets=NAMES)
NUMBERS = ("0.5\t\t-2", "NA\t3\t1", "2\t1\t", "1\tnan\t4")
ANSWERS = ("1\t\tno", "0\tyes\t1", "true\tfalse\t", "1\t-\tNo")


@pytest.fixture(scope="module")
def tokenizer():
    return presets.esm1nv_alphabet()


def records(labels: tuple[str, ...], targets: tuple[str, ...] = NAMES) -> LabelledRecords:
    rows = [(f"r{row}", b"MKLV" + b"A" * row, label, "") for row, label in enumerate(labels)]
    return LabelledRecords.of(rows, "test", targets)


def batch_of(labels, answers, tokenizer, *, packed: bool) -> TokenBatch:
    objective = LabelObjective(tokenizer, answers, form=InputForm(bos=True, eos=True), seq_length=16)
    given = records(labels)
    examples = [objective.record_example(given[row]) for row in range(len(given))]
    return TokenBatch.of(collate(examples, len(examples), RowShape(16, 4, tokenizer.pad_id, packing=packed)))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("answers", [VALUES, YES_NO], ids=["values", "yes or no"])
def test_missing_labels_count_neither_in_the_loss_nor_in_its_denominator(answers, packed, tokenizer):
    texts = ANSWERS if answers.multilabel else NUMBERS
    batch = batch_of(texts, answers, tokenizer, packed=packed)
    assert batch.num_loss_tokens == (9 if answers.multilabel else 8), "12 labels without those that are missing"
    torch.manual_seed(0)
    states = torch.randn(4, 8)
    head = MlpHead([8, 3], 0.0, per_residue=False)
    loss = yes_or_no if answers.multilabel else squared_error
    network = FineTunedNetwork(torch.nn.Identity(), head, per_residue=False, num_classes=None, loss=loss)
    network.stored = lambda _: ResidueStates(states, torch.ones(4, dtype=torch.int64))  # type: ignore[assignment]
    outputs = head(ResidueStates(states, torch.ones(4, dtype=torch.int64)))
    expected = torch.zeros(())
    words = {"1": 1.0, "true": 1.0, "yes": 1.0, "0": 0.0, "no": 0.0, "No": 0.0, "false": 0.0}
    for row, text in enumerate(texts):
        for place, word in enumerate(text.split("\t")):
            if word in ("", "NA", "nan", "-"):
                continue
            if answers.multilabel:
                expected += F.binary_cross_entropy_with_logits(outputs[row, place], torch.tensor(words[word]))
            else:
                label = (float(word) - answers.means[place]) / answers.scales[place]
                expected += (outputs[row, place] - label) ** 2
    assert torch.allclose(network(batch), expected, rtol=1e-5)


def test_each_target_has_its_own_mean_and_scale():
    means, scales = means_and_scales(records(NUMBERS), VALUES)
    columns = ([0.5, 2, 1], [3, 1], [-2, 1, 4])
    assert means == pytest.approx([np.mean(column) for column in columns])
    assert scales == pytest.approx([np.std(column) for column in columns])
    with pytest.raises(DataError, match="second: no record of the split train has this label"):
        means_and_scales(records(("1\t\t2", "2\tNA\t3")), VALUES)


def test_what_is_missing_is_counted_and_what_cannot_be_read_is_named(tokenizer, caplog):
    check = LabelCheck(tokenizer, YES_NO)
    kept = check.parts({"train": records((*ANSWERS, "NA\t\t-"))})["train"]
    assert len(kept) == 4
    assert "left out 1 of 5 records, which have no label at all" in caplog.text
    line = labels_text(LabelledSplits(kept, None, kept, ""), YES_NO)  # type: ignore[arg-type]
    assert line.startswith("first 3 + 3 yes of 4 + 4, second 1 + 1 yes of 2 + 2, third 1 + 1 yes of 3 + 3")
    assert line.endswith("(labels in train + test; 6 of 24 missing)")
    with pytest.raises(DataError, match=r"neither yes nor no 1 \(train 'r0': 'maybe'"):
        check.parts({"train": records(("maybe\t1\t0", "1\t1\t0"))})
    with pytest.raises(ConfigError, match=r"has the labels a, and the model predicts first\|second\|third"):
        check.parts({"train": records(("1",), ("a",))})
    with pytest.raises(ConfigError, match=r"task\.kind=sequence_multilabel: the data has one label"):
        check.parts({"train": records(("1",), ())})
    with pytest.raises(ConfigError, match="got sequence_classification"):
        LabelCheck(tokenizer, LabelSpec("sequence_classification")).parts({"train": records(("1\t2\t3",))})


def test_downstream_validation_predicts_one_label(tokenizer):
    with pytest.raises(ConfigError, match=r"callbacks\.downstream\.kind=sequence_multilabel"):
        downstream("labelled_csv", "sequence_multilabel", registry=load_registry())
    callback = downstream("labelled_csv", "sequence_regression", registry=load_registry())
    splits = LabelledSplits.from_parts(records(NUMBERS), None, records(NUMBERS))
    callback.registry = SimpleNamespace(get=load_registry().get, build=lambda *_, **__: splits)
    with pytest.raises(ConfigError, match="the data has several labels, and downstream validation predicts one"):
        callback.meet_run(tokenizer, BuildContext())


@pytest.fixture(scope="module")
def table() -> tuple[np.ndarray, np.ndarray]:
    """States, and labels of which a third is missing."""
    draw = np.random.default_rng(0)
    states = draw.normal(size=(120, 6)) * [1, 2, 3, 1, 1, 1] + 5
    labels = states @ draw.normal(size=(6, 3)) + draw.normal(size=(120, 3))
    labels[draw.random(labels.shape) < 1 / 3] = np.nan
    return states, labels


def rows_of(states: np.ndarray, labels: np.ndarray) -> StateRows:
    return StateRows(torch.from_numpy(states), np.arange(len(states)), labels)


def test_a_linear_head_of_values_is_a_ridge_regression_of_each(table):
    states, labels = table
    fit = fit_several(rows_of(states, labels), None, multilabel=False, penalty=3.0)
    assert fit.penalty == pytest.approx(3.0)
    got = fit.outputs(rows_of(states, labels)).numpy()
    for target in range(3):
        known = ~np.isnan(labels[:, target])
        scaler = StandardScaler().fit(states[known])
        reference = Ridge(alpha=3.0).fit(scaler.transform(states[known]), labels[known, target])
        assert np.allclose(got[:, target], reference.predict(scaler.transform(states)), atol=1e-8)


def test_a_linear_head_of_labels_is_a_logistic_regression_of_each(table):
    states, values = table
    labels = np.where(np.isnan(values), np.nan, (values > np.nanmedian(values, axis=0)).astype(np.float64))
    labels[:, 2] = 1.0  # nothing to tell apart
    fit = fit_several(rows_of(states, labels), None, multilabel=True, penalty=2.0)
    got = fit.outputs(rows_of(states, labels)).numpy()
    for target in range(2):
        known = ~np.isnan(labels[:, target])
        scaler = StandardScaler().fit(states[known])
        reference = LogisticRegression(C=0.5, tol=1e-10, max_iter=1000)
        reference.fit(scaler.transform(states[known]), labels[known, target])
        assert np.allclose(got[:, target], reference.decision_function(scaler.transform(states)), atol=1e-4)
    assert np.all(got[:, 2] > 3)
    assert np.isfinite(got).all()


def test_metrics_of_values_are_means_over_the_targets(table):
    _, labels = table
    draw = np.random.default_rng(1)
    outputs = np.nan_to_num(labels) + draw.normal(size=labels.shape)
    got, rows = metrics_and_table(VALUES, torch.tensor(outputs), torch.tensor(labels))
    squares, r2 = [], []
    for place in range(3):
        known = ~np.isnan(labels[:, place])
        sides = [side[known, place] * VALUES.scales[place] + VALUES.means[place] for side in (labels, outputs)]
        squares.append(mean_squared_error(*sides))
        r2.append(r2_score(*sides))
        assert float(rows[place]["mse"]) == pytest.approx(squares[-1], rel=1e-5)
        assert (rows[place]["target"], int(rows[place]["labels"])) == (NAMES[place], known.sum())
    assert got["mse"] == pytest.approx(np.mean(squares))
    assert got["r2"] == pytest.approx(np.mean(r2))
    assert set(got) == {"mse", "r2", "spearman"}


def test_metrics_of_yes_and_no_are_means_over_the_labels(table):
    _, values = table
    labels = np.where(np.isnan(values), np.nan, (values > np.nanmedian(values)).astype(np.float64))
    labels[:, 2] = np.where(np.isnan(labels[:, 2]), np.nan, 0.0)  # never yes: no curve, and no mean of one
    outputs = np.random.default_rng(2).normal(size=labels.shape).round(1)
    got, rows = metrics_and_table(YES_NO, torch.tensor(outputs), torch.tensor(labels))
    by_name: dict[str, list[float]] = {"f1": [], "mcc": [], "roc_auc": [], "pr_auc": []}
    for place in range(3):
        known = ~np.isnan(labels[:, place])
        sides = labels[known, place], outputs[known, place]
        by_name["f1"].append(f1_score(sides[0], sides[1] > 0, zero_division=0))
        by_name["mcc"].append(matthews_corrcoef(sides[0], sides[1] > 0))
        if place < 2:
            by_name["roc_auc"].append(roc_auc_score(*sides))
            by_name["pr_auc"].append(average_precision_score(*sides))
    for name, expected in by_name.items():
        assert got[name] == pytest.approx(np.mean(expected)), name
    assert rows[2]["roc_auc"] == "" and rows[2]["support"] == "0"
    assert metrics_and_table(YES_NO, torch.zeros(0, 3), torch.zeros(0, 3))[0] == {}
