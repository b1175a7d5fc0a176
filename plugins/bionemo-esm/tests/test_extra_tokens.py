"""Letters that a user adds to an alphabet: their ids, their rows, and what a fine-tuned model makes of them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import Choice, Restore
from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.models.load import OpenedModel, open_model
from bionemo_core.protocols import BuildContext
from bionemo_esm.tokenizer import ESM2_PIECES, esm1nv_tokenizer, esm2_tokenizer, esmc_tokenizer

COMMON = ("trainer.accelerator=cpu", "trainer.num_threads=1", "trainer.progress_bar=false", "batch.num_workers=0")
TINY = ("model=esm2_8m", "model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2")
SHORT = ("model.seq_length=64", "trainer.max_steps=1", "scheduler.warmup_steps=0", "batch.micro_batch_size=2")
TABLE, HEAD = "embedding.word_embeddings.weight", "head.output.bias"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a tiny ESM-2 with its own 33 tokens."""
    home = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIONEMO_RUN_FOLDER", str(home / "run"))
        assert cli.main([*TINY, *SHORT, *COMMON, f"home={home}"]) == 0
    return home / "run"


@pytest.fixture(scope="module")
def extended(plain: Path) -> OpenedModel:
    return open_model(str(plain), load_registry(), restore=Restore(extra_tokens=["J", "1"]))


def weights(opened: OpenedModel) -> dict[str, torch.Tensor]:
    return {name: one.detach() for name, one in opened.module.network.named_parameters()}  # type: ignore[union-attr]


@pytest.mark.parametrize("build", [esm1nv_tokenizer, esm2_tokenizer, esmc_tokenizer])
def test_added_letters_come_after_the_others(build: Any) -> None:
    own, more = build(), build(["J", "#"])
    assert more.pieces == (*own.pieces, "J", "#")
    assert [getattr(more, f"{name}_id") for name in ("pad", "bos", "eos", "unk", "mask")] == [
        getattr(own, f"{name}_id") for name in ("pad", "bos", "eos", "unk", "mask")
    ]
    assert more.encode("LJ#A").tolist() == [*own.encode("L"), own.vocab_size, own.vocab_size + 1, *own.encode("A")]
    assert own.encode("J").tolist() == [own.unk_id] and more.decode(more.encode("AJ")) == "AJ"
    assert set(more.special_ids) == set(own.special_ids)


@pytest.mark.parametrize("token", ["", "JJ", "j", " ", "\t", "é", "L", "<mask>"])
def test_what_no_sequence_can_hold_or_is_there_already_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match=r"^tokenizer\.extra_tokens: "):
        esm2_tokenizer([token])
    with pytest.raises(ConfigError, match="'J' is a token already"):
        esm2_tokenizer(["J", "J"])


def test_rows_of_added_letters_are_the_mean_of_the_others(plain: Path, extended: OpenedModel) -> None:
    own = open_model(str(plain), load_registry())
    before, after = weights(own), weights(extended)
    size = len(ESM2_PIECES)
    assert extended.tokenizer.pieces == (*ESM2_PIECES, "J", "1")
    assert extended.spec.tokenizer.params == {"extra_tokens": ["J", "1"]}
    for name in (TABLE, HEAD):
        assert torch.equal(after[name][:size], before[name][:size])
        assert torch.allclose(after[name][size : size + 2], before[name][:size].mean(dim=0), atol=1e-7)
    others = before.keys() - {TABLE, HEAD, "head.output.weight"}
    assert len(others) > 10 and all(torch.equal(after[name], before[name]) for name in others)
    again = open_model(str(plain), load_registry(), restore=Restore(extra_tokens=["J"], vocabulary="tile"))
    assert torch.equal(weights(again)[TABLE][size], before[TABLE][size]), "tiled, as it was asked for"


