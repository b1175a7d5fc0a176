"""M1: pickles behind every extension that is read: none is run, each is refused with status 4, for what it is."""

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_archives import (
    Entry,
    assert_opens,
    build,
    harmless,
    huggingface_folder,
    inflated_tensor,
    programs,
    tar,
    torch_file,
)
from matrix import row
from runs import Home

from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import Choice
from bionemo_core.errors import ArtefactError
from bionemo_core.interop.artefact import Artefact, _json_hash, write_artefact
from bionemo_core.interop.stored import ModelSpec, Vocabulary
from bionemo_core.models.load import open_model

pytestmark = pytest.mark.faults

EXTENSIONS = ("nemo", "ckpt", "pt", "pth", "bin", "pkl", "npz", "npy", "h5", "safetensors")
NOT_AN_ARCHIVE = "not readable as a .nemo archive"
# What the refusal says, by the first words of the case; the first that fits.
SAID = {
    "weights of an archive": "refused before loading: its pickle (names|uses)",
    "a pickle as .safetensors": "not a safetensors file",
    "a torch file as .safetensors": "not a safetensors file",
    "a pickle as": NOT_AN_ARCHIVE,
    "a torch file as": NOT_AN_ARCHIVE,
    "weights before torch 1.6": "not a zip file",
    "a configuration": "not readable as plain YAML",
    "a tokenizer": "not readable as a SentencePiece model",
    "numbers that are not there": "needs more bytes than its storage has",
    "a Hugging Face .bin, unwrapped": "not a zip file",
    "a Hugging Face .bin": "refused before loading: its pickle names",
    "a Hugging Face .safetensors": "not a safetensors file",
    "a Hugging Face config.json": "not readable as JSON",
    "an artefact's weights": "not readable as safetensors",
}


def with_weights(content: bytes) -> list[Entry]:
    config, pieces, (name, _) = harmless()
    return [config, pieces, (name, content)]


def in_folder(folder: Path, name: str, content: bytes) -> Path:
    huggingface_folder(folder)
    if name.endswith(".bin"):
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    return folder


def artefact(folder: Path) -> Path:
    sizes = {"num_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "ffn_hidden_size": 16, "seq_length": 16}
    _, params, tokenizer, tensors = build("esm1nv", "esm1nv", sizes)
    spec = ModelSpec(
        Choice("model", "esm1nv", params, "bionemo-esm", ""), Choice("tokenizer", "esm1nv", {}, "bionemo-esm", "")
    )
    write_artefact(folder, Artefact(spec, Vocabulary.of(tokenizer.pieces)), tensors)
    return folder


def in_artefact(folder: Path, content: bytes) -> Path:
    """An artefact whose weights are a pickle, with every checksum made right."""
    artefact(folder)
    (folder / "weights.safetensors").write_bytes(content)
    document = json.loads((folder / "artefact.json").read_text())
    facts = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    document["files"]["weights.safetensors"] = facts
    rest = {key: document[key] for key in document if key not in ("format", "format_version", "sha256_of_the_rest")}
    document["sha256_of_the_rest"] = _json_hash(rest)
    (folder / "artefact.json").write_text(json.dumps(document))
    return folder


def cases(folder: Path, canary: Path) -> dict[str, Callable[[], Path]]:
    bad = programs(canary)
    plain, wrapped = bad["os.system"], torch_file(bad["os.system"])
    made: dict[str, Callable[[], Path]] = {
        f"weights of an archive: {name}": lambda program=program: tar(
            folder / "x.nemo", with_weights(torch_file(program))
        )
        for name, program in bad.items()
    }
    for extension in EXTENSIONS:
        made[f"a pickle as .{extension}"] = lambda extension=extension: write(folder / f"x.{extension}", plain)
        made[f"a torch file as .{extension}"] = lambda extension=extension: write(folder / f"x.{extension}", wrapped)
    made["weights before torch 1.6"] = lambda: tar(folder / "x.nemo", with_weights(plain))
    made["a configuration"] = lambda: tar(folder / "x.nemo", [("./model_config.yaml", plain), *harmless()[1:]])
    made["a tokenizer"] = lambda: tar(
        folder / "x.nemo", [harmless()[0], (f"./{'0' * 32}_p.model", plain), harmless()[2]]
    )
    made["numbers that are not there"] = lambda: tar(folder / "x.nemo", with_weights(inflated_tensor()))
    made["a Hugging Face .bin"] = lambda: in_folder(folder / "hf", "pytorch_model.bin", wrapped)
    made["a Hugging Face .bin, unwrapped"] = lambda: in_folder(folder / "hf", "pytorch_model.bin", plain)
    made["a Hugging Face .safetensors"] = lambda: in_folder(folder / "hf", "model.safetensors", plain)
    made["a Hugging Face config.json"] = lambda: in_folder(folder / "hf", "config.json", plain)
    made["an artefact's weights"] = lambda: in_artefact(folder / "art", plain)
    made["an artefact's weights, wrapped"] = lambda: in_artefact(folder / "art", wrapped)
    return made


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_m1_what_the_pickles_are_put_into_opens(tmp_path: Path) -> None:
    """Else each case would be refused for what that lacks, and none would prove anything."""
    assert_opens(tar(tmp_path / "x.nemo", harmless()))
    assert_opens(huggingface_folder(tmp_path / "hf"))
    assert_opens(artefact(tmp_path / "artefact"))


def test_m1_no_pickle_is_run(tmp_path: Path) -> None:
    canary, folder = tmp_path / "canary", tmp_path / "case"
    made = cases(folder, canary)
    matrix = row("M1", subset=len(made), full=len(made))
    for name, make in list(made.items())[: matrix.n]:
        folder.mkdir()
        with matrix.case(name):
            path, said = make(), next(said for words, said in SAID.items() if name.startswith(words))
            with pytest.raises(ArtefactError, match=said) as refusal:
                open_model(str(path), load_registry())
            assert refusal.value.exit_status == 4
            assert not canary.exists(), "it ran"
            assert str(tmp_path) in str(refusal.value), "the file is named"
        shutil.rmtree(folder)
    matrix.check()


def test_m1_the_pickles_do_work_where_they_are_run(tmp_path: Path) -> None:
    """Else none of the above would prove anything."""
    for name in ("os.system", "subprocess", "eval", "exec", "pathlib", "protocol 4", "INST", "OBJ", "in a state dict"):
        canary = tmp_path / "canary"
        pickle.loads(programs(canary)[name])
        assert canary.exists(), name
        canary.unlink()


def test_m1_the_command_exits_with_4(home: Home, tmp_path: Path) -> None:
    path = tar(tmp_path / "x.nemo", with_weights(torch_file(programs(tmp_path / "canary")["os.system"])))
    output = home.command("task=convert", f"restore_from_path={path}", f"task.output={tmp_path / 'out'}")
    assert "error[artefact]" in output and "posix system" in output and "Traceback" not in output
    assert not (tmp_path / "canary").exists() and not (tmp_path / "out").exists()
