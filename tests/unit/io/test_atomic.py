"""A file or folder that is written is the old one or the new one, whatever happens meanwhile."""

import errno
import json
import math
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from bionemo_core.errors import ConfigError, StorageError
from bionemo_core.io import atomic

OLD, NEW = "old\n", "new\n" * 100_000


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def calls(monkeypatch):
    """The calls of the system that write, in order, with the names that they were about."""
    seen = []

    def note(name):
        real = getattr(os, name)

        def call(subject, *rest, **options):
            path = Path(f"/proc/self/fd/{subject}").readlink() if isinstance(subject, int) else Path(subject)
            seen.append((name, path.name if path.name.find(".part") < 0 else ".part"))
            return real(subject, *rest, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "rename"):
        note(name)
    return seen


def fail(monkeypatch, name, nth, error=errno.ENOSPC):
    """Let the nth call of a function of `os` fail, and all after it."""
    real, left = getattr(os, name), [nth]

    def call(*arguments, **options):
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(error, os.strerror(error))
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, call)


WRITERS = {
    "write_file": lambda path: atomic.write_file(path, NEW.encode()),
    "write_text": lambda path: atomic.write_text(path, NEW),
    "write_json": lambda path: atomic.write_json(path, ["new"] * 9999),
    "new_file": lambda path: _with(atomic.new_file(path), lambda stream: stream.write(NEW.encode())),
    "new_text": lambda path: _with(atomic.new_text(path), lambda stream: stream.write(NEW)),
    "new_csv": lambda path: _with(atomic.new_csv(path, ["a"]), lambda add_rows: add_rows([["new"]] * 9999)),
    "new_path": lambda path: _with(atomic.new_path(path), lambda temporary: temporary.write_text(NEW)),
}


def _with(context, write):
    with context as target:
        write(target)


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_file_is_flushed_then_renamed_then_its_folder_is_flushed(tmp_path, calls, writer):
    writer(tmp_path / "a.txt")
    assert calls == [("fsync", ".part"), ("rename", ".part"), ("fsync", tmp_path.name)]
    assert names(tmp_path) == {"a.txt"}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, writer, call):
    path = tmp_path / "a.txt"
    path.write_text(OLD)
    with monkeypatch.context() as patched:
        fail(patched, call, 1)
        with pytest.raises(StorageError, match=r"a\.txt cannot be written: No space left on device\. Free space"):
            writer(path)
    assert path.read_text() == OLD
    assert names(tmp_path) == {"a.txt"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError(errno.EIO, "broken")])
def test_an_error_of_the_writer_leaves_the_old_content(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text(OLD)
    with pytest.raises((RuntimeError, KeyboardInterrupt, StorageError)), atomic.new_text(path) as stream:
        stream.write("half")
        raise error
    assert path.read_text() == OLD
    assert names(tmp_path) == {"a.txt"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_noticed_when_the_file_is_closed(tmp_path, monkeypatch):
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *rest, **options: real(Path("/dev/full"), *rest, **options))
    with pytest.raises(StorageError, match="No space left"):
        atomic.write_text(tmp_path / "a.txt", "short")
    assert not (tmp_path / "a.txt").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from bionemo_core.io import atomic
path, call, nth = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
real, left = getattr(os, call), [nth]
def kill(*arguments, **options):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
setattr(os, call, kill)
print(os.getpid(), flush=True)
atomic.write_text(path, "new\\n" * 100_000)
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("call", "nth", "expected"),
    [("fsync", 1, OLD), ("rename", 1, OLD), ("fsync", 2, NEW)],
    ids=["before the file's fsync", "before the rename", "before the folder's fsync"],
)
def test_a_killed_writer_leaves_the_old_content_or_the_new_and_its_leftovers_go(tmp_path, call, nth, expected):
    path = tmp_path / "a.txt"
    path.write_text(OLD)
    arguments = [sys.executable, "-c", KILLED, str(path), call, str(nth)]
    assert subprocess.run(arguments, timeout=60, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
    assert path.read_text() == expected
    assert len(names(tmp_path)) == (1 if expected == NEW else 2)
    atomic.write_text(path, "last")
    assert path.read_text() == "last"
    assert names(tmp_path) == {"a.txt"}


def test_two_processes_may_write_the_same_file_and_their_temporary_files_are_left_alone(tmp_path):
    host = socket.gethostname()
    others = {f".a.txt.{host}.{os.getppid()}.part", ".a.txt.elsewhere.1.part", f".b.txt.{host}.999999999.part"}
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / f".a.txt.{host}.999999999.part").touch()  # no process has this number
    with atomic.new_text(tmp_path / "a.txt") as stream:
        stream.write(NEW)
    assert names(tmp_path) == {"a.txt", *others}


