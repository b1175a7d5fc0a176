"""Folders through the command: embedded, evaluated, fine-tuned, and what is refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from huggingface_folders import PROTEINS, disturb, save_bert, save_t5
from safetensors.torch import load_file, save_file

from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.inference.embedding import Embedder
from bionemo_core.inference.scoring import MaskedScorer
from bionemo_core.models.load import open_model
from bionemo_core.models.locate import open_stored
from bionemo_huggingface.sizes import PROTBERT_PIECES

QUICK = ("trainer.accelerator=cpu", "trainer.num_threads=1", "trainer.progress_bar=false", "batch.num_workers=0")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    save_bert(folder)
    return folder


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Proteins whose label is their share of lysine."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 4), ("test", 4)):
        (tmp_path / "labelled" / split).mkdir(parents=True)
        rows = ["id,sequence,share"]
        for number in range(count):
            sequence = "".join(draw.choice(list("MKTAYUQR"), size=20))
            rows.append(f"{split}{number},{sequence},{sequence.count('K') / 20}")
        (tmp_path / "labelled" / split / "x000.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "labelled"


def command(monkeypatch: Any, home: Path, *arguments: str) -> int:
    monkeypatch.setenv("BIONEMO_HOME", str(home))
    return cli.main([*arguments, *QUICK])


def finetune(monkeypatch: Any, home: Path, source: Path, labelled: Path, encoder: str) -> Path:
    data = ("data=labelled_csv", f"data.dataset_path={labelled}", "data.target_column=share")
    steps = ("trainer.max_steps=3", "trainer.val_check_interval=3", "checkpoint.every_n_steps=3")
    task = ("task=finetune", "task.kind=sequence_regression", f"task.encoder={encoder}", "optim.lr=1e-2", "name=tuned")
    assert command(monkeypatch, home, *task, f"restore_from_path={source}", *data, *steps) == 0
    return next((home / "runs" / "tuned").iterdir())


@pytest.mark.parametrize("encoder", ["frozen", "lora", "full"])
def test_fine_tuning(bert: Path, labelled: Path, tmp_path: Path, monkeypatch: Any, encoder: str) -> None:
    source = tmp_path / "copy"
    shutil.copytree(bert, source)
    before = open_model(str(source), load_registry())
    run = finetune(monkeypatch, tmp_path / "home", source, labelled, encoder)
    shutil.rmtree(source)  # the run needs it no longer
    tuned = open_model(str(run), load_registry())
    weights = {
        name: tensor for name, tensor in tuned.module.network.encoder_network.named_parameters() if ".lora." not in name
    }
    same = [torch.equal(tensor, weights[name]) for name, tensor in before.module.network.named_parameters()]
    assert all(same) == (encoder != "full")
    adapters = [name for name, _ in tuned.module.network.named_parameters() if name.endswith(".lora.up")]
    assert len(adapters) == (2 * 6 if encoder == "lora" else 0)  # query, key, value, both of the MLP, projection
    assert tuned.tokenizer.input_form.replaced == "UZOB"
    assert np.isfinite(Embedder(tuned.module, tuned.tokenizer).run(PROTEINS).arrays["embeddings"]).all()


def test_an_encoder_alone_has_no_loss(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ankh").mkdir()
    save_t5(tmp_path / "ankh")
    chosen = (f"restore_from_path={tmp_path / 'ankh'}", "connector=huggingface_encoder")
    task = ("task=evaluate", f"task.output={tmp_path / 'evaluated'}", "data=sample")
    assert command(monkeypatch, tmp_path / "home", *task, *chosen) == 2
    assert "T5EncoderModel has no masked-language head, so it has no loss" in capsys.readouterr().err


def test_evaluation(bert: Path, tmp_path: Path, monkeypatch: Any) -> None:
    out = tmp_path / "evaluated"
    task = ("task=evaluate", f"task.output={out}", "data=sample", "batch.micro_batch_size=4")
    assert command(monkeypatch, tmp_path / "home", *task, f"restore_from_path={bert}") == 0
    assert json.loads((out / "metrics.json").read_text())["metrics"]["perplexity"] > 1


def test_an_encoder_without_a_head_embeds_and_has_no_perplexity(tmp_path: Path) -> None:
    save_bert(tmp_path, "BertModel")
    opened = open_model(str(tmp_path), load_registry())
    Embedder(opened.module, opened.tokenizer)
    with pytest.raises(
        Exception,
        match=r"BertModel has no masked-language head: it embeds and can be fine-tuned, but has no perplexity",
    ):
        MaskedScorer(opened.module, opened.tokenizer)


def test_a_plugin_of_the_family_comes_first(tmp_path: Path) -> None:
    pytest.importorskip("bionemo_esm")
    config = transformers.EsmConfig(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=40, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=80, max_position_embeddings=66, position_embedding_type="rotary",
    )  # fmt: skip
    disturb(transformers.EsmForMaskedLM(config)).save_pretrained(tmp_path)
    registry = load_registry()
    assert open_stored(str(tmp_path), registry).spec.model.distribution == "bionemo-esm"


def test_weights_in_a_pickle_are_read_by_the_safe_reader(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(bert, folder)
    (folder / "model.safetensors").unlink()
    model = transformers.BertForMaskedLM.from_pretrained(bert)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    ours, theirs = (open_model(str(one), load_registry()).module.network.state_dict() for one in (folder, bert))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    torch.save({"a": model.config}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"A \.bin file is a pickle. If you trust it, convert it"):
        open_model(str(folder), load_registry())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "AMPLIFY", "auto_map": {"AutoModel": "amplify.AMPLIFY"}}, "'AMPLIFY' is computed by code in"),
        ({"model_type": "gpt2"}, "'gpt2' cannot be opened: it is a decoder"),
        ({"model_type": "bart"}, "'bart' cannot be opened: it is a decoder or an encoder-decoder"),
        ({"model_type": "fnet"}, "'fnet' cannot be opened: its states depend on the padding"),
        ({"is_decoder": True}, "is_decoder is true"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"num_hidden_layers": 3}, "does not fit this model. Missing: encoder.encoder.layer.2"),
        ({"hidden_size": 36}, "its tensors do not fit BertForMaskedLM"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, expected at most 1,000"),
        ({"intermediate_size": 2**40}, "intermediate_size is 1099511627776, expected at most"),
        ({"hidden_size": "wide"}, "bert does not accept it"),
    ],
)
def test_refusals(bert: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(bert, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(Exception, match=said) as refused:
        open_model(str(folder), load_registry())
    assert refused.type.__name__ == "ArtefactError"


def test_code_beside_a_known_model_is_not_run(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "code"
    shutil.copytree(bert, folder)
    (folder / "mine.py").write_text("raise SystemExit('run')")
    for file, key in (("config.json", "AutoModelForMaskedLM"), ("tokenizer_config.json", "AutoTokenizer")):
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | {"auto_map": {key: "mine.Model"}}))
    opened = open_model(str(folder), load_registry())
    assert "auto_map" not in opened.spec.model.params["config"]


def test_packing_is_refused(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(monkeypatch, tmp_path, "model=huggingface_encoder", "batch.packing=true") == 2
    assert "does not declare 'packing'" in capsys.readouterr().err


def test_further_heads_are_left_out_and_a_bare_vocabulary_keeps_its_capitals(bert: Path, tmp_path: Path) -> None:
    """As in the folder of AntiBERTy: heads of its own beside the language model's, and a vocab.txt alone."""
    folder = tmp_path / "heads"
    shutil.copytree(bert, folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    (folder / "vocab.txt").write_text("\n".join(PROTBERT_PIECES))
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "cls.species.weight": torch.ones(6, 32)}, folder / "model.safetensors", {"format": "pt"})
    opened = open_model(str(folder), load_registry())
    assert "not used: cls.species.weight" in opened.report.text()
    assert opened.tokenizer.unk_id not in opened.tokenizer.encode(PROTEINS[0])
    save_file({**tensors, "bert.encoder.extra": torch.ones(6)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Exception, match=r"unexpected: bert\.encoder\.extra"):
        open_model(str(folder), load_registry())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_of_peft_changes_the_weights_as_peft_merges_it(bert: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from bionemo_core.finetuning.peft_models import merge_peft
    from bionemo_core.parallel.weights import network_of

    base = transformers.BertForMaskedLM.from_pretrained(bert)
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=2, lora_alpha=6, target_modules=["query", "dense"]))
    disturb(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    # What is disturbed besides the adapters is no part of the folder.
    clean = peft.PeftModel.from_pretrained(transformers.BertForMaskedLM.from_pretrained(bert), tmp_path / "adapter")
    theirs = clean.merge_and_unload().state_dict()
    registry = load_registry()
    opened = merge_peft(open_model(str(bert), registry), str(tmp_path / "adapter"), registry)
    plain = dict(network_of(open_model(str(bert), registry).module).named_parameters())
    changed = 0
    for name, parameter in network_of(opened.module).named_parameters():
        (wanted,) = {id(one): one for key, one in theirs.items() if name.endswith(key.removeprefix("bert."))}.values()
        assert torch.allclose(parameter, wanted, atol=1e-6), name
        changed += not torch.equal(parameter, plain[name])
    assert changed == 9  # in each of two layers the query and three dense layers, and the head's dense layer
    assert opened.report.notes[-1].startswith("adapter: 9 layers changed")
