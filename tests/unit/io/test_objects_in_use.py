"""Data, models and outputs in a storage service, as a user has them; the service is moto's, on loopback."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from object_server import SECRET, ObjectServer, serve_objects
from runs import Home, assert_same_metrics

pytest.importorskip("bionemo_esm")

pytestmark = pytest.mark.slow  # test_staging.py asks for each part


@pytest.fixture(scope="module")
def objects() -> Iterator[ObjectServer]:
    with serve_objects() as served:
        yield served


@pytest.fixture(scope="module")
def proteins() -> bytes:
    draw = np.random.default_rng(5)
    rows = ["".join(draw.choice(list("LAGVSERTIDPKQNFYMHWC"), size=size)) for size in draw.integers(20, 100, size=200)]
    return "".join(f">s{number}\n{row}\n" for number, row in enumerate(rows)).encode()


def test_a_training_from_objects_that_is_killed_goes_on_to_the_same_losses(
    home: Home, objects: ObjectServer, proteins: bytes
) -> None:
    address = objects.put("train/a.fasta", proteins[: len(proteins) // 2].rpartition(b">")[0])
    objects.put("train/b.fasta", proteins[len(proteins) // 2 :].partition(b">")[2].join([b">", b""]))
    for name in ("a.fasta", "b.fasta"):
        (home.path / name).write_bytes(objects.content()[f"train/{name}"])
    length = ("trainer.max_steps=8", "trainer.val_check_interval=4", "checkpoint.every_n_steps=2", "data=fasta")
    whole = home.finish("name=from_files", *length, f"data.path={home.path}/[ab].fasta".replace("[ab]", "?"))
    streamed = (*length, "name=from_objects", f"data.path={address.replace('a.fasta', '?.fasta')}")
    run = home.start(*streamed, **objects.variables)
    assert run.wait_for(lambda run: run.last_step() >= 5)
    run.kill()
    assert run.checkpoints and run.last_step() < 8, "it was killed in between"
    copies = home.path / "objects/s3/bucket/train"
    (copies / "a.fasta").write_bytes(b">damaged\nMKV\n")
    last = home.finish(*streamed, "resume=last", **objects.variables)
    assert_same_metrics(last.folder, whole.folder)
    spec = json.loads((last.folder / "run.json").read_text())
    assert spec["data"]["params"]["path"] == "s3://bucket/train/?.fasta", "the run remembers where its data are"
    for path in home.path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_inputs_models_and_outputs_are_objects(home: Home, objects: ObjectServer, proteins: bytes) -> None:
    run = home.finish("name=stored", "trainer.max_steps=1", "trainer.val_check_interval=1").folder
    said = home.command(
        "task=convert", f"restore_from_path={run}", "task.output=s3://bucket/model", **objects.variables
    )
    stored = {name for name in objects.content() if name.startswith("model/")}
    assert "model/artefact.json" in stored and "sent to s3://bucket/model" in said, said
    (home.path / "in.fasta").write_bytes(proteins)
    address = objects.put("in.fasta", proteins)
    use = ("task=embed", "trainer.num_threads=1", "trainer.accelerator=cpu")
    home.command(*use, f"restore_from_path={run}", f"task.input={home.path}/in.fasta", f"task.output={home.path}/a.npz")
    given = ("restore_from_path=s3://bucket/model", f"task.input={address}", "task.output=s3://bucket/out/a.npz")
    said = home.command(*use, *given, **objects.variables)
    assert "out/a.npz" in objects.content(), said
    (home.path / "b.npz").write_bytes(objects.content()["out/a.npz"])
    with np.load(home.path / "a.npz") as here, np.load(home.path / "b.npz") as there:
        assert np.array_equal(here["embeddings"], there["embeddings"]) and list(here["ids"]) == list(there["ids"])
    refused = home.command(*use, *given, **objects.variables)
    assert "s3://bucket/out/a.npz exists already. Choose another name, or set task.overwrite=true." in refused
