"""ProtT5's embeddings against Hugging Face `T5EncoderModel` with the recipe that its authors publish.

The recipe: U, Z, O and B become X, each residue is a token, `</s>` follows, and its row is dropped before the mean.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import bionemo_core
from bionemo_core.builtin import load_registry
from bionemo_core.errors import ConfigError
from bionemo_core.inference.embedding import EMBEDDINGS, HIDDENS, Embedder, EmbeddingSettings
from bionemo_core.inference.sampling import Seq2SeqInference
from bionemo_core.models.load import open_model
from bionemo_t5.tokenizer import PROTT5_PIECES

transformers = pytest.importorskip("transformers")

SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQ", "GUZLOBEXMCK", "M" * 90]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small random T5 of ProtT5's vocabulary, saved by Hugging Face."""
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=128, d_model=64, num_heads=4, num_layers=2, d_ff=96, d_kv=24, feed_forward_proj="relu"
    )
    model = transformers.T5ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    path = tmp_path_factory.mktemp("t5") / "t5"
    model.save_pretrained(path)
    return path


@torch.no_grad()
def their_states(folder: Path, letters: str, *, eos: bool) -> np.ndarray:
    """Return the states of the residues, float32[residues, hidden]."""
    ids = [PROTT5_PIECES.index(letter) for letter in letters] + [1] * eos
    model = transformers.T5EncoderModel.from_pretrained(folder).eval()
    return model(input_ids=torch.tensor([ids])).last_hidden_state[0, : len(letters)].numpy()


def published(folder: Path, sequence: str) -> np.ndarray:
    return their_states(folder, sequence.translate(str.maketrans("UZOB", "XXXX")), eos=True)


def error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def test_embeddings_against_the_published_recipe(folder: Path) -> None:
    got = bionemo_core.embed(str(folder), SEQUENCES)
    for vector, sequence in zip(got, SEQUENCES, strict=True):
        states = published(folder, sequence)
        assert error(vector, states.mean(axis=0)) < TOLERANCE
        # The two differences that the recipe makes are far above the tolerance.
        assert error(their_states(folder, sequence, eos=False).mean(axis=0), states.mean(axis=0)) > 100 * TOLERANCE


@pytest.mark.parametrize("on_long", ["error", "window"])
def test_states_of_residues_against_the_published_recipe(folder: Path, on_long: str) -> None:
    opened = open_model(str(folder), load_registry())
    settings = EmbeddingSettings(outputs=(EMBEDDINGS, HIDDENS), on_long=on_long)
    embedded = Embedder(opened.module, opened.tokenizer, settings).run(SEQUENCES)
    for rows, sequence in zip(embedded.rows(HIDDENS), SEQUENCES, strict=True):
        assert rows.shape == (len(sequence), 64)
        assert error(rows, published(folder, sequence)) < TOLERANCE


@torch.no_grad()
def test_terminal_rows_are_shown_if_asked_for(folder: Path) -> None:
    opened = open_model(str(folder), load_registry())
    settings = EmbeddingSettings(outputs=(EMBEDDINGS, HIDDENS), terminal_rows=True)
    embedded = Embedder(opened.module, opened.tokenizer, settings).run(SEQUENCES)
    model = transformers.T5EncoderModel.from_pretrained(folder).eval()
    assert embedded.lengths.tolist() == [len(sequence) + 1 for sequence in SEQUENCES]
    for vector, rows, sequence in zip(embedded.arrays[EMBEDDINGS], embedded.rows(HIDDENS), SEQUENCES, strict=True):
        letters = sequence.translate(str.maketrans("UZOB", "XXXX"))
        ids = torch.tensor([[PROTT5_PIECES.index(letter) for letter in letters] + [1]])
        assert error(rows, model(input_ids=ids).last_hidden_state[0].numpy()) < TOLERANCE
        assert error(vector, published(folder, sequence).mean(axis=0)) < TOLERANCE
    plain = EmbeddingSettings(outputs=(HIDDENS,), terminal_rows=True, text_form="plain")
    with pytest.raises(ConfigError, match="only hidden states of a model with terminal tokens"):
        Embedder(opened.module, opened.tokenizer, plain)


def test_the_inference_interface_follows_the_recipe_too(folder: Path) -> None:
    model = Seq2SeqInference.of(open_model(str(folder), load_registry()))
    got = model.seq_to_embeddings(SEQUENCES).detach().numpy()
    _, sampled = model.sample(1, True, seqs=SEQUENCES, scaled_radius=0.0, hiddens_to_seq_kwargs={"max_length": 2})
    for vector, own, sequence in zip(got, sampled[:, 0].numpy(), SEQUENCES, strict=True):
        assert error(vector, published(folder, sequence).mean(axis=0)) < TOLERANCE
        assert error(own, vector) < TOLERANCE
    hiddens, mask = model.seq_to_hiddens(SEQUENCES)  # the decoder attends to the terminal token as well
    assert mask.sum(dim=1).tolist() == [len(sequence) + 1 for sequence in SEQUENCES] and hiddens.shape[2] == 64


def test_plain_text_has_neither_replaced_letters_nor_terminal_tokens(folder: Path) -> None:
    got = bionemo_core.embed(str(folder), SEQUENCES, text_form="plain")
    for vector, sequence in zip(got, SEQUENCES, strict=True):
        assert error(vector, their_states(folder, sequence, eos=False).mean(axis=0)) < TOLERANCE
    with pytest.raises(ConfigError, match="text_form: got 'raw', expected one of tokenizer, plain"):
        bionemo_core.embed(str(folder), SEQUENCES, text_form="raw")
