"""A worker of a search that has ended is explained by how it ended."""

from multiprocessing import Pipe
from types import SimpleNamespace

import pytest

from bionemo_core.errors import ConfigError, ResourceError
from bionemo_core.inference.search_workers import RemoteGroup


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (
            -9,
            ResourceError,
            "process id 123 was killed by SIGKILL.*task.num_workers to a smaller number",
        ),
        (1, ConfigError, "a worker ended with status 1. Define the oracle function in a module"),
    ],
)
def test_the_end_of_a_worker_is_explained(status: int, kind: type[Exception], message: str) -> None:
    group = RemoteGroup.__new__(RemoteGroup)
    group.connection, theirs = Pipe()
    group._process = SimpleNamespace(pid=123, exitcode=status, join=lambda timeout: None)
    theirs.close()
    group.send(["CCO"])
    with pytest.raises(kind, match=message):
        group.receive()
