"""What tests of every kind share."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from runs import Home, start_server

settings.register_profile(  # no deadlines, because machines are shared
    "bionemo", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("bionemo")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home folder whose runs start quickly, in children of a process that has imported everything."""
    with start_server() as server:
        yield Home(tmp_path_factory.mktemp("home"), server)
        assert server.stdin
        server.stdin.close()
        server.wait(timeout=30)
