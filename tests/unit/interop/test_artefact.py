"""Artefacts: what is written comes back, and anything else in one is refused."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bionemo_core.config.schema import Choice
from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.interop.artefact import Artefact, open_artefact, write_artefact
from bionemo_core.interop.stored import Carried, ModelSpec, Vocabulary

ARTEFACT = Artefact(
    ModelSpec(
        Choice("model", "mine", {"num_layers": 2, "rate": 1e-5, "name": "x", "none": None}, "bionemo-mine", "1.2"),
        Choice("tokenizer", "letters", {}, "bionemo-mine", "1.2"),
    ),
    Vocabulary.of(["<pad>", "A", "C"]),
    training={"step": 120, "run": "first", "seed": 1234},
    origin={"format": "run", "name": "step-00000120"},
)
CARRIED = Carried("huggingface", {"extra.weight": torch.arange(4.0)}, {"vocab.txt": b"A\nC\n"})


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    return {
        "embedding.weight": torch.randn(6, 4, generator=draw),
        "head.bias": torch.randn(6, generator=draw).bfloat16(),
        "count": torch.tensor(7),
        "nothing": torch.zeros(0, 3),
    }


@pytest.fixture(params=["folder", "shards", "file"])
def path(request: pytest.FixtureRequest, tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    target = tmp_path / ("model.safetensors" if request.param == "file" else "model")
    write_artefact(target, ARTEFACT, tensors, CARRIED, shard_bytes=50 if request.param == "shards" else 2**30)
    return target


def test_a_tensor_is_mapped_so_that_a_rank_reads_only_its_part(tmp_path: Path) -> None:
    whole = torch.zeros(2**22, 4)  # 64 MiB
    write_artefact(tmp_path / "model", ARTEFACT, {"w": whole})
    tensors, before = open_artefact(tmp_path / "model").tensors, resident_bytes()
    half = tensors.read("w", (0, 0), (2**14, 4)).clone()
    assert half.shape == (2**14, 4)
    assert resident_bytes() - before < whole.nbytes / 4


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_everything_comes_back(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    stored = open_artefact(path)
    assert stored.spec == ARTEFACT.spec
    assert stored.facts == ARTEFACT.training
    assert stored.vocabulary == ARTEFACT.vocabulary
    assert set(stored.tensors.names) == set(tensors)
    for name, tensor in tensors.items():
        got = stored.tensors.read(name)
        assert got.dtype == tensor.dtype and torch.equal(got, tensor)
        assert stored.tensors.shape(name) == tuple(tensor.shape)
    assert torch.equal(stored.tensors.read("embedding.weight", (2, 1), (3, 2)), tensors["embedding.weight"][2:5, 1:3])
    if path.is_dir():
        assert stored.carried.files == CARRIED.files
        assert torch.equal(stored.carried.tensors["extra.weight"], CARRIED.tensors["extra.weight"])


def test_several_files_where_one_would_be_too_large(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    write_artefact(tmp_path / "model", ARTEFACT, tensors, shard_bytes=50)
    assert len(list((tmp_path / "model").glob("weights-*-of-*.safetensors"))) > 1


def test_nothing_is_overwritten(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ConfigError, match="already exists"):
        write_artefact(path, ARTEFACT, tensors)
    assert not [file for file in path.parent.iterdir() if "part" in file.name]


def test_a_parameter_that_is_not_plain_is_not_written(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    bad = Artefact(
        ModelSpec(Choice("model", "mine", {"_target_": "os.system"}), ARTEFACT.spec.tokenizer), ARTEFACT.vocabulary
    )
    with pytest.raises(ConfigError, match="_target_"):
        write_artefact(tmp_path / "model", bad, tensors)
    assert not (tmp_path / "model").exists()


def test_every_flipped_byte_is_found(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    draw = random.Random(5)
    files = [file for file in (path.iterdir() if path.is_dir() else [path]) if file.stat().st_size]
    for _ in range(60):
        file = draw.choice(files)
        whole = file.read_bytes()
        place = draw.randrange(len(whole))
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
        try:
            stored = open_artefact(path)
            # Spaces between words of JSON may differ; nothing that is read may.
            assert stored.spec == ARTEFACT.spec and stored.facts == ARTEFACT.training
            assert all(torch.equal(stored.tensors.read(name), tensor) for name, tensor in tensors.items())
        except ArtefactError:
            pass
        file.write_bytes(whole)
    open_artefact(path)


def edited(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Return an edit of the JSON that also corrects its checksum."""

    def edit(folder: Path) -> None:
        from bionemo_core.interop import artefact

        document = json.loads((folder / "artefact.json").read_text())
        change(document)
        rest = {key: value for key, value in document.items() if key not in ("format", "format_version")}
        rest.pop("sha256_of_the_rest", None)
        document["sha256_of_the_rest"] = artefact._json_hash(rest)
        (folder / "artefact.json").write_text(json.dumps(document))

    return edit


