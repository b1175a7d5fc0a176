"""A download arrives whole and checked, or not at all; what has arrived is not fetched twice."""

import contextlib
import hashlib
import logging
import os
import shutil
import socket
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from file_server import Answer, serving, serving_ftp

from bionemo_core.errors import ConfigError, DataError, NetworkError, StorageError
from bionemo_core.io import download
from bionemo_core.io.download import fetch, removal_advice
from bionemo_core.io.http import Body, Version, hide_secrets

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
OTHER = np.random.default_rng(1).bytes(2_000_000)


@pytest.fixture(autouse=True)
def _direct_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("NETRC", os.devnull)
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_arrives_and_is_not_fetched_again(tmp_path: Path) -> None:
    target = tmp_path / "raw/data.bin"
    with serving(CONTENT) as server:
        assert fetch(server.url(), target, sha256=SHA256.upper(), md5=MD5) == target
        assert target.read_bytes() == CONTENT
        fetch(server.url(), target, sha256=SHA256)
        assert len(server.requests) == 1
        assert _names(target.parent) == ["data.bin"]
        fetch(server.url(), target)
        assert len(server.requests) == 1
        target.write_bytes(OTHER)
        fetch(server.url(), target, md5=MD5)
        assert target.read_bytes() == CONTENT


def test_a_broken_connection_goes_on_where_it_broke(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers = [Answer(break_after=1_200_000), Answer(break_after=700_000)]
    with serving(CONTENT, answers=answers) as server:
        fetch(server.url(), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=1200000-", "bytes=1900000-"]
    assert server.requests[1]["If-Range"] == '"one"'
    assert "from byte 1,200,000" in caplog.text
    assert _names(tmp_path) == ["data.bin"]


def test_a_later_call_goes_on_as_well(tmp_path: Path) -> None:
    with serving(CONTENT, answers=[Answer(break_after=500_000), *[Answer(503)] * 9]) as server:
        with pytest.raises(NetworkError, match=r"3 times in a row.*503.*500.0 kB are kept in .*data\.bin\.part"):
            fetch(server.url(), tmp_path / "data.bin", attempts=3)
        assert not (tmp_path / "data.bin").exists()
        server.answers.clear()
        fetch(server.url(), tmp_path / "data.bin")
    assert server.ranges()[-1] == "bytes=500000-"
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_what_arrived_of_another_address_is_not_used(tmp_path: Path) -> None:
    with serving(OTHER, answers=[Answer(break_after=500_000), Answer(404)]) as server:
        with pytest.raises(NetworkError, match="404"):
            fetch(server.url("/other.bin"), tmp_path / "data.bin")
        server.content = CONTENT
        fetch(server.url(), tmp_path / "data.bin")
    assert server.ranges()[-1] is None
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("validator", ["etag", "weak etag", "none"])
def test_a_file_that_changes_meanwhile_is_fetched_anew(tmp_path: Path, validator: str) -> None:
    tags = {"etag": ('"a"', '"b"'), "weak etag": ('W/"a"', 'W/"b"'), "none": ("", "")}[validator]
    answers = [Answer(break_after=1_500_000), Answer(content=OTHER, etag=tags[1])]
    with serving(CONTENT, etag=tags[0], answers=answers) as server:
        fetch(server.url(), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == OTHER


def test_a_server_that_ignores_ranges_starts_over(tmp_path: Path) -> None:
    answers = [Answer(break_after=2_000_000), Answer(ignore_range=True)]
    with serving(CONTENT, answers=answers) as server:
        fetch(server.url(), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.ranges()[1] == "bytes=2000000-"


def test_a_server_that_never_gets_further_is_given_up(tmp_path: Path) -> None:
    with (
        serving(CONTENT, answers=[Answer(break_after=100_000, ignore_range=True)] * 50) as server,
        pytest.raises(NetworkError, match=r"4 times in a row.*after 100,000 of 3,000,000 bytes"),
    ):
        fetch(server.url(), tmp_path / "data.bin", attempts=4)
    assert len(server.requests) == 4


def test_progress_starts_the_count_anew(tmp_path: Path) -> None:
    with serving(CONTENT, answers=[Answer(break_after=100_000)] * 12) as server:
        fetch(server.url(), tmp_path / "data.bin", attempts=2)
    assert len(server.requests) == 13
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_wrong_bytes_are_named_and_not_kept(tmp_path: Path) -> None:
    with (
        serving(OTHER) as server,
        pytest.raises(NetworkError, match=f"/data.bin: sha256 is .*, expected {SHA256}") as caught,
    ):
        fetch(server.url(), tmp_path / "data.bin", sha256=SHA256)
    assert len(server.requests) == 1
    assert caught.value.exit_status == 8
    assert _names(tmp_path) == []


def test_parts_that_do_not_fit_are_fetched_anew(tmp_path: Path) -> None:
    """A server without validators, and another file behind the address when the download goes on."""
    answers = [Answer(break_after=1_000_000, content=b"?" * len(CONTENT)), Answer(content=CONTENT)]
    with serving(CONTENT, etag="", answers=answers) as server:
        fetch(server.url(), tmp_path / "data.bin", sha256=SHA256)
    assert server.ranges() == [None, "bytes=1000000-", None]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_server_in_trouble_is_asked_again(tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    answers = [
        Answer(status),
        Answer(status),
        Answer(status, {"Retry-After": "9"}),
        Answer(status, {"Retry-After": "x"}),
    ]
    with serving(CONTENT, answers=answers) as server:
        fetch(server.url(), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert waits == [1, 2, 9, 8]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_final_and_names_the_address(tmp_path: Path, status: int) -> None:
    with (
        serving(CONTENT, answers=[Answer(status)]) as server,
        pytest.raises(NetworkError, match=rf"http://127.0.0.1:{server.port}/data.bin: the server answered {status}"),
    ):
        fetch(server.url(), tmp_path / "data.bin")
    assert len(server.requests) == 1
    assert _names(tmp_path) == []


def test_more_than_is_there_is_asked_for(tmp_path: Path) -> None:
    with serving(CONTENT, answers=[Answer(break_after=1_000_000), Answer(416)]) as server:
        fetch(server.url(), tmp_path / "data.bin")
    assert server.ranges() == [None, "bytes=1000000-", None]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_complete_part_is_only_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with serving(CONTENT) as server:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(download, "publish", killed)
            fetch(server.url(), tmp_path / "data.bin")
        assert _names(tmp_path) == ["data.bin.part", "data.bin.part.json"]
        fetch(server.url(), tmp_path / "data.bin", sha256=SHA256)
    assert len(server.requests) == 1
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("facts", ["", "{}", "[]", '{"address": 1', '{"address": "x", "total": "y"}'])
def test_damaged_notes_beside_a_part_start_it_anew(tmp_path: Path, facts: str) -> None:
    (tmp_path / "data.bin.part").write_bytes(b"?" * 1000)
    (tmp_path / "data.bin.part.json").write_text(facts)
    with serving(CONTENT) as server:
        fetch(server.url(), tmp_path / "data.bin")
    assert server.ranges() == [None]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_secrets_are_sent_but_never_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    moved = Answer(302, {"Location": "/elsewhere"})
    with serving(CONTENT, answers=[Answer(503), moved, Answer(404)]) as server:
        url = server.url("/data.bin?token=canary", user="me:canary%2F1@")
        with pytest.raises(NetworkError) as caught:
            fetch(url, tmp_path / "data.bin")
    sent = [request.get("Authorization") for request in server.requests]
    assert sent == ["Basic bWU6Y2FuYXJ5LzE="] * 3
    assert server.requests[0]["path"] == "/data.bin?token=canary"
    assert f"http://***@127.0.0.1:{server.port}/data.bin?***" in str(caught.value)
    kept = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "canary" not in str(caught.value) + caplog.text + kept
    assert "canary" not in hide_secrets("https://me:canary@[::1") + hide_secrets("https://canary@h:99999/")


def test_a_password_may_stand_in_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password canary/1\ndefault login x password y\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serving(CONTENT) as server:
        fetch(server.url(), tmp_path / "data.bin")
        (tmp_path / "netrc").write_text("machine other login me password canary\ndefault login x password y\n")
        fetch(server.url(), tmp_path / "other.bin")
    assert [request.get("Authorization") for request in server.requests] == ["Basic bWU6Y2FuYXJ5LzE=", None]


def test_a_password_does_not_follow_to_another_host(tmp_path: Path) -> None:
    with serving(CONTENT) as other, serving(b"") as server:
        server.answers = [Answer(302, {"Location": other.url()})]
        fetch(server.url(user="me:canary@"), tmp_path / "data.bin")
    assert "Authorization" not in other.requests[0]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_redirect_to_a_local_file_is_not_followed(tmp_path: Path) -> None:
    with (
        serving(CONTENT, answers=[Answer(302, {"Location": "file:///etc/hostname"})]) as server,
        pytest.raises(NetworkError, match="302"),
    ):
        fetch(server.url(), tmp_path / "data.bin")


def test_ftp_goes_on_where_it_broke(tmp_path: Path) -> None:
    with serving_ftp(CONTENT, break_after=[1_000_000]) as server:
        fetch(server.url(), tmp_path / "data.bin", md5=MD5)
        assert (tmp_path / "data.bin").read_bytes() == CONTENT
        assert [line for line in server.commands if line.startswith("REST")] == ["REST 1000000"]
        with pytest.raises(NetworkError, match="550 no such file"):
            fetch(server.url("/none"), tmp_path / "none")


def test_a_file_address_is_copied(tmp_path: Path) -> None:
    (tmp_path / "a b.bin").write_bytes(CONTENT)
    fetch((tmp_path / "a b.bin").as_uri(), tmp_path / "copy.bin", sha256=SHA256)
    assert (tmp_path / "copy.bin").read_bytes() == CONTENT
    with pytest.raises(DataError, match=r"none\.bin: cannot be read"):
        fetch((tmp_path / "none.bin").as_uri(), tmp_path / "b.bin")


@pytest.mark.parametrize(
    "url", ["data.bin", "/data.bin", "s3://bucket/data.bin", "http:///x", "http://h:x/", "ftp:", ""]
)
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="expected an address with http"):
        fetch(url, tmp_path / "data.bin")


def test_checksums_are_checked_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="md5: 'abc' is not a checksum, expected 32"):
        fetch("http://127.0.0.1:9/", tmp_path / "data.bin", md5="abc")


def test_a_host_that_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(NetworkError, match="2 times in a row, last because the connection failed"):
        fetch(f"http://127.0.0.1:{port}/", tmp_path / "data.bin", attempts=2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(NetworkError, match="timed out"):
            fetch(f"http://127.0.0.1:{port}/", tmp_path / "data.bin", attempts=1, timeout_s=0.1)


def test_a_full_disk_is_seen_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(10, 9, 1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with (
        serving(CONTENT) as server,
        pytest.raises(StorageError, match=r"3.0 MB left to download, but .* has 1.0 MB free"),
    ):
        fetch(server.url(), tmp_path / "data.bin")


def test_a_stream_without_a_size_leaves_the_disk_some_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "disk_free_bytes", lambda path: 1_500_000)
    monkeypatch.setattr(download, "_RESERVE_BYTES", 500_000)
    answer = Answer(headers={"Content-Length": ""})
    with serving(CONTENT, answers=[answer]) as server, pytest.raises(StorageError, match=r"more than 1\.0 MB and did"):
        fetch(server.url(), tmp_path / "data.bin")
    assert _names(tmp_path) == []


def test_an_endless_stream_is_cut_off_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def read(size: int) -> bytes:
        given.append(min(size, 100_000))
        assert sum(given) < 2_000_000, "it goes on reading"
        return bytes(given[-1])

    body = Body(0, None, Version(), read)
    monkeypatch.setattr(download, "open_url", lambda *_: contextlib.nullcontext(body))
    with pytest.raises(NetworkError, match=r"more than 1\.0 MB and did not announce a size"):
        fetch("http://there/data.bin", tmp_path / "data.bin", max_bytes=1_000_000)
    assert _names(tmp_path) == []


def test_a_broken_download_can_be_named(tmp_path: Path) -> None:
    with serving(CONTENT) as server:
        path = fetch(server.url(), tmp_path / "data.fasta")
        assert f"{path} was downloaded from {server.url()}." in removal_advice(f"fasta: {path}:1: no record")
    assert removal_advice("fasta: elsewhere.fasta:1: no record") == ""


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        fetch("http://127.0.0.1:9/", tmp_path / "file/data.bin")


def test_two_at_once_fetch_once(tmp_path: Path) -> None:
    with serving(CONTENT) as server, ThreadPoolExecutor(2) as pool:
        both = [pool.submit(fetch, server.url(), tmp_path / "data.bin") for _ in range(2)]
        assert [one.result() for one in both] == [tmp_path / "data.bin"] * 2
    assert len(server.requests) == 1
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
