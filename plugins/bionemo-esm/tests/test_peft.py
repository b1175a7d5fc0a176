"""Adapters of `peft`: read onto a model, and written from a fine-tuning; both equal to what peft computes."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bionemo_core import cli

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers", "ignore:`is_gradient:FutureWarning")
SEQUENCES = ["MKTAYIAKQR", "GSHMLE"]
ALPHABET = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]
COMMON = ("trainer.accelerator=cpu", "trainer.num_threads=1", "trainer.progress_bar=false")
LINEAR = ["query", "key", "value", "dense"]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of an ESM-2 with random weights, in the working folder."""
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    tokens = {"vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1, "max_position_embeddings": 66}
    config = transformers.EsmConfig(
        **sizes, **tokens, position_embedding_type="rotary", initializer_range=0.3, token_dropout=True
    )
    transformers.EsmForMaskedLM(config).save_pretrained(tmp_path / "base")
    Path("p.fasta").write_text("".join(f">{number}\n{text}\n" for number, text in enumerate(SEQUENCES)))
    return tmp_path / "base"


def save_adapter(base: Path, name: str, kind: type | None = None, **options: object) -> torch.nn.Module:
    """Save adapters with random values in both factors; returns the model of peft that has them."""
    torch.manual_seed(5)
    model = (kind or transformers.EsmForMaskedLM).from_pretrained(base)
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=4, lora_alpha=12, **{"target_modules": LINEAR, "lora_dropout": 0.1, **options})
    )
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            if "lora_" in key:
                parameter.add_(0.2 * torch.randn_like(parameter))
    adapted.save_pretrained(name)
    return adapted.eval()


@torch.no_grad()
def states_of_theirs(model: torch.nn.Module) -> list[np.ndarray]:
    body = model.base_model.model
    body = getattr(body, "esm", body)
    rows = [[0, *(ALPHABET.index(residue) for residue in text), 2] for text in SEQUENCES]
    return [body(torch.tensor([row]), torch.ones(1, len(row))).last_hidden_state[0, 1:-1].numpy() for row in rows]


def states_of_ours(source: str, *more: str, output: str = "out.npz") -> list[np.ndarray]:
    asked = ["task=embed", f"restore_from_path={source}", "task.input=p.fasta", f"task.output={output}"]
    assert cli.main([*asked, "task.outputs=[hiddens]", *COMMON, *more]) == 0
    with np.load(output) as found:
        return np.split(found["hiddens"], found["offsets"][1:-1])


def assert_close(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for got, expected in zip(found, wanted, strict=True):
        assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    "options",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["value"]}],
    ids=["lora", "rank-stabilised", "dora", "one kind of layer"],
)
def test_an_adapter_is_added_as_peft_adds_it(base: Path, options: dict[str, object]) -> None:
    wanted = states_of_theirs(save_adapter(base, "adapter", **options))
    assert_close(states_of_ours("base", "task.adapter=adapter"), wanted)
    with pytest.raises(AssertionError):  # the adapter does change the states
        assert_close(states_of_ours("base", output="plain.npz"), wanted)


def test_an_adapter_of_the_model_without_its_head_and_a_merged_model(base: Path, capsys) -> None:
    theirs = save_adapter(base, "adapter", transformers.EsmModel, modules_to_save=["pooler"])
    merged = ["task=convert", "restore_from_path=base", "task.adapter=adapter", "task.output=merged", *COMMON]
    assert cli.main([*merged, "task.to=huggingface"]) == 0
    said = capsys.readouterr().out
    assert "adapter: 12 layers changed, from adapter" in said
    assert "not part of this model: base_model.model.pooler.dense.bias" in said
    assert_close(states_of_ours("merged"), states_of_theirs(theirs))


def fine_tune(*more: str) -> Path:
    """Fine-tune the model at `base` for some steps; returns the run folder."""
    rows = "".join(f"{text[number:] + text[:number]},{number}\n" for number in range(6) for text in SEQUENCES)
    Path("labels.csv").write_text(f"sequence,label\n{rows}")
    tuned = ["task=finetune", "restore_from_path=base", "task.kind=sequence_regression", "name=tuned", *COMMON]
    tuned += ["data=labelled_csv", "data.dataset_path=labels.csv", "data.target_column=label", "optim.lr=0.05"]
    tuned += ["batch.num_workers=0", "data.val_fraction=0.2", "task.baseline=false", "trainer.max_steps=4"]
    assert cli.main([*tuned, *more]) == 0
    (run,) = Path("home/runs/tuned").iterdir()
    return run


