"""Heads, adapters, labels and metrics of fine-tuning, against small independent computations."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bionemo_core.checkpoint.blocks import whole_part
from bionemo_core.checkpoint.save import save
from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.data.labelled_records import LabelledRecord, LabelledRecords
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.finetuning.averaging import AveragedCheckpoints, newest_checkpoints
from bionemo_core.finetuning.early_stopping import StopEarly
from bionemo_core.finetuning.label_spec import LabelSpec
from bionemo_core.finetuning.lora import LoraSettings, adapted_layers, add_adapters, merge_adapters
from bionemo_core.finetuning.metrics import metrics_of
from bionemo_core.finetuning.model.build import freeze
from bionemo_core.finetuning.network import ConvHead, FineTunedNetwork, MlpHead, StoredStates
from bionemo_core.finetuning.objective import (
    LabelObjective,
    StoredStatesObjective,
    class_counts,
    classes_of,
    mean_and_scale,
)
from bionemo_core.nn.residue_states import ResidueStates, encoder_of
from bionemo_core.protocols import BuildContext, InputForm

presets = pytest.importorskip("bionemo_esm.presets")

LENGTHS = (5, 1, 12, 7)
FORM = InputForm(bos=True, eos=True)
HIDDEN = 16


@pytest.fixture(scope="module")
def tokenizer():
    return presets.esm1nv_alphabet()


@pytest.fixture
def network(tokenizer) -> nn.Module:
    """A small encoder with noise on every weight."""
    shape = {"num_layers": 3, "hidden_size": HIDDEN, "num_attention_heads": 2, "seq_length": 24}
    built = presets.esm1nv(**shape, tokenizer=tokenizer, context=BuildContext()).network
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return built.eval()


@pytest.fixture(scope="module")
def states() -> ResidueStates:
    torch.manual_seed(0)
    return ResidueStates(torch.randn(sum(LENGTHS), HIDDEN), torch.tensor(LENGTHS))


def records(tokenizer, kind: str) -> list[LabelledRecord]:
    draw = np.random.default_rng(1)
    rows = []
    for index, length in enumerate(LENGTHS):
        sequence = "".join(draw.choice(list("LAGVSERTIDPK"), size=length)).encode()
        letters = "".join(draw.choice(list("CEH"), size=length))
        label = {
            "token_classification": letters,
            "sequence_classification": letters[0],
            "sequence_regression": f"{draw.normal():.4f}",
            "token_regression": " ".join(f"{value:.4f}" for value in draw.normal(size=length)),
        }[kind]
        mask = "".join(draw.choice(["0", "1", "1"], size=length)) if kind.startswith("token") else ""
        rows.append(LabelledRecord(index, sequence, label, mask))
    return rows


def batch_of(examples, tokenizer, *, packed: bool) -> TokenBatch:
    shape = RowShape(24, len(examples), tokenizer.pad_id, packing=packed)
    return TokenBatch.of(collate(examples, len(examples), shape))


def test_conv_head_sees_zeros_beyond_the_ends_as_v1s_does(states):
    torch.manual_seed(1)
    head = ConvHead(HIDDEN, 3, channels=8, dropout=0.25).eval()
    first = nn.Conv2d(HIDDEN, 8, (7, 1), padding=(3, 0))
    last = nn.Conv2d(8, 3, (7, 1), padding=(3, 0))
    for theirs, ours in ((first, head.first), (last, head.last)):
        theirs.weight.data, theirs.bias.data = ours.weight.data[..., None], ours.bias.data
    got = head(states).split(LENGTHS)
    for answers, one in zip(got, states.states.split(LENGTHS), strict=True):
        image = one.T[None, :, :, None]
        expected = last(torch.relu(first(image)))[0, :, :, 0].T
        assert torch.allclose(answers, expected, atol=1e-6)


def test_mlp_head_answers_for_the_mean_or_for_each_residue(states):
    torch.manual_seed(1)
    of_sequences = MlpHead([HIDDEN, 4, 2], 0.1, per_residue=False).eval()
    expected = [
        of_sequences.linears[1](torch.relu(of_sequences.linears[0](one.mean(0))))
        for one in states.states.split(LENGTHS)
    ]
    assert torch.allclose(of_sequences(states), torch.stack(expected), atol=1e-6)
    of_residues = MlpHead([HIDDEN, 2], 0.0, per_residue=True)
    assert torch.allclose(of_residues(states), of_residues.linears[0](states.states))


@pytest.mark.parametrize(
    "kind", ["token_classification", "sequence_classification", "sequence_regression", "token_regression"]
)
@torch.no_grad()
def test_loss_is_the_sum_over_labels_packed_or_padded(kind, network, tokenizer):
    answers = LabelSpec(kind, ("C", "E", "H") if "classification" in kind else (), mean=0.5, scale=2.0)
    per_residue, classes = answers.per_residue, len(answers.classes) or None
    torch.manual_seed(2)
    head = MlpHead([HIDDEN, classes or 1], 0.0, per_residue=per_residue)
    weights = [1.0, 2.0, 0.5] if classes else None
    tuned = FineTunedNetwork(network, head, per_residue=per_residue, num_classes=classes, class_weights=weights)
    objective = LabelObjective(tokenizer, answers, form=FORM, seq_length=24)
    rows = records(tokenizer, kind)
    examples = [objective.record_example(row) for row in rows]
    expected, counted = 0.0, 0
    for row in rows:
        ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(row.sequence), tokenizer.eos_id]])
        alone = batch_of([objective.record_example(row)], tokenizer, packed=False)
        hidden = network.hidden_states(alone)[1 : ids.shape[1] - 1, 0]
        outputs = head.linears[0](hidden if per_residue else hidden.mean(0, keepdim=True))
        words = (list(row.label) if classes else row.label.split()) if per_residue else [row.label]
        for place, word in enumerate(words):
            if per_residue and row.mask[place] == "0":
                continue
            counted += 1
            if classes:
                number = answers.classes.index(word)
                expected -= weights[number] * float(outputs[place].log_softmax(-1)[number])
            else:
                expected += (float(outputs[place, 0]) - (float(word) - 0.5) / 2.0) ** 2
    for packed in (True, False):
        batch = batch_of(examples, tokenizer, packed=packed)
        assert batch.num_loss_tokens == counted
        assert math.isclose(float(tuned(batch)), expected, rel_tol=1e-5)


def test_every_head_and_encoder_gets_its_gradient(network, tokenizer):
    objective = LabelObjective(tokenizer, LabelSpec("sequence_regression"), form=FORM, seq_length=24)
    batch = batch_of(
        [objective.record_example(row) for row in records(tokenizer, "sequence_regression")], tokenizer, packed=True
    )
    freeze(network, frozen=False, layers=0)
    tuned = FineTunedNetwork(network, MlpHead([HIDDEN, 1], 0.0, per_residue=False), per_residue=False, num_classes=None)
    tuned(batch).backward()
    trained = {name for name, parameter in tuned.named_parameters() if parameter.requires_grad}
    moved = {name for name, parameter in tuned.named_parameters() if parameter.grad is not None}
    assert trained == moved
    assert any(name.startswith("encoder_network.encoder.layers.0") for name in moved)


@pytest.mark.parametrize(("layers", "kept"), [(0, set()), (1, {0}), (-1, {0, 1}), (3, {0, 1, 2})])
def test_freeze_layers_counts_from_the_beginning_or_leaves_the_last(network, layers, kept):
    freeze(network, frozen=False, layers=layers)
    frozen = {
        number for number, block in enumerate(network.layers) if not any(p.requires_grad for p in block.parameters())
    }
    assert frozen == kept
    assert network.embedding.word_embeddings.weight.requires_grad == (not kept)
    with pytest.raises(ConfigError, match="the encoder has 3 blocks"):
        freeze(network, frozen=False, layers=4)


def encoder_decoder() -> nn.Module:
    """Return three blocks of each side, with a linear layer each."""
    both: Any = nn.Module()
    both.encoder, both.decoder = nn.Module(), nn.Module()
    for side in (both.encoder, both.decoder):
        side.layers = nn.ModuleList(nn.ModuleDict({"linear_fc1": nn.Linear(2, 2)}) for _ in range(3))
    both.layers = [*both.encoder.layers, *both.decoder.layers]
    return both


def test_a_decoder_has_no_adapters_which_nothing_would_train():
    both = encoder_decoder()
    assert add_adapters(both, LoraSettings(rank=1)) == 3
    assert not any("lora" in name for name, _ in both.decoder.named_parameters())


def test_a_model_of_an_earlier_version_keeps_the_adapters_of_its_decoder():
    assert add_adapters(encoder_decoder(), LoraSettings.of_model({"rank": 1, "targets": ["fc1"]})) == 6
    assert add_adapters(encoder_decoder(), LoraSettings.of_model({"rank": 1, "decoder": False})) == 3


def test_of_an_encoder_decoder_the_blocks_of_the_encoder_count():
    both = encoder_decoder()
    freeze(both, frozen=False, layers=-2)
    trained = [any(parameter.requires_grad for parameter in block.parameters()) for block in both.layers]
    assert trained == [False, True, True, False, False, False]


def test_adapters_start_as_nothing_train_alone_and_merge(network, tokenizer):
    objective = LabelObjective(tokenizer, LabelSpec("sequence_regression"), form=FORM, seq_length=24)
    batch = batch_of(
        [objective.record_example(row) for row in records(tokenizer, "sequence_regression")], tokenizer, packed=True
    )
    names = {name for name, _ in network.named_parameters()}
    with torch.no_grad():
        before = network.hidden_states(batch)
        assert add_adapters(network, LoraSettings(rank=4, alpha=8.0)) == 4 * 3
        assert torch.equal(network.hidden_states(batch), before)
    assert names < {name for name, _ in network.named_parameters()}, "weights keep their names"
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".lora." in name for name in trained)
    with torch.no_grad():
        torch.manual_seed(0)
        for layer in adapted_layers(network):
            layer.lora.up.normal_(std=0.1)
        one = next(adapted_layers(network))
        assert torch.allclose(one.lora.weight(), one.lora.up @ one.lora.down * 2.0)
        adapted = network.hidden_states(batch)
        assert not torch.allclose(adapted, before, atol=1e-3)
        assert merge_adapters(network) == 12
        assert torch.allclose(network.hidden_states(batch), adapted, atol=1e-5)
    assert {name for name, _ in network.named_parameters()} == names
    with pytest.raises(ConfigError, match="expected rank >= 1"):
        add_adapters(network, LoraSettings(targets=("query",)))


@torch.no_grad()
def test_stored_states_stand_in_for_the_encoder(network, tokenizer):
    kind = "token_classification"
    answers = LabelSpec(kind, ("C", "E", "H"))
    objective = LabelObjective(tokenizer, answers, form=FORM, seq_length=24)
    head = ConvHead(HIDDEN, 3, channels=4, dropout=0.0)
    tuned = FineTunedNetwork(network, head, per_residue=True, num_classes=3, frozen=True).eval()
    rows = records(tokenizer, kind)
    live = batch_of([objective.record_example(row) for row in rows], tokenizer, packed=False)
    expected = float(tuned(live))
    table = encoder_of(network)(live).states
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    tuned.stored = StoredStates(table)
    stored = StoredStatesObjective(objective, offsets)
    for packed in (True, False):
        batch = batch_of([stored.record_example(row) for row in rows], tokenizer, packed=packed)
        assert math.isclose(float(tuned(batch)), expected, rel_tol=1e-5)
    assert not tuned.train().encoder_network.training


def test_labels_that_do_not_fit_are_named(tokenizer):
    letters = LabelObjective(tokenizer, LabelSpec("token_classification", ("C", "H")), form=FORM, seq_length=24)
    with pytest.raises(DataError, match="record 3: unknown class: 'E' is not among those trained on: C, H"):
        letters.record_example(LabelledRecord(2, b"MKV", "CEH", ""))
    with pytest.raises(DataError, match="record 'sp:7': unknown class: 'E' is not among"):
        letters.record_example(LabelledRecord(2, b"MKV", "CEH", "", "sp:7"))
    assert letters.record_example(LabelledRecord(2, b"MKV", "CEH", "101")).loss_mask.tolist() == [
        False,
        True,
        False,
        True,
        False,
    ]
    with pytest.raises(DataError, match="3 residues, 2 labels"):
        letters.record_example(LabelledRecord(0, b"MKV", "CH", ""))
    values = LabelObjective(tokenizer, LabelSpec("sequence_regression"), form=FORM, seq_length=24)
    with pytest.raises(DataError, match="not a finite number: 'high'"):
        values.record_example(LabelledRecord(0, b"MKV", "high", ""))


def test_classes_counts_and_scales_come_from_the_labels_that_count():
    letters = LabelledRecords(("a", "b"), (b"MKV", b"MK"), ("CEX", "CC"), ("110", ""), np.arange(2))
    assert classes_of(letters, True) == ["C", "E"]
    assert class_counts(letters, ["C", "E"], True).tolist() == [3, 1]
    values = LabelledRecords(("a", "b"), (b"M", b"K"), ("1", "5"), ("", ""), np.arange(2))
    assert mean_and_scale(values, False) == (3.0, 2.0)
    masked = LabelledRecords(("a", "b"), (b"MKV", b"MK"), ("1 900 5", "1 5"), ("101", ""), np.arange(2))
    assert mean_and_scale(masked, True) == (3.0, 2.0)
    left_out = LabelledRecords(("a", "b"), (b"M", b"K"), ("1", "900"), ("", "0"), np.arange(2))
    assert mean_and_scale(left_out, False) == (1.0, 1.0)
    with pytest.raises(ConfigError, match="Is it a regression"):
        classes_of(LabelledRecords(("a",), (b"M",), ("1",), ("",), np.arange(1)), False)


def test_metrics_by_hand():
    classes = LabelSpec("sequence_classification", ("a", "b"))
    got = metrics_of(classes, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 0]))
    assert got["accuracy"] == 0.75
    assert math.isclose(got["f1"], (2 * 1 * (2 / 3) / (1 + 2 / 3) + 2 * 0.5 * 1 / 1.5) / 2, rel_tol=1e-6)
    # (TP TN - FP FN) / sqrt(...) with b as the positive class: 1 * 2 - 1 * 0 over sqrt(2 * 1 * 3 * 2)
    assert math.isclose(got["mcc"], 2 / math.sqrt(12), rel_tol=1e-6)
    values = metrics_of(
        LabelSpec("sequence_regression", (), 10.0, 2.0), torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 2.0, 1.0])
    )
    assert math.isclose(values["mse"], 4 * (0 + 1 + 4) / 3, rel_tol=1e-6)
    assert math.isclose(values["r2"], 1 - 5 / 2, rel_tol=1e-6)
    assert math.isclose(values["spearman"], 0.5, rel_tol=1e-5)
    assert metrics_of(classes, torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)) == {}


def test_the_mean_of_the_newest_checkpoints(tmp_path):
    for step, value in ((5, 1.0), (10, 2.0), (15, 4.0)):
        pieces = [
            whole_part("model.weight", torch.full((2, 2), value)),
            whole_part("buffer.count", torch.tensor([step])),
        ]
        save(tmp_path, step, pieces, {})
    folders = newest_checkpoints(tmp_path, 2)
    assert [path.name[-2:] for path in folders] == ["10", "15"]
    with AveragedCheckpoints(folders) as mean:
        assert mean.read("model.weight").tolist() == [[3.0, 3.0], [3.0, 3.0]]
        assert mean.read("model.weight", (1, 0), (1, 2)).tolist() == [[3.0, 3.0]]
        assert mean.read("buffer.count").item() == 15


def test_training_stops_when_it_no_longer_gets_better():
    stop = StopEarly("val_accuracy", "max", patience=2)
    trainer = SimpleNamespace(state=SimpleNamespace(fn="fit"), callback_metrics={}, should_stop=False)
    seen = []
    for value in (0.5, 0.6, 0.6, 0.55):
        trainer.callback_metrics["val_accuracy"] = torch.tensor(value)
        stop.on_validation_end(trainer, None)
        seen.append(trainer.should_stop)
    assert seen == [False, False, False, True]
    again = StopEarly("val_accuracy", "max", patience=2)
    again.load_state_dict(stop.state_dict())
    assert (again.best, again.worse) == (stop.best, stop.worse)
    trainer.should_stop = False
    again.on_train_start(trainer, None)
    assert trainer.should_stop
    trainer.callback_metrics["val_accuracy"] = torch.tensor(float("nan"))
    again.on_validation_end(trainer, None)
    assert again.best == stop.best
    trainer.callback_metrics = {"val_loss": torch.tensor(1.0)}
    with pytest.raises(ConfigError, match=r"monitor=val_accuracy is not among the metrics: val_loss"):
        stop.on_validation_end(trainer, None)
