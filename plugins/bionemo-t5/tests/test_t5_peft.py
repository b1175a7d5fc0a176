"""Adapters of `peft` on ProtT5: read onto it, and written from a fine-tuning; both equal to what peft computes."""

from pathlib import Path

import numpy as np
import pytest
import torch

import bionemo_core
from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.finetuning.peft_models import merge_peft
from bionemo_core.models.load import open_model
from bionemo_t5.tokenizer import PROTT5_PIECES

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers", "ignore:`is_gradient:FutureWarning")
SEQUENCES = ["MKTAYIAKQR", "GSHMLE"]
LINEAR = ["q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo"]
COMMON = ("trainer.accelerator=cpu", "trainer.num_threads=1", "trainer.progress_bar=false", "batch.num_workers=0")


@pytest.fixture(params=["relu", "gated-gelu"])
def base(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a T5 with random weights, plain as ProtT5 or gated, in the working folder."""
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    sizes = {"d_model": 32, "num_heads": 2, "num_layers": 2, "d_ff": 48, "d_kv": 12, "vocab_size": 128}
    config = transformers.T5Config(**sizes, feed_forward_proj=request.param)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def save_adapter(base: Path, kind: type, **options: object) -> torch.nn.Module:
    """Save adapters with random values in both factors; returns the model of peft that has them."""
    torch.manual_seed(5)
    adapted = peft.get_peft_model(kind.from_pretrained(base), peft.LoraConfig(r=4, lora_alpha=12, **options))
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            if "lora_" in key:
                parameter.add_(0.2 * torch.randn_like(parameter))
    adapted.save_pretrained("adapter")
    return adapted.eval()


@torch.no_grad()
def theirs(adapted: torch.nn.Module) -> list[np.ndarray]:
    encoder = adapted.base_model.model.get_encoder()
    rows = [[*(PROTT5_PIECES.index(residue) for residue in text), 1] for text in SEQUENCES]
    return [encoder(torch.tensor([row])).last_hidden_state[0, :-1].mean(0).numpy() for row in rows]


def ours(adapter: str | None) -> list[np.ndarray]:
    opened = open_model("base", load_registry())
    return bionemo_core.embed(merge_peft(opened, adapter, load_registry()) if adapter else opened, SEQUENCES)


def error(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    return max(float(np.abs(got - one).max() / np.abs(one).max()) for got, one in zip(found, wanted, strict=True))


@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["lora", "dora"])
@pytest.mark.parametrize("kind", ["T5EncoderModel", "T5ForConditionalGeneration"])
def test_an_adapter_is_added_as_peft_adds_it(base: Path, kind: str, options: dict[str, object]) -> None:
    adapted = save_adapter(base, getattr(transformers, kind), target_modules=LINEAR, **options)
    assert error(ours("adapter"), theirs(adapted)) < 1e-5
    assert error(ours(None), theirs(adapted)) > 1e-2, "the adapter does change the states"


def test_adapters_of_a_fine_tuning_are_what_peft_loads(base: Path, capsys) -> None:
    rows = "".join(f"{text[number:] + text[:number]},{number}\n" for number in range(6) for text in SEQUENCES)
    Path("labels.csv").write_text(f"sequence,label\n{rows}")
    tuned = ["task=finetune", "restore_from_path=base", "task.kind=sequence_regression", "task.encoder=lora", *COMMON]
    tuned += ["data=labelled_csv", "data.dataset_path=labels.csv", "data.target_column=label", "name=tuned"]
    tuned += ["task.lora_rank=4", "trainer.max_steps=4", "optim.lr=0.05", "data.val_fraction=0.2"]
    tuned += ["task.baseline=false"]
    assert cli.main(tuned) == 0
    (run,) = Path("home/runs/tuned").iterdir()
    out = ["task=convert", "restore_from_path=base", f"task.adapter={run}/adapter", "task.to=peft", *COMMON]
    assert cli.main([*out, "task.output=theirs"]) == 0, capsys.readouterr().err
    loaded = peft.PeftModel.from_pretrained(transformers.T5EncoderModel.from_pretrained(base), "theirs").eval()
    found = bionemo_core.embed(str(run / "model"), SEQUENCES)
    assert error(found, theirs(loaded)) < 1e-5
    assert error(ours("theirs"), found) < 1e-5
    assert error(ours(None), found) > 1e-3
