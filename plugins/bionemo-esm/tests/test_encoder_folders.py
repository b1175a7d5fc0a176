"""Hugging Face folders of an encoder without a language-model head: they open for what they can do, and no more."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import batch, example

from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import Restore
from bionemo_core.errors import ArtefactError
from bionemo_core.inference.embedding import Embedder, EmbeddingSettings
from bionemo_core.inference.scoring import MaskedScorer
from bionemo_core.models.load import OpenedModel, open_model
from bionemo_core.models.locate import open_stored
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.transfer import Vocabularies, transfer_weights
from bionemo_core.protocols import BuildContext

transformers = pytest.importorskip("transformers")

SEQUENCES = ("MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ", "MKVLAAGIVGXBU")
CLASSES = ("EsmModel", "EsmForSequenceClassification", "EsmForTokenClassification")
ABILITIES = "has no language-model head: it embeds and can be fine-tuned, but has no perplexity"


@pytest.fixture(scope="module", params=[*((name, "rotary") for name in CLASSES), ("EsmModel", "absolute")], ids=str)
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Their model with random weights, and the folder that it saved itself to."""
    name, positions = request.param
    torch.manual_seed(3)
    config = transformers.EsmConfig(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=40, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=80, max_position_embeddings=66, position_embedding_type=positions,
        emb_layer_norm_before=positions == "absolute", token_dropout=True, layer_norm_eps=1e-3,
    )  # fmt: skip
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder = tmp_path_factory.mktemp("theirs") / name
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def opened(theirs: tuple[Any, Path]) -> OpenedModel:
    return open_model(str(theirs[1]), load_registry())


@torch.no_grad()
def test_hidden_states_against_transformers(theirs: tuple[Any, Path], opened: OpenedModel) -> None:
    padded = batch([example(opened.tokenizer, sequence) for sequence in SEQUENCES], opened.tokenizer, packed=False)
    inputs = {"input_ids": padded.tokens, "attention_mask": padded.padding_mask.long()}
    expected = theirs[0].base_model(**inputs).last_hidden_state
    got = opened.module.network.hidden_states(padded).transpose(0, 1)
    assert (got - expected)[padded.padding_mask].abs().max() / expected.abs().max() < 1e-5


def test_the_report_says_what_it_can_do(theirs: tuple[Any, Path], opened: OpenedModel) -> None:
    assert f"{type(theirs[0]).__name__} {ABILITIES}" in opened.report.text()
    assert {name.partition(".")[0] for name in opened.report.missing} == {"head"} and not opened.report.unexpected


@pytest.mark.parametrize("strict", [True, False])
def test_what_needs_the_head_is_refused_by_name(theirs: tuple[Any, Path], strict: bool) -> None:
    opened = open_model(str(theirs[1]), load_registry(), strict=strict)
    with pytest.raises(ArtefactError, match=rf"head\.dense\.weight.*{ABILITIES}"):
        MaskedScorer(opened.module, opened.tokenizer)
    with pytest.raises(ArtefactError, match=r"outputs=logits needs .*head\.dense\.weight"):
        Embedder(opened.module, opened.tokenizer, EmbeddingSettings(outputs=("logits",)))
    Embedder(opened.module, opened.tokenizer)


def test_training_starts_a_new_head_only_if_told(theirs: tuple[Any, Path]) -> None:
    registry = load_registry()
    stored = open_stored(str(theirs[1]), registry)
    tokenizer = registry.build(stored.spec.tokenizer)
    network = registry.build(stored.spec.model, tokenizer=tokenizer, context=BuildContext()).network
    sizes = Vocabularies(tokenizer.vocab_size, tokenizer.vocab_size)
    with pytest.raises(ArtefactError, match=rf"Missing: head\.dense\.weight.*restore\.strict=false.*{ABILITIES}"):
        transfer_weights(network, start_groups(), stored, Restore(), sizes)
    report = transfer_weights(network, start_groups(), stored, Restore(strict=False), sizes)
    assert all(name.startswith("head.") for name in report.missing) and report.matched


def run(*arguments: str) -> int:
    return cli.main([*arguments, "trainer.accelerator=cpu", "trainer.progress_bar=false", "trainer.num_threads=1"])


def test_the_command_embeds_converts_and_refuses(
    theirs: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An artefact of such a folder has no random head either, and says the same."""
    if type(theirs[0]).__name__ != "EsmModel":
        pytest.skip("the same for every class")
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    (tmp_path / "in.fasta").write_text("".join(f">s{i}\n{text}\n" for i, text in enumerate(SEQUENCES)))
    artefact = tmp_path / "artefact"
    assert run("task=convert", f"restore_from_path={theirs[1]}", f"task.output={artefact}") == 0
    assert (tmp_path / "artefact.restore.json").is_file()
    means = []
    for number, source in enumerate((theirs[1], artefact)):
        output = tmp_path / f"{number}.npz"
        capsys.readouterr()
        assert run("task=embed", f"restore_from_path={source}", f"task.input={tmp_path}/in.fasta",
                   f"task.output={output}") == 0  # fmt: skip
        assert f"EsmModel {ABILITIES}" in capsys.readouterr().out
        assert '"head.dense.weight"' in Path(f"{output}.restore.json").read_text()
        with np.load(output) as got:
            means.append(got["embeddings"])
        assert run("task=evaluate", f"restore_from_path={source}", f"task.output={tmp_path}/e") == 4
        assert "task=evaluate needs tensors that were not loaded: head.dense.weight" in capsys.readouterr().err
    assert np.array_equal(*means)
    assert run("task=convert", f"restore_from_path={artefact}", "task.to=huggingface", f"task.output={tmp_path}/x") == 2
    assert "the format needs tensors that" in capsys.readouterr().err
