"""Every metric of fine-tuning equals scikit-learn's, in degenerate tables too; its definitions are written out here."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    precision_recall_fscore_support,
    precision_score,
    recall_score,
    roc_auc_score,
)

from bionemo_core.data.labelled_records import LabelledRecords
from bionemo_core.finetuning.label_spec import LabelSpec
from bionemo_core.finetuning.metrics import metrics_and_table, metrics_of
from bionemo_core.finetuning.objective import mean_and_scale

CLASSES = 4


def centred_product(first: list, second: list) -> Fraction:
    """Return n times the sum of the products of deviations from the means; exact for integers and fractions."""
    products = sum(Fraction(a) * Fraction(b) for a, b in zip(first, second, strict=True))
    return len(first) * products - sum(map(Fraction, first)) * sum(map(Fraction, second))


def correlation(firsts: list[list], seconds: list[list]) -> float:
    """Return the correlation of two lists of columns; 0 if a side is constant."""
    between, first, second = (
        sum(centred_product(a, b) for a, b in zip(one, two, strict=True))
        for one, two in ((firsts, seconds), (firsts, firsts), (seconds, seconds))
    )
    return float(between) / math.sqrt(first) / math.sqrt(second) if first and second else 0.0


def f1_of(name: int, pairs: list[tuple[int, int]]) -> float:
    right = sum(pair == (name, name) for pair in pairs)
    return 2 * right / sum((predicted == name) + (label == name) for predicted, label in pairs)


def ranks(values: list[float]) -> list[Fraction]:
    return [sum(a < b for a in values) + Fraction(values.count(b) + 1, 2) for b in values]


def pairs_of(values):
    """Pairs of a prediction and a label, in which either side is constant every now and then."""
    free = st.lists(st.tuples(values, values), min_size=1, max_size=30)
    return st.one_of(
        free,
        st.tuples(free, values).map(lambda drawn: [(drawn[1], label) for _, label in drawn[0]]),
        st.tuples(free, values).map(lambda drawn: [(predicted, drawn[1]) for predicted, _ in drawn[0]]),
    )


# 97 of 100 in one class, and always that class predicted; and the same with the axes exchanged.
@given(pairs_of(st.integers(0, CLASSES - 1)), st.integers(CLASSES, CLASSES + 2))
@example([(0, 0)] * 97 + [(0, 1)] * 3, 2)
@example([(0, 0)] * 97 + [(1, 0)] * 3, 2)
@example([(0, 1)] * 5, 2)
@example([(1, 1)], 2)
def test_metrics_of_classes(pairs: list[tuple[int, int]], num_classes: int) -> None:
    predicted, labels = (torch.tensor(side) for side in zip(*pairs, strict=True))
    answers = LabelSpec("sequence_classification", tuple(map(str, range(num_classes))))
    got = metrics_of(answers, predicted, labels)
    averages = {name: got.pop(name) for name in ("precision", "recall")}
    present = sorted({name for pair in pairs for name in pair})
    columns = [[[int(name == one) for name in side] for one in present] for side in zip(*pairs, strict=True)]
    assert got == {
        "accuracy": pytest.approx(sum(a == b for a, b in pairs) / len(pairs), abs=1e-12),
        "f1": pytest.approx(sum(f1_of(name, pairs) for name in present) / len(present), abs=1e-12),
        "mcc": pytest.approx(correlation(*columns), abs=1e-12),
    }
    sides = labels.numpy(), predicted.numpy()
    assert averages == {
        "precision": pytest.approx(precision_score(*sides, average="macro", zero_division=0), abs=1e-12),
        "recall": pytest.approx(recall_score(*sides, average="macro", zero_division=0), abs=1e-12),
    }


@st.composite
def outputs_and_labels(draw) -> tuple[np.ndarray, np.ndarray]:
    """Outputs [n, classes] with many ties, and labels that may lack any of the classes."""
    number, classes = draw(st.integers(1, 25)), draw(st.integers(2, CLASSES))
    of_one = st.lists(st.integers(-3, 3), min_size=classes, max_size=classes)
    outputs = draw(st.lists(of_one, min_size=number, max_size=number))
    kinds = draw(st.sets(st.integers(0, classes - 1), min_size=1))
    labels = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=number, max_size=number))
    return np.array(outputs, dtype=np.float32), np.array(labels)


@given(outputs_and_labels())
@example((np.zeros((4, 2), dtype=np.float32), np.array([0, 1, 1, 0])))
@example((np.array([[90, 0], [60, 0], [-60, 0], [-90, 0]], dtype=np.float32), np.array([1, 0, 0, 1])))
@example((np.ones((3, 2), dtype=np.float32), np.array([1, 1, 1])))
def test_each_class_is_measured_as_scikit_learn_does(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    outputs, labels = drawn
    number = outputs.shape[1]
    answers = LabelSpec("sequence_classification", tuple(map(str, range(number))))
    got, table = metrics_and_table(answers, torch.tensor(outputs), torch.tensor(labels))
    predicted, probabilities = outputs.argmax(1), torch.tensor(outputs).double().softmax(-1).numpy()
    names = list(range(number))
    each = precision_recall_fscore_support(labels, predicted, labels=names, zero_division=0)
    areas: dict[str, list[float]] = {"roc_auc": [], "pr_auc": []}
    for name in names:
        row = table[name]
        assert (row["class"], int(row["support"])) == (str(name), each[3][name])
        for key, values in zip(("precision", "recall", "f1"), each, strict=False):
            absent = name not in labels and name not in predicted
            assert row[key] == "" if absent else float(row[key]) == pytest.approx(values[name], abs=1e-5)
        of_class = labels == name
        if of_class.any() and not of_class.all():
            areas["roc_auc"].append(roc_auc_score(of_class, probabilities[:, name]))
            areas["pr_auc"].append(average_precision_score(of_class, probabilities[:, name]))
            assert float(row["roc_auc"]) == pytest.approx(areas["roc_auc"][-1], abs=1e-5)
            assert float(row["pr_auc"]) == pytest.approx(areas["pr_auc"][-1], abs=1e-5)
        else:
            assert row["roc_auc"] == row["pr_auc"] == "", "there is nothing to compare with"
    expected = {name: pytest.approx(np.mean(values), abs=1e-12) for name, values in areas.items() if values}
    assert {name: value for name, value in got.items() if name in areas} == expected


@given(pairs_of(st.integers(-50, 50).map(lambda number: number / 8)), st.sampled_from([0.0, 1e6]))
@example([(0.1, 0.1), (0.3, 0.1), (0.2, 0.1)], 0.0)
@example([(0.1, 0.5), (0.1, 0.25), (0.1, 0.1)], 0.0)
def test_metrics_of_values(pairs: list[tuple[float, float]], mean: float) -> None:
    predicted, labels = (torch.tensor(side, dtype=torch.float32) for side in zip(*pairs, strict=True))
    got = metrics_of(LabelSpec("sequence_regression", (), mean), predicted, labels)
    first, second = ([float(np.float32(number)) for number in side] for side in zip(*pairs, strict=True))
    squares = sum((a - b) ** 2 for a, b in zip(first, second, strict=True))
    expected = {"mse": squares / len(pairs)}
    if len(set(second)) > 1:
        centre = sum(second) / len(second)
        expected["r2"] = 1 - squares / sum((number - centre) ** 2 for number in second)
        expected["spearman"] = correlation([ranks(first)], [ranks(second)])
    assert got == {name: pytest.approx(value, rel=1e-7, abs=1e-9) for name, value in expected.items()}


def test_a_prediction_that_is_not_a_number_has_no_correlation() -> None:
    got = metrics_of(
        LabelSpec("sequence_regression"), torch.tensor([0.0, math.nan, 1.0]), torch.tensor([0.0, 1.0, 2.0])
    )
    assert all(math.isnan(value) for value in got.values())
    assert set(got) == {"mse", "r2", "spearman"}


def test_constant_labels_keep_their_scale() -> None:
    records = LabelledRecords(("a", "b", "c"), (b"M",) * 3, ("0.1",) * 3, ("",) * 3, np.arange(3))
    assert mean_and_scale(records, False)[1] == 1.0, "the standard deviation of three times 0.1 is 1e-17"