def test_json_has_no_numbers_that_json_has_not(tmp_path):
    path = tmp_path / "new" / "a.json"
    atomic.write_json(path, {"b": [math.nan, (math.inf, 1.5)], "a": {"x": None}}, indent=2, sort_keys=True)
    assert json.loads(path.read_text()) == {"a": {"x": None}, "b": [None, [None, 1.5]]}
    assert path.read_text().startswith('{\n  "a"') and path.read_text().endswith("}\n")
    with pytest.raises(TypeError):
        atomic.write_json(path, {"a": object()})
    assert json.loads(path.read_text())["a"] == {"x": None}


def test_text_is_written_as_it_is(tmp_path):
    atomic.write_text(tmp_path / "a.txt", "é\r\nb\n")
    with atomic.new_text(tmp_path / "b.txt") as stream:
        stream.write("é\r\nb\n")
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes() == "é\r\nb\n".encode()


def test_tables_have_the_line_ends_that_are_asked_for(tmp_path):
    for options, end in (({}, "\n"), ({"line_end": "\r\n"}, "\r\n")):
        with atomic.new_csv(tmp_path / "a.csv", ["id", "text"], **options) as add_rows:
            add_rows([[1, "é"]])
            add_rows([[2, 'b, "c"']])
        expected = end.join(["id,text", "1,é", '2,"b, ""c"""', ""])
        assert (tmp_path / "a.csv").read_bytes() == expected.encode()


def test_a_folder_appears_whole(tmp_path, calls):
    with atomic.new_folder(tmp_path / "store") as temporary:
        (temporary / "part").mkdir()
        (temporary / "part" / "a").write_text("a")
        assert names(tmp_path) == {temporary.name}
    assert [name for call, name in calls if call == "fsync"] == ["part", "a", temporary.name, tmp_path.name]
    assert calls[-2:] == [("rename", temporary.name), ("fsync", tmp_path.name)]
    assert (tmp_path / "store" / "part" / "a").read_text() == "a"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError(errno.EIO, "broken")])
def test_a_folder_that_fails_is_removed_with_what_was_left_of_earlier_ones(tmp_path, error):
    host = socket.gethostname()
    (tmp_path / f".store.{host}.1").mkdir()
    (tmp_path / ".store.elsewhere.1").mkdir()
    with (
        pytest.raises((RuntimeError, KeyboardInterrupt, StorageError)),
        atomic.new_folder(tmp_path / "store") as temporary,
    ):
        (temporary / "a").write_text("a")
        raise error
    assert names(tmp_path) == {".store.elsewhere.1"}


def test_a_folder_is_replaced_only_when_that_is_wanted(tmp_path):
    folder = tmp_path / "store"
    for content in ("first", "second"):
        with suppress(StorageError), atomic.new_folder(folder) as temporary:
            (temporary / "a").write_text(content)
    assert (folder / "a").read_text() == "first"
    with atomic.new_folder(folder, replace=True) as temporary:
        (temporary / "a").write_text("third")
    assert (folder / "a").read_text() == "third"
    assert names(tmp_path) == {"store"}


@pytest.mark.parametrize("folder", [False, True])
def test_an_output_must_not_be_there(tmp_path, folder):
    target = tmp_path / "out"
    with atomic.new_output(target, folder=folder) as path:
        (path / "a" if folder else path).write_text("mine")
    with pytest.raises(ConfigError, match="already exists"), atomic.new_output(target, folder=folder):
        raise AssertionError
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="already exists"), atomic.new_output(tmp_path / "link", folder=folder):
        raise AssertionError
    assert names(tmp_path) == {"out", "link"}


def test_chunks_are_hashed_on_their_way_and_never_overwrite(tmp_path):
    path = tmp_path / "a.bin"
    facts = atomic.write_chunks(path, [b"ab", memoryview(b"c"), b""])
    assert facts == (3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    with pytest.raises(FileExistsError):
        atomic.write_chunks(path, [b"x"])
    assert path.read_bytes() == b"abc"


def test_a_folder_without_access_is_not_told_to_free_space(tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    made = atomic.new_folder(tmp_path / "out")
    with pytest.raises(StorageError, match=r"/out cannot be written: .*\. Name a folder that can be written to"), made:
        pass
    monkeypatch.undo()
    fail(monkeypatch, "fsync", 1, errno.ENOSPC)
    with pytest.raises(StorageError, match="Free space there"):
        atomic.write_file(tmp_path / "a", b"")


def test_errors_name_the_path(tmp_path, monkeypatch):
    fail(monkeypatch, "fsync", 1, errno.EIO)
    for act in (lambda: atomic.sync(tmp_path), lambda: atomic.write_chunks(tmp_path / "a", [b"x"])):
        with pytest.raises(OSError, match="Input/output error") as raised:
            act()
        assert str(raised.value.filename).startswith(str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file.*cannot be written.*Do this\."):
        atomic.write_file(tmp_path / "file" / "a", b"", advice="Do this.")
