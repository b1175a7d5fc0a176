"""For any behaviour of the server, a download is the server's file or no file."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import Answer, FileServer, serving
from hypothesis import given
from hypothesis import strategies as st

from bionemo_core.errors import NetworkError
from bionemo_core.io import download
from bionemo_core.io.download import fetch

VERSIONS = [bytes([version]) * (40_000 + 10_000 * version) for version in range(4)]


@pytest.fixture(scope="module")
def server() -> Iterator[FileServer]:
    with serving(b"") as running:
        yield running


@pytest.fixture(autouse=True)
def _direct_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)


@st.composite
def _answers(draw: st.DrawFn) -> list[Answer]:
    answers = []
    for _ in range(draw(st.integers(0, 8))):
        version = draw(st.none() | st.integers(0, 3))
        answers.append(
            Answer(
                draw(st.sampled_from([200, 200, 200, 503, 416])),
                break_after=draw(st.none() | st.integers(0, 80_000)),
                content=None if version is None else VERSIONS[version],
                etag=None if version is None else draw(st.sampled_from(['"{}"', 'W/"{}"'])).format(version),
                ignore_range=draw(st.booleans()),
            )
        )
    return answers


@given(answers=_answers(), attempts=st.integers(1, 9))
def test_a_download_is_one_version_of_the_file(
    server: FileServer, tmp_path_factory: pytest.TempPathFactory, answers: list[Answer], attempts: int
) -> None:
    target: Path = tmp_path_factory.mktemp("download") / "data.bin"
    server.content, server.etag, server.answers = VERSIONS[0], '"0"', answers
    try:
        fetch(server.url(), target, attempts=attempts)
    except NetworkError:
        assert not target.exists()
        server.answers = []
        fetch(server.url(), target)
    assert target.read_bytes() == server.content
    assert [path.name for path in target.parent.iterdir() if path.suffix != ".lock"] == ["data.bin"]
