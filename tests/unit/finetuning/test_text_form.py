"""A fine-tuned model gives its encoder the texts in the form that it was trained with."""

import numpy as np
import pytest
import torch

from bionemo_core.builtin import load_registry
from bionemo_core.config.choice_params import read_choice
from bionemo_core.data.labelled_records import LabelledRecord, LabelledRecords
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.model import finetuned
from bionemo_core.finetuning.model.params import FineTunedParams
from bionemo_core.finetuning.state_cache import load_or_compute_states
from bionemo_core.inference.embedding import Embedder, EmbeddingSettings
from bionemo_core.inference.scoring_answers import Predictor
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.protocols import BuildContext
from bionemo_core.tasks.finetuning.setting_checks import check_settings
from bionemo_core.tasks.settings import Finetune

pytest.importorskip("bionemo_t5")

SIZES = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "kv_channels": 16, "ffn_hidden_size": 48}
SEQUENCES = ["MKTAYUIAK", "GUZLOB"]


@pytest.fixture(scope="module")
def build():
    """Return a function that builds a fine-tuned ProtT5 with an small head."""
    registry = load_registry()
    encoder, head = registry.get("model", "prott5_xl"), registry.get("head", "mlp")
    tokenizer = registry.build(read_choice(plain(registry.get("tokenizer", "prott5"), {}), "tokenizer"))

    def made(**options):
        module = finetuned(
            FineTunedParams(plain(encoder, SIZES), "token_regression", plain(head, {}), **options),
            tokenizer=tokenizer, context=BuildContext(), registry=registry,
        )  # fmt: skip
        return module.eval(), tokenizer

    return made


def plain(component, params):
    return {
        "name": component.name,
        "params": params,
        "distribution": component.distribution,
        "version": component.version,
    }


@torch.no_grad()
@pytest.mark.parametrize(("options", "form"), [({"text_form": "tokenizer"}, "tokenizer"), ({}, "plain")])
def test_predictions_and_targets_follow_the_form_of_the_training(build, options, form) -> None:
    module, tokenizer = build(**options)  # without text_form: as in artefacts of earlier versions
    base = module.network.encoder_network
    base.seq_length = module.seq_length
    states = Embedder(base, tokenizer, EmbeddingSettings(outputs=("hiddens",), text_form=form)).run(SEQUENCES)
    expected = module.network.head(type("States", (), {"states": torch.from_numpy(states.arrays["hiddens"])})())
    predicted = Predictor(module, tokenizer, EmbeddingSettings()).predict(SEQUENCES)
    assert np.allclose(np.concatenate(predicted), expected.numpy(), atol=1e-5)
    own = Embedder(module, tokenizer, EmbeddingSettings(outputs=("hiddens",))).run(SEQUENCES)
    assert np.allclose(own.arrays["hiddens"], states.arrays["hiddens"], atol=1e-5)


def test_labels_stay_on_their_residues(build) -> None:
    tuned, tokenizer = build(text_form="tokenizer")
    example = tuned.objective.record_example(LabelledRecord(0, b"MU", "1 2", "10"))
    assert example.tokens.tolist() == [*tokenizer.encode("MX"), tokenizer.eos_id]
    assert example.labels.view(np.float32).tolist() == [1.0, 0.0, 0.0]
    assert example.loss_mask.tolist() == [True, False, False]


def test_a_form_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.text_form: got 'raw', expected tokenizer or plain"):
        check_settings(Finetune(kind="sequence_regression", text_form="raw"))


def test_cached_states_of_another_form_are_not_used(build, tmp_path) -> None:
    module, tokenizer = build()
    base = module.network.encoder_network
    base.seq_length = module.seq_length
    records = LabelledRecords(("a",), (b"MKU",), ("1",), (), np.arange(1))

    def states(form: str) -> np.ndarray:
        embedder = Embedder(base, tokenizer, EmbeddingSettings(outputs=("embeddings",), text_form=form))
        return load_or_compute_states(tmp_path, records, embedder, "weights", False, "float32", Ranks()).table.numpy()

    plain_states = states("plain")
    assert np.abs(states("tokenizer") - plain_states).max() > 1e-3
    assert np.array_equal(states("plain"), plain_states)
    assert len(list((tmp_path / "states").iterdir())) == 2
