"""Runs the command, and Python, in forked children of a process that has imported everything and computed nothing.

A run then starts in about a second, and many can be killed. Read one JSON request a line from
standard input, answer one JSON line each:

    {"start": [arguments], "environment": {...}, "log": "path", "streams": {"1": "closed"}, "ignored": [1]}
                                                                -> {"pid": 123}
    {"python": [arguments], "environment": {all variables}, "log": "path", "errors": "path", "folder": "path"}
                                                                -> {"pid": 123}
    {"wait": 123, "timeout_s": 60}                              -> {"status": 0} (negative: signal; null: still runs)
"""

import contextlib
import fcntl
import importlib
import json
import os
import runpy
import select
import signal
import struct
import sys
import termios
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

TASKS = ("embed", "evaluate", "finetune", "predict", "serving.serve", "train")
CHOOSE_PLUGINS = {"BIONEMO_LOAD_PLUGINS", "BIONEMO_BLOCK_PLUGINS", "PYTHONPATH"}
"""A command whose environment has one of these may have other plugins than the server."""
MODELS = ("bionemo_esm.model", "bionemo_t5.model", "bionemo_molbart.model")


def prepare() -> None:
    """Import what a run imports, and keep to one thread: a forked child may not use a pool its parent made."""
    import torch

    torch.set_num_threads(1)
    for name in ("bionemo_core.cli.run", *(f"bionemo_core.tasks.{task}" for task in TASKS), *MODELS):
        importlib.import_module(name)
    from bionemo_core.builtin import load_registry
    from bionemo_core.cli.run import compose

    compose(["model=esm1nv_tiny"], load_registry())  # its parts are made once, for all children


def start(
    arguments: list[str], environment: dict[str, str], log: str, streams: dict[str, str], ignored: list[int]
) -> int:
    """The process id of a child that runs the command line in a session of its own.

    Its output goes to the log, but for those streams that have a listener of `LISTENERS`. It inherits these signals
    as ignored.
    """
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    redirect(log, log)
    for target, listener in streams.items():
        LISTENERS[listener](int(target))
    warnings.simplefilter("ignore")
    os.environ.update(environment)
    if CHOOSE_PLUGINS & environment.keys():
        forget_plugins()
    add_to_path(environment)
    # Lightning starts the other ranks by repeating sys.argv.
    sys.argv = [str(Path(sys.executable).with_name("bionemo-run")), *arguments]
    status = 70
    try:
        from bionemo_core.cli import main

        status = main(arguments)
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(status)


def start_python(arguments: list[str], environment: dict[str, str], log: str, errors: str, folder: str) -> int:
    """The process id of a child that does what `python ARGUMENTS` does in a folder, with these variables and no others.

    What the server has imported, before it was given these variables, is imported already.
    """
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    redirect(log, errors)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    forget_plugins()
    status = 70
    try:
        status = exit_status(lambda: run_python(arguments, environment))
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def run_python(arguments: list[str], environment: dict[str, str]) -> None:
    """Run a module (`-m NAME`), a text (`-c TEXT`) or a file as the main program."""
    first, *rest = arguments
    add_to_path(environment)
    if first == "-m":
        sys.path.insert(0, "")
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(first).parent))
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")


def exit_status(run: Callable[[], None]) -> int:
    """The status with which Python would end after this."""
    try:
        run()
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def redirect(log: str, errors: str) -> None:
    """Have this process read nothing, and write to these files, at their ends."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for path, target in ((log, 1), (errors, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), target)


def add_to_path(environment: dict[str, str]) -> None:
    """Look for modules where PYTHONPATH says, first of all."""
    if "PYTHONPATH" in environment:
        sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)


def forget_plugins() -> None:
    """Let this process find its plugins itself, as if none had been looked for."""
    from hydra.core.config_store import ConfigStore

    from bionemo_core.builtin import load_registry

    load_registry.cache_clear()
    repo = ConfigStore.instance().repo
    for name in set(repo) - {"hydra", "_dummy_empty_config_.yaml"}:
        del repo[name]


def close(target: int) -> None:
    """Close a stream, as `>&-` does."""
    os.close(target)
    setattr(sys, {1: "stdout", 2: "stderr"}[target], None)  # as Python has it when it starts without one


def fill_disk(target: int) -> None:
    """Have a stream go to a disk that is full."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), target)


def give_terminal(target: int) -> None:
    """Have a stream go to a terminal of 20 columns."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 20, 0, 0))
    _listen(target, ours, theirs, lambda: all(iter(lambda: os.read(ours, 4096), b"")))


def pipe_to(read: Callable[[int], object]) -> Callable[[int], None]:
    """Have a stream go to a process that does this with it and ends."""

    def connect(target: int) -> None:
        ours, theirs = os.pipe()
        fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
        _listen(target, ours, theirs, lambda: read(ours))

    return connect


def _listen(target: int, ours: int, theirs: int, read: Callable[[], object]) -> None:
    if os.fork():
        os.close(ours)
        os.dup2(theirs, target)
        os.close(theirs)
        return
    os.close(theirs)
    os.close(target)
    with contextlib.suppress(OSError):
        read()
    os._exit(0)


def _wait_for_the_end(descriptor: int) -> None:
    waiting = select.poll()
    waiting.register(descriptor, 0)
    waiting.poll()


def _read_slowly(descriptor: int) -> None:
    while os.read(descriptor, 100):
        time.sleep(0.1)


LISTENERS = {
    "closed": close,
    "full disk": fill_disk,
    "terminal": give_terminal,
    "gone": pipe_to(lambda descriptor: None),
    "head": pipe_to(lambda descriptor: os.read(descriptor, 10)),
    "slow": pipe_to(_read_slowly),
    "never": pipe_to(_wait_for_the_end),
}


def wait(pid: int, timeout_s: float) -> int | None:
    """The exit status, negative for a signal; None if the child still runs."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def main() -> None:
    """Serve until standard input ends."""
    prepare()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            full = {"streams": {}, "ignored": [], **request}
            told = [full[key] for key in ("start", "environment", "log", "streams", "ignored")]
            answer = {"pid": start(*told)}
        elif "python" in request:
            answer = {
                "pid": start_python(*(request[key] for key in ("python", "environment", "log", "errors", "folder")))
            }
        else:
            answer = {"status": wait(request["wait"], request["timeout_s"])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # taking apart what was imported would take seconds
