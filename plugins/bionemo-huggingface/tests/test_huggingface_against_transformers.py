"""Folders that transformers saved: our states and logits are those of its own classes and tokenizers."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_folders import PROTEINS, SMILES, disturb, save_bert, save_roberta, save_roformer, save_t5

from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import Choice
from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.inference.embedding import Embedder, EmbeddingSettings
from bionemo_core.inference.scoring import MaskedScorer
from bionemo_core.models.load import OpenedModel, open_model
from bionemo_core.protocols import BuildContext
from bionemo_huggingface.families import ENCODERS, MASKED
from bionemo_huggingface.network import network_of_model
from bionemo_huggingface.sizes import plain_text

TOLERANCE = 1e-5
KINDS = {
    "bert": (save_bert, PROTEINS),
    "roberta": (save_roberta, SMILES),
    "roformer": (save_roformer, PROTEINS),
    "t5": (save_t5, PROTEINS),
}


def opened_here(folder: Path) -> OpenedModel:
    return open_model(
        str(folder),
        load_registry(),
        connector=Choice("connector", "huggingface_encoder", distribution="bionemo-huggingface"),
    )


def difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    assert got.shape == expected.shape
    return float((got - expected).abs().max() / expected.abs().max())


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any, list[str], OpenedModel, bool]:
    save, texts = KINDS[request.param]
    torch.manual_seed(0)
    model, tokenizer = save(tmp_path)
    return model, tokenizer, texts, opened_here(tmp_path), request.param != "roberta"


@torch.no_grad()
def test_states_and_logits(kind: tuple[Any, Any, list[str], OpenedModel, bool]) -> None:
    model, tokenizer, texts, opened, in_words = kind
    masked = hasattr(opened.module.network, "head")
    outputs = ("embeddings", "hiddens", "logits") if masked else ("embeddings", "hiddens")
    embedder = Embedder(opened.module, opened.tokenizer, EmbeddingSettings(outputs=outputs))
    got = embedder.run(texts)
    before, after = embedder.encoder.form.terminals
    for number, text in enumerate(texts):
        inputs = tokenizer(list(text) if in_words else text, is_split_into_words=in_words, return_tensors="pt")
        ids = inputs["input_ids"]
        assert ids[0].tolist()[before : ids.shape[1] - after] == opened.tokenizer.encode(text).tolist()
        result = model(input_ids=ids, output_hidden_states=True)
        states = result.hidden_states[-1][0, before : ids.shape[1] - after]
        assert difference(torch.from_numpy(got.rows("hiddens")[number]), states) < TOLERANCE
        assert difference(torch.from_numpy(got.arrays["embeddings"][number]), states.mean(0)) < TOLERANCE
        if masked:
            logits = result.logits[0, before : ids.shape[1] - after, : opened.tokenizer.vocab_size]
            assert difference(torch.from_numpy(got.rows("logits")[number]), logits) < TOLERANCE


@torch.no_grad()
def test_loss_is_that_of_transformers(tmp_path: Path) -> None:
    model, _ = save_bert(tmp_path)
    opened = opened_here(tmp_path)
    tokens = torch.randint(5, 30, (2, 12), generator=torch.Generator().manual_seed(0))
    asked = torch.zeros(2, 12, dtype=torch.bool)
    asked[0, 2:5] = asked[1, 7] = True
    real = torch.ones(2, 12, dtype=torch.bool)
    batch = TokenBatch(
        tokens, tokens, asked, torch.arange(12).repeat(2, 1), real, torch.zeros(2, 12), None, [12, 12], 12, 4, 24, 2, 24
    )
    theirs = model(input_ids=tokens, labels=torch.where(asked, tokens, -100)).loss * 4
    assert difference(opened.module.network(batch), theirs) < TOLERANCE


def test_letters_are_replaced_as_the_authors_publish(tmp_path: Path) -> None:
    save_bert(tmp_path)
    opened = opened_here(tmp_path)
    embedder = Embedder(opened.module, opened.tokenizer)
    given, written = embedder.run(["MKUZOB", "MKXXXX"]).arrays["embeddings"]
    assert (given == written).all()
    plain = Embedder(opened.module, opened.tokenizer, EmbeddingSettings(text_form="plain"))
    assert (plain.run(["MKUZOB"]).arrays["embeddings"][0] != written).any()
    scores = MaskedScorer(opened.module, opened.tokenizer).pseudo_log_likelihood
    assert (scores("MKUZOB") == scores("MKXXXX")).all()


SMALL = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
T5 = {"vocab_size": 40, "d_model": 32, "num_heads": 2, "d_kv": 16, "num_layers": 2, "d_ff": 48}
OWN = {
    "distilbert": {"vocab_size": 40, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    "megatron-bert": {**SMALL},
}


@torch.no_grad()
@pytest.mark.parametrize("family", sorted({*MASKED, *ENCODERS}))
def test_every_family(family: str) -> None:
    """The states do not depend on padding, the head alone computes the model's logits, and LoRA finds its layers."""
    from bionemo_huggingface.families import class_of, read_config

    values = T5 if family in ENCODERS else OWN.get(family, SMALL)
    config = read_config(plain_text({"model_type": family, **values}))
    torch.manual_seed(0)
    model = disturb(class_of(config)(config))
    ids = torch.randint(5, 40, (2, 16))
    real = torch.ones_like(ids, dtype=torch.bool)
    real[1, 10:], ids[1, 10:] = False, 0
    expected = model(input_ids=ids, attention_mask=real.long())
    network = network_of_model(model, 40, framed=family in MASKED, masked=family in MASKED)
    batch = TokenBatch(ids, ids, real, ids, real, ids, None, [16, 10], 16, 26, 26, 2, 32)
    alone = TokenBatch(*[t[1:, :10] for t in (ids, ids, real, ids, real, ids)], None, [10], 10, 10, 10, 1, 10)
    states = network.states(batch)
    assert difference(network.states(alone)[:, 0], states[:10, 1]) < TOLERANCE
    if family in MASKED:
        assert difference(network.logits(batch)[real], expected.logits[real]) < TOLERANCE
    else:
        assert difference(states.transpose(0, 1)[real], expected.last_hidden_state[real]) < TOLERANCE
    if family != "albert":  # which repeats one block
        assert len(network.layers) == 2
        assert all(network.lora_targets.values()), network.lora_targets