def check_encoder_alone(run: Path, wanted: list[np.ndarray]) -> None:
    """Check that transformers computes these states with the encoder of a run, written as a Hugging Face folder."""
    alone = ["task=convert", f"restore_from_path={run}", "task.part=encoder", "task.to=huggingface", *COMMON]
    assert cli.main([*alone, "task.output=alone"]) == 0
    theirs = transformers.EsmForMaskedLM.from_pretrained("alone").eval()
    assert_close(states_of_theirs(SimpleNamespace(base_model=SimpleNamespace(model=theirs))), wanted)


def test_a_fully_fine_tuned_encoder_is_a_hugging_face_folder_of_its_own(base: Path, capsys) -> None:
    run = fine_tune("task.encoder=full")
    wanted = states_of_ours(str(run))
    check_encoder_alone(run, wanted)
    assert "the encoder alone: the head of the fine-tuning is left out" in capsys.readouterr().out
    with pytest.raises(AssertionError):  # the fine-tuning did change the states
        assert_close(states_of_ours("base", output="plain.npz"), wanted)


@pytest.mark.parametrize("dora", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_adapters_of_a_fine_tuning_are_what_peft_loads(base: Path, dora: str, capsys) -> None:
    run = fine_tune("task.encoder=lora", "task.lora_rank=4", "task.lora_alpha=8", f"task.lora_dora={dora}")
    out = ["task=convert", "restore_from_path=base", f"task.adapter={run}/adapter", "task.to=peft", *COMMON]
    assert cli.main([*out, "task.output=theirs"]) == 0
    assert "peft, adapters of 12 layers, without the head" in capsys.readouterr().out
    assert json.loads(Path("theirs.restore.json").read_text())["source"].endswith("base")
    model = transformers.EsmForMaskedLM.from_pretrained(base)
    theirs = peft.PeftModel.from_pretrained(model, "theirs").eval()
    ours = states_of_ours("base", f"task.adapter={run}/adapter")
    assert_close(ours, states_of_theirs(theirs))
    check_encoder_alone(run, ours)
    assert_close(states_of_ours("base", "task.adapter=theirs", output="again.npz"), ours)
    with pytest.raises(AssertionError):
        assert_close(states_of_ours("base", output="plain.npz"), ours)
    config = json.loads(Path("theirs/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    assert len(config["target_modules"].split("|")) == 6


REFUSED = {
    "peft_type": ("IA3", "peft_type is IA3, expected LORA"),
    "bias": ("all", "bias=all is not supported"),
    "alpha_pattern": ({"query": 3}, "alpha_pattern=.* is not supported"),
    "init_lora_weights": ("pissa", "init_lora_weights=pissa is not supported"),
    "r": (0, "r is 0, expected a number above 0"),
    "lora_alpha": ("big", "lora_alpha is big, expected a number above 0"),
    "use_dora": (True, "the adapter of esm.encoder.layer.0.attention.output.dense is not whole; it has down, up"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_supported_is_refused_by_name(base: Path, key: str) -> None:
    from bionemo_core.errors import ArtefactError
    from bionemo_core.finetuning.peft_folder import read_peft

    save_adapter(base, "adapter")
    file = Path("adapter/adapter_config.json")
    config = json.loads(file.read_text())
    read_peft(file.parent)
    value, words = REFUSED[key]
    file.write_text(json.dumps({**config, key: value}))
    with pytest.raises(ArtefactError, match=words):
        read_peft(file.parent)


def test_an_adapter_of_another_model_and_wrong_words_are_refused(base: Path, capsys) -> None:
    save_adapter(base, "adapter", target_modules=["lm_head.decoder"])
    asked = ["task=embed", "restore_from_path=base", "task.input=p.fasta", "task.output=no.npz", *COMMON]
    assert cli.main([*asked, "task.adapter=adapter"]) == 4
    assert "adapts lm_head.decoder.weight, which this model does not have" in capsys.readouterr().err
    convert = ["task=convert", "restore_from_path=base", "task.output=no", *COMMON]
    assert cli.main([*convert, "task.to=peft"]) == 2
    assert "task.to=peft: set task.adapter=RUN/adapter" in capsys.readouterr().err
    assert cli.main([*convert, "task.adapter=base"]) == 2
    assert "task.adapter=base: not a folder of peft" in capsys.readouterr().err
    assert cli.main([*convert, "task.adapter=base", "task.to=huggingface"]) == 2
    assert "with its adapters added, is restore_from_path=RUN task.part=encoder" in capsys.readouterr().err
    assert cli.main([*convert, "task.part=encoder"]) == 2
    assert "task.part=encoder: the model 'esm2_8m' is not fine-tuned" in capsys.readouterr().err
    assert cli.main([*convert, "task.part=encoder", "task.adapter=adapter"]) == 2
    assert "without task.adapter" in capsys.readouterr().err