def test_training_goes_on_with_more_letters(plain: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("BIONEMO_RUN_FOLDER", str(tmp_path / "more"))
    fasta = tmp_path / "p.fasta"
    fasta.write_text("".join(f">p{number}\nMKVJ{'LAJGS' * 3}\n" for number in range(8)))
    arguments = [*TINY, *SHORT, *COMMON, f"home={tmp_path}", f"restore_from_path={plain}"]
    arguments += ["data=fasta", f"data.path={fasta}", "data.val_size=2", "tokenizer.extra_tokens=[J]", "optim.lr=1e-9"]
    arguments += ["scheduler.min_lr=0"]
    assert cli.main(arguments) != 0
    assert "set restore.vocabulary=tile or mean" in capsys.readouterr().err
    assert cli.main([*arguments, "restore.extra_tokens=[J]", "restore.vocabulary=mean"]) == 2
    assert "Here give tokenizer.extra_tokens" in capsys.readouterr().err
    assert cli.main([*arguments, "restore.vocabulary=mean"]) == 0
    assert "read 8 = used 8" in capsys.readouterr().out
    trained = open_model(str(tmp_path / "more"), load_registry())
    assert trained.tokenizer.pieces == (*ESM2_PIECES, "J")
    before, after = weights(open_model(str(plain), load_registry()))[TABLE], weights(trained)[TABLE]
    assert torch.allclose(after[len(ESM2_PIECES)], before[: len(ESM2_PIECES)].mean(dim=0), atol=1e-7)


def test_a_head_is_fine_tuned_on_sequences_with_more_letters(plain: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("BIONEMO_RUN_FOLDER", str(tmp_path / "tuned"))
    draw, table = np.random.default_rng(1), tmp_path / "labelled.csv"
    sequences = ["".join(draw.choice(list("LAGJ"), 12)) for _ in range(60)]
    rows = [f"p{number},{text},{text.count('J')}" for number, text in enumerate(sequences)]
    table.write_text("\n".join(["id,sequence,target", *rows]) + "\n")
    arguments = ["task=finetune", f"restore_from_path={plain}", f"home={tmp_path}", *COMMON, "trainer.max_steps=2"]
    arguments += ["task.kind=sequence_regression", "data=labelled_csv", f"data.dataset_path={table}"]
    assert cli.main([*arguments, "restore.extra_tokens=[J]"]) == 0
    tested = json.loads((tmp_path / "tuned" / "baseline.json").read_text())["metrics"]["test"]
    assert tested["r2"] > 0.8, "the letter is seen: the linear baseline counts it"
    tuned = open_model(str(tmp_path / "tuned" / "model"), load_registry())
    assert tuned.tokenizer.pieces == (*ESM2_PIECES, "J"), "recorded, so that it needs no further word"
    output = tmp_path / "predictions.csv"
    model = f"restore_from_path={tmp_path / 'tuned' / 'model'}"
    assert cli.main(["task=predict", model, f"task.input={table}", f"task.output={output}", COMMON[0]]) == 0
    assert len(list(csv.DictReader(output.read_text().splitlines()))) == 60


def test_a_tokenizer_that_takes_no_letters_is_named(plain: Path) -> None:
    registry = load_registry()
    from bionemo_core.models.compatibility import extend_vocabulary

    with pytest.raises(ConfigError, match="the tokenizer 'smiles' takes no further tokens"):
        extend_vocabulary(Choice("tokenizer", "smiles", {}, "bionemo-molbart"), ["J"], registry)
    once = extend_vocabulary(Choice("tokenizer", "esm2", {}, "bionemo-esm"), ["J"], registry)
    twice = extend_vocabulary(once, ["1"], registry)
    assert registry.build(twice, context=BuildContext()).pieces[-2:] == ("J", "1")


def test_such_a_model_is_no_hugging_face_folder(plain: Path, tmp_path: Path, capsys: Any) -> None:
    arguments = ["task=convert", f"restore_from_path={plain}", f"home={tmp_path}"]
    assert cli.main([*arguments, "restore.extra_tokens=[J]", f"task.output={tmp_path / 'more'}"]) == 0
    assert open_model(str(tmp_path / "more"), load_registry()).tokenizer.pieces[-1] == "J"
    arguments += ["restore.extra_tokens=[J]", "task.to=huggingface", f"task.output={tmp_path / 'hf'}"]
    assert cli.main(arguments) != 0
    assert not (tmp_path / "hf").exists()
    capsys.readouterr()
    with pytest.raises((ArtefactError, ConfigError)):
        open_model(str(plain), load_registry(), restore=Restore(extra_tokens=["j"]))
