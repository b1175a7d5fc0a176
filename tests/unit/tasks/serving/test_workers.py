"""Workers come back when they die, stop together, and are not started again where that would not help."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.tasks.serving import workers
from bionemo_core.tasks.serving.workers import LISTENER, environments_of, supervise

WORKER = """
import os, pathlib, signal, sys, threading
done = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: done.set())
pathlib.Path(os.environ["WORKER"] + f".{os.getpid()}").touch()
os.fstat(int(os.environ["BIONEMO_SERVE_LISTENER"]))
while not done.wait(0.02): pass
pathlib.Path(os.environ["WORKER"] + ".finished").touch()
"""


class Stop:
    requested: str | None = None


def wait_for(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.processes
def test_a_killed_worker_comes_back_and_all_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_QUICK_S", 0.0)
    environments = [{"WORKER": str(tmp_path / name)} for name in "ab"]
    stop, died, (reader, writer) = Stop(), [], os.pipe()
    options = {"patience_s": 60, "on_death": died.append}
    arguments = ([sys.executable, "-c", WORKER], environments, reader, stop)
    running = threading.Thread(target=supervise, args=arguments, kwargs=options)
    running.start()
    try:
        wait_for(lambda: list(tmp_path.glob("a.*")) and list(tmp_path.glob("b.*")))
        (first,) = (int(one.suffix[1:]) for one in tmp_path.glob("a.*"))
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: len(list(tmp_path.glob("a.*"))) == 2)
    finally:
        stop.requested = "SIGTERM"
        running.join(60)
        os.close(reader)
        os.close(writer)
    assert died == [first]
    assert (tmp_path / "a.finished").exists() and (tmp_path / "b.finished").exists()


@pytest.mark.processes
def test_a_model_that_cannot_be_opened_ends_all(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="worker 1 ended with status 4"):
        supervise([sys.executable, "-c", "raise SystemExit(4)"], [{}], 0, Stop(), patience_s=60)


def test_a_worker_that_keeps_dying_waits_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, pauses = workers.WorkerProcess(1, {}), []
    for _ in range(8):
        worker.began = now = time.monotonic()
        worker.note_death(-9)
        pauses.append(round(worker.start_at - now))
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_each_worker_sees_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "CUDA_VISIBLE_DEVICES"
    monkeypatch.delenv(name, raising=False)
    assert environments_of(2, False, 0) == [{}, {}]
    assert environments_of(2, True, 4) == [{name: "0"}, {name: "1"}]
    monkeypatch.setenv(name, "5,3")
    assert environments_of(2, True, 2) == [{name: "5"}, {name: "3"}]
    with pytest.raises(ConfigError, match=r"trainer\.devices=3: this machine has 2 GPUs"):
        environments_of(3, True, 2)


def test_the_variable_is_that_of_the_listener() -> None:
    assert LISTENER in WORKER