def raw(text: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / "artefact.json").write_text(text)

    return edit


def link(folder: Path) -> None:
    (folder / "weights.safetensors").rename(folder.parent / "elsewhere")
    (folder / "weights.safetensors").symlink_to(folder.parent / "elsewhere")


HOSTILE = {
    "target": (edited(lambda d: d["model"]["params"].update(_target_="os.system")), "_target_"),
    "interpolation": (
        edited(lambda d: d["model"]["params"].update(name="${oc.env:HOME}")),
        r"must not be missing or hold \$\{",
    ),
    "interpolated key": (edited(lambda d: d["training"].update({"${x}": 1})), "not allowed"),
    "unknown key": (edited(lambda d: d.update(code="x")), "unknown: code"),
    "missing key": (edited(lambda d: d.pop("tokenizer")), "missing: tokenizer"),
    "parameters are a list": (edited(lambda d: d["model"].update(params=[1])), "params"),
    "a model that is a tokenizer": (edited(lambda d: d["model"].update(group="tokenizer")), "group"),
    "a file outside": (edited(lambda d: d["files"].update({"../x": d["files"]["weights.safetensors"]})), "not a name"),
    "an absolute file": (edited(lambda d: d["files"].update({"/etc/passwd": {"size": 1, "sha256": ""}})), "not a name"),
    "weights in no file of its own": (
        edited(lambda d: d["weights"].update({"head.bias": "/etc/passwd"})),
        "not one of",
    ),
    "weights in a list": (edited(lambda d: d["weights"].update({"head.bias": ["x"]})), "head.bias"),
    "a tensor that is not there": (edited(lambda d: d["weights"].update(new="weights.safetensors")), "new"),
    "a tensor less": (edited(lambda d: d["weights"].pop("count")), "count"),
    "another version": (edited(lambda d: d.update(format_version=99)), "99"),
    "another format": (edited(lambda d: d.update(format="x")), "format"),
    "no number": (raw('{"format": NaN}'), "NaN"),
    "twins": (raw('{"format": "a", "format": "b"}'), "twice"),
    "deep": (raw("[" * 100_000), "JSON"),
    "not JSON": (raw("\x80\x04pickle"), "JSON"),
    "empty": (raw(""), "JSON"),
    "edited without the checksum": (
        lambda folder: (folder / "artefact.json").write_text(
            (folder / "artefact.json").read_text().replace('"seed": 1234', '"seed": 1235')
        ),
        "checksum",
    ),
    "a link": (link, "not a regular file"),
    "a file less": (lambda folder: (folder / "weights.safetensors").unlink(), "missing"),
    "a file cut": (lambda folder: (folder / "weights.safetensors").write_bytes(b"x"), "damaged or edited"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_or_broken_artefact_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], kind: str) -> None:
    change, message = HOSTILE[kind]
    write_artefact(tmp_path / "model", ARTEFACT, tensors)
    change(tmp_path / "model")
    with pytest.raises(ArtefactError, match=message) as refusal:
        open_artefact(tmp_path / "model")
    assert refusal.value.exit_status == 4 and "model" in str(refusal.value)


def test_one_file_without_our_description_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(ArtefactError, match="it does not say which model it holds"):
        open_artefact(tmp_path / "plain.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ArtefactError, match="not a safetensors file"):
        open_artefact(tmp_path / "junk.safetensors")


def test_a_copied_artefact_is_the_same(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    write_artefact(tmp_path / "model", ARTEFACT, tensors)
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("notes of the one who sent it")
    assert open_artefact(tmp_path / "copy").spec == ARTEFACT.spec
