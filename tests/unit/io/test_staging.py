"""Objects become files under the home folder, checked; outputs become objects; each failure names the key."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_server import SECRET, ObjectServer, serve_objects

from bionemo_core import cli
from bionemo_core.config.schema import RunSpec
from bionemo_core.config.task_spec import TaskSpec
from bionemo_core.errors import ConfigError, DataError, NetworkError
from bionemo_core.interop.hub import fetch_model
from bionemo_core.io import staging
from bionemo_core.io.object_storage import ObjectStorage, is_object
from bionemo_core.io.staging import outgoing, stage

CONTENT = b">a\nMKV\n" * 1000


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    with serve_objects() as served:
        yield served


@pytest.fixture
def objects(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    yield server
    server.clear()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the objects whose bytes are read."""
    names: list[str] = []
    read = staging._blocks

    def counted(storage: ObjectStorage, name: str, offset: int) -> Iterator[bytes]:
        names.append(f"{name}+{offset}")
        return read(storage, name, offset)

    monkeypatch.setattr(staging, "_blocks", counted)
    return names


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_which_values_name_objects() -> None:
    named = ("s3://bucket/x", "gs://bucket/x", "hf://datasets/owner/name/x.csv", "hf://owner/model/x.csv")
    assert all(map(is_object, named))
    assert not any(map(is_object, ("x", "/s3/x", "hf://owner/model", "https://host/x", "file:///x", "s3:/x")))


def test_an_object_is_copied_once_and_again_when_it_changed(
    objects: ObjectServer, tmp_path: Path, opened: list[str]
) -> None:
    address = objects.put("data/a.fasta", CONTENT)
    copy = Path(stage(address, "data.path", tmp_path))
    assert copy == tmp_path / "objects/s3/bucket/data/a.fasta" and copy.read_bytes() == CONTENT
    assert stage([address, "b.fasta", 3], "data.path", tmp_path) == [str(copy), "b.fasta", 3]
    os.utime(copy, (1, 1))
    stage(address, "data.path", tmp_path)
    assert len(opened) == 1
    objects.put("data/a.fasta", CONTENT[::-1])
    stage(address, "data.path", tmp_path)
    assert copy.read_bytes() == CONTENT[::-1] and len(opened) == 2
    copy.write_bytes(CONTENT)
    stage(address, "data.path", tmp_path)
    assert copy.read_bytes() == CONTENT[::-1], "a copy that was edited is made anew"


