"""Contacts by the command: their weights come with a folder, travel in an artefact, and are refused where absent."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bionemo_core import cli
from bionemo_core.errors import StorageError

transformers = pytest.importorskip("transformers")

PROTEINS = {"a/b": "MKTAYIAKQR", "c": "GSHMLE"}
COMMON = ("trainer.accelerator=cpu", "trainer.num_threads=1", "trainer.progress_bar=false")


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    torch.manual_seed(3)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    tokens = {"vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1, "max_position_embeddings": 66}
    config = transformers.EsmConfig(**sizes, **tokens, position_embedding_type="rotary", initializer_range=0.5)
    model = transformers.EsmForMaskedLM(config).eval()
    model.set_attn_implementation("eager")
    return model


@pytest.fixture
def folder(theirs: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    theirs.save_pretrained(tmp_path / "theirs")
    Path("p.fasta").write_text("".join(f">{name}\n{text}\n" for name, text in PROTEINS.items()))
    return tmp_path


def embed(source: str, output: str, *more: str) -> int:
    return cli.main(["task=embed", source, "task.input=p.fasta", f"task.output={output}", *COMMON, *more])


@torch.no_grad()
def expected(model: torch.nn.Module, sequence: str) -> np.ndarray:
    tokenizer = [*"____LAGVSERTIDPKQNFYMHWC"]
    ids = torch.tensor([[0, *(tokenizer.index(residue) for residue in sequence), 2]])
    return model.predict_contacts(ids, torch.ones_like(ids))[0].numpy()


def test_contacts_of_a_folder_and_of_its_artefact_in_every_kind_of_file(theirs, folder, capsys):
    import h5py
    import pyarrow.parquet as pq
    from safetensors.torch import load_file

    wanted = [expected(theirs, sequence) for sequence in PROTEINS.values()]
    convert = ("task=convert", *COMMON)
    assert cli.main([*convert, "restore_from_path=theirs", "task.output=artefact"]) == 0
    assert cli.main([*convert, "restore_from_path=artefact", "task.output=again", "task.to=huggingface"]) == 0
    before, after = (load_file(folder / name / "model.safetensors") for name in ("theirs", "again"))
    name = "esm.contact_head.regression.weight"
    assert torch.equal(before[name], after[name])
    both = "task.outputs=[contacts,attentions]"
    assert embed("restore_from_path=theirs", "out.h5", both, "task.heatmaps=true") == 0
    assert embed("restore_from_path=artefact", "out.npz", both) == 0
    assert embed("restore_from_path=artefact", "out.parquet", "task.outputs=[embeddings,contacts]") == 0
    capsys.readouterr()
    table = pq.read_table("out.parquet")
    with h5py.File("out.h5") as one, np.load("out.npz") as two:
        assert one["lengths"][:].tolist() == [10, 6]
        for row, contacts in enumerate(wanted):
            in_table = np.array(table["contacts"][row].as_py()).reshape(contacts.shape)
            for got in (one[f"contacts/{row}"][:], two[f"contacts/{row}"], in_table):
                assert np.abs(got - contacts).max() < 1e-5
            assert one[f"attentions/{row}"].shape == two[f"attentions/{row}"].shape == (2, 2, *contacts.shape)
            assert np.abs(one[f"attentions/{row}"][:].sum(-1)).max() < 1, "terminal tokens have a share"
    pictures = sorted(path.name for path in Path("out.h5.contacts").iterdir())
    assert pictures == ["00000_a_b.png", "00001_c.png"]
    assert (folder / "out.h5.contacts" / pictures[0]).read_bytes().startswith(b"\x89PNG")


def test_embeddings_do_not_depend_on_the_pictures_beside_them(folder, monkeypatch, caplog):
    def refuse(*arguments, **options):
        raise StorageError("out.h5.contacts: No space left on device.")

    monkeypatch.setattr("bionemo_core.reporting.contact_maps.save_png", refuse)
    assert embed("restore_from_path=theirs", "out.h5", "task.outputs=[contacts]", "task.heatmaps=true") == 0
    assert "out.h5.contacts is missing, and nothing else: out.h5.contacts: No space left on device." in caplog.text
    assert Path("out.h5").is_file() and Path("out.h5.json").is_file()


def test_what_has_no_contacts_says_so(folder, capsys):
    contacts = "task.outputs=[contacts]"
    for source, more, said in (
        ("model=esm1nv_tiny", (contacts,), "task.outputs=[contacts]: this model has no contact head"),
        ("restore_from_path=theirs", (contacts, "task.on_long=window"), "residues in different windows form no pair"),
        ("restore_from_path=theirs", (contacts, "task.terminal_rows=true"), "task.terminal_rows=true"),
        ("restore_from_path=theirs", ("task.heatmaps=true",), "task.heatmaps=true: draws contacts"),
    ):
        assert embed(source, "no.npz", *more) == 2
        assert said in capsys.readouterr().err
    assert embed("model=esm1nv_tiny", "maps.npz", "task.outputs=[attentions]", "model.num_layers=1") == 0