def test_vocabulary_and_weights_need_no_folder(tmp_path: Path) -> None:
    """What a folder becomes is built again from plain parameters alone."""
    save_roberta(tmp_path)
    opened = opened_here(tmp_path)
    expected = Embedder(opened.module, opened.tokenizer).run(SMILES).arrays["embeddings"]
    registry = load_registry()
    for file in tmp_path.iterdir():
        file.unlink()
    tokenizer = registry.build(opened.spec.tokenizer)
    module = registry.build(opened.spec.model, tokenizer=tokenizer, context=BuildContext(seed=1))
    module.network.load_state_dict(opened.module.network.state_dict())
    assert (Embedder(module.eval(), tokenizer).run(SMILES).arrays["embeddings"] == expected).all()
    assert tokenizer.decode(tokenizer.encode(SMILES[0]).tolist()) == SMILES[0]


def test_reading_what_was_written(tmp_path: Path) -> None:
    """A folder whose tensors are written by this plugin gives transformers the same model."""
    from bionemo_core import cli

    model, _ = save_bert(tmp_path / "theirs") if (tmp_path / "theirs").mkdir() is None else None
    written = tmp_path / "ours"
    assert (
        cli.main(
            [
                "task=convert",
                f"restore_from_path={tmp_path / 'theirs'}",
                "task.to=huggingface",
                f"task.output={written}",
            ]
        )
        == 0
    )
    again = transformers.AutoModelForMaskedLM.from_pretrained(written)
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