def test_a_download_that_was_killed_goes_on(
    objects: ObjectServer, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = objects.put("a.fasta", CONTENT)
    monkeypatch.setattr(staging, "_BLOCK_BYTES", 1000)

    def die(self: object, count: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(staging.Progress, "advance", die)
        stage(address, "data.path", tmp_path)
    assert not (tmp_path / "objects/s3/bucket").exists() or not names_below(tmp_path / "objects/s3/bucket")
    assert Path(stage(address, "data.path", tmp_path)).read_bytes() == CONTENT
    assert opened == ["bucket/a.fasta+0", "bucket/a.fasta+1000"]


def test_a_part_of_an_older_object_is_not_continued(objects: ObjectServer, tmp_path: Path, opened: list[str]) -> None:
    address = objects.put("a.fasta", CONTENT)
    records = tmp_path / "objects/records/s3/bucket"
    records.mkdir(parents=True)
    (records / "a.fasta.part").write_bytes(b"x" * 70)
    (records / "a.fasta.part.json").write_text(json.dumps({"size": 7000, "ETag": '"another"'}))
    assert Path(stage(address, "data.path", tmp_path)).read_bytes() == CONTENT
    assert opened == ["bucket/a.fasta+0"]


@pytest.mark.parametrize("value", ["s3://bucket/data/x*.csv", "s3://bucket/data/x[000..001].csv", "s3://bucket/data"])
def test_patterns_ranges_and_folders_keep_their_spelling(objects: ObjectServer, tmp_path: Path, value: str) -> None:
    for name in ("x000.csv", "x001.csv"):
        objects.put(f"data/{name}", name.encode())
    objects.put("data/", b"")
    copies = tmp_path / "objects/s3"
    assert stage(value, "data.path", tmp_path) == str(copies / value.removeprefix("s3://"))
    assert names_below(copies) == ["bucket/data/x000.csv", "bucket/data/x001.csv"]
    objects.delete("data/x001.csv")
    stage(value, "data.path", tmp_path)
    assert names_below(copies) == ["bucket/data/x000.csv"], "what is gone there is gone here"


@pytest.mark.parametrize("spelling", ["x[001..002].csv", "x(001..002)", "x_OP_001..002_CL_.csv"])
def test_a_range_copies_no_other_shards(objects: ObjectServer, tmp_path: Path, spelling: str) -> None:
    names = ["x000.csv", "x001.csv", "x002.csv", "x003.csv", "x001_old.csv", "x_all.csv"]
    for name in names:
        objects.put(f"data/{name}", name.encode())
    stage("s3://bucket/data/x000.csv", "data.path", tmp_path)
    stage(f"s3://bucket/data/{spelling}", "data.path", tmp_path)
    copied = ["bucket/data/x000.csv", "bucket/data/x001.csv", "bucket/data/x002.csv"]
    assert names_below(tmp_path / "objects/s3") == copied, "copies of other objects stay"
    with pytest.raises(DataError, match="there is no such object"):
        stage("s3://bucket/data/x[007..009].csv", "data.path", tmp_path)


def test_a_copy_is_used_while_the_service_is_away(
    objects: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address, other = objects.put("a.fasta", CONTENT), objects.put("b.fasta", CONTENT)
    copy = stage(address, "data.path", tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert stage(address, "data.path", tmp_path) == copy
    assert "does not answer" in caplog.text and "The copy of it is used" in caplog.text
    with pytest.raises(NetworkError, match=r"data\.path: s3://bucket/b\.fasta: the service does not answer"):
        stage(other, "data.path", tmp_path)


def test_other_bytes_than_those_of_the_object_are_refused(
    objects: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = objects.put("a.fasta", CONTENT)
    with monkeypatch.context() as patch:
        patch.setattr(staging, "_blocks", lambda *_: iter([CONTENT[::-1]]))
        with pytest.raises(NetworkError, match=f"md5 .* that of the object is {hashlib.md5(CONTENT).hexdigest()}"):
            stage(address, "data.path", tmp_path)
        patch.setattr(staging, "_blocks", lambda *_: iter([CONTENT[1:]]))
        with pytest.raises(NetworkError, match="changed while it was downloaded"):
            stage(address, "data.path", tmp_path)
    assert Path(stage(address, "data.path", tmp_path)).read_bytes() == CONTENT


def test_an_etag_that_is_no_md5_is_known(
    objects: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = objects.put("a.fasta", CONTENT, ServerSideEncryption="aws:kms")
    facts = ObjectStorage.of(address, "data.path").look_up("bucket/a.fasta")
    assert facts is not None
    monkeypatch.setattr(ObjectStorage, "look_up", lambda self, path: facts._replace(digest=("md5", "0" * 32)))
    assert Path(stage(address, "data.path", tmp_path)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("value", "variables", "error", "message"),
    [
        ("s3://bucket/none.fasta", {}, DataError, r"data\.path: s3://bucket/none\.fasta: there is no such object"),
        ("s3://bucket/none*", {}, DataError, "there is no such object"),
        ("s3://nowhere/x", {}, DataError, r"there is no such object.*bucket does not exist"),
        ("s3://", {}, ConfigError, "names no object"),
        ("s3://bucket/../x", {}, ConfigError, "names no object"),
        ("s3://me:secret-4711@bucket/x", {}, ConfigError, "holds a password"),
        ("gs://bucket/x", {}, ConfigError, r"data\.path: gs:// needs the extra `gcs`: pip install gcsfs"),
        ("s3://bucket/a", {"AWS_ACCESS_KEY_ID": ""}, NetworkError, "no credentials.*AWS_ACCESS_KEY_ID.*FSSPEC_S3_ANON"),
    ],
)
def test_a_failure_names_the_key_and_says_what_to_do(
    objects: ObjectServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    variables: dict[str, str],
    error: type[Exception],
    message: str,
) -> None:
    if "gs:" in value:
        monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(error, match=message) as failure:
        stage(value, "data.path", tmp_path)
    assert "4711" not in str(failure.value) and SECRET not in str(failure.value)


@pytest.mark.parametrize("error", [PermissionError("Forbidden"), OSError("Forbidden: b/bucket/o no access")])
def test_access_that_is_denied(
    objects: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    address = objects.put("a.fasta", CONTENT)

    def refuse(self: object, path: str) -> None:
        raise error

    monkeypatch.setattr("s3fs.S3FileSystem.info", refuse)
    with pytest.raises(NetworkError, match=r"task\.input: .* access is denied \(Forbidden.*AWS_PROFILE"):
        stage(address, "task.input", tmp_path)


def write(value: str, tmp_path: Path, *, overwrite: bool = False, send: bool = True) -> Path:
    with outgoing(value, "task.output", tmp_path, overwrite=overwrite, send=send) as path:
        local = Path(path)
        if local.suffix:
            local.write_bytes(b"table")
            (local.parent / ".t.csv.lock").touch()
            (local.parent / "t.csv.contacts").mkdir(exist_ok=True)
            (local.parent / "t.csv.contacts" / "a.png").write_bytes(b"png")
        else:
            (local / "deep").mkdir(parents=True)
            (local / "artefact.json").write_bytes(b"{}")
            (local / "deep" / "weights").write_bytes(b"w")
    return local


def test_an_output_is_sent_when_it_is_whole(objects: ObjectServer, tmp_path: Path) -> None:
    local = write("s3://bucket/out/t.csv", tmp_path)
    assert objects.content() == {"out/t.csv": b"table", "out/t.csv.contacts/a.png": b"png"}
    assert not local.exists(), "nothing stays here"
    with pytest.raises(ConfigError, match=r"task\.output: s3://bucket/out/t\.csv exists already"):
        write("s3://bucket/out/t.csv", tmp_path)
    write("s3://bucket/out/t.csv", tmp_path, overwrite=True)
    write("s3://bucket/model", tmp_path)
    assert {"model/artefact.json": b"{}", "model/deep/weights": b"w"}.items() <= objects.content().items()
    with pytest.raises(ConfigError, match="exists already"):
        write("s3://bucket/model", tmp_path)
    write("s3://bucket/of_another_rank", tmp_path, send=False)
    assert not [name for name in objects.content() if "rank" in name]


def test_what_says_that_a_folder_is_whole_is_sent_last(
    objects: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    put = __import__("s3fs").S3FileSystem.put_file
    monkeypatch.setattr(
        "s3fs.S3FileSystem.put_file", lambda self, here, there: (sent.append(there), put(self, here, there))
    )
    write("s3://bucket/model", tmp_path)
    assert sent == ["bucket/model/deep/weights", "bucket/model/artefact.json"]


def test_an_output_that_cannot_be_sent_is_kept(
    objects: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: object, here: str, there: str) -> None:
        raise PermissionError("Forbidden")

    monkeypatch.setattr("s3fs.S3FileSystem.put_file", refuse)
    with pytest.raises(
        NetworkError, match=r"task\.output: s3://bucket/t\.csv: access is denied.*complete in (\S+);"
    ) as error:
        write("s3://bucket/t.csv", tmp_path)
    kept = str(error.value).partition("complete in ")[2].partition(";")[0]
    assert Path(kept).read_bytes() == b"table"
    assert kept not in caplog.text
    with pytest.raises(NetworkError):
        write("s3://bucket/t.csv", tmp_path)
    assert f"an earlier start wrote {kept} and could not send it" in caplog.text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("hf://datasets/a/b/x.csv", "task.push_to"),
        ("s3://bucket", "names no object"),
        ("s3://nowhere/x", "no such object"),
    ],
)
def test_places_that_take_no_output(objects: ObjectServer, tmp_path: Path, value: str, message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        write(value, tmp_path)
    assert not (tmp_path / "outgoing").exists() and not objects.content()


def test_keys_of_data_and_tasks_take_objects(
    objects: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bionemo_esm")
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path))
    address = objects.put("a.fasta", CONTENT[:7] + b">b\nMKL\n" * 50)
    prepare = ("task=prepare", "tokenizer=esm1nv", "data=fasta", "data.on_duplicate_id=keep")
    assert cli.main([*prepare, f"data.path={address}"]) == 0, capsys.readouterr().err
    assert "read 51 = used 51" in "".join(capsys.readouterr())
    assert cli.main([*prepare, "data.path=s3://bucket/none.fasta"]) == 3
    assert "data.path: s3://bucket/none.fasta: there is no such object" in capsys.readouterr().err

    def embed(spec: RunSpec, registry: object, *, composed_yaml: str) -> None:
        Path(spec.task.params["output"]).write_bytes(Path(spec.task.params["input"]).read_bytes())

    monkeypatch.setattr(TaskSpec, "load", lambda self: embed)
    task = ("task=embed", "restore_from_path=x", f"task.input={address}", "task.output=s3://bucket/out.npz")
    assert cli.main(list(task)) == 0
    assert objects.content()["out.npz"] == objects.content()["a.fasta"]
    assert cli.main(list(task)) == 2 and "exists already" in capsys.readouterr().err
    monkeypatch.setenv("NODE_RANK", "1")  # the second machine, which has no other variable before its ranks start
    assert cli.main([*task[:-1], "task.output=s3://bucket/second.npz"]) == 0
    assert "second.npz" not in objects.content()
    assert list(tmp_path.rglob("outgoing/*/second.npz")), "the first machine may still be sending it"
    assert fetch_model(address, tmp_path).read_bytes() == objects.content()["a.fasta"]
