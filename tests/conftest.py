"""What tests of every kind share."""

from collections.abc import Iterator

import pytest
from runs import Home, start_server


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home folder whose runs start quickly, in children of a process that has imported everything."""
    with start_server() as server:
        yield Home(tmp_path_factory.mktemp("home"), server)
        assert server.stdin
        server.stdin.close()
        server.wait(timeout=30)
