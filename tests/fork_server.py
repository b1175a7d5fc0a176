"""Runs the command in forked children of a process that has imported everything and computed nothing.

A run then starts in about a second, and many can be killed. Read one JSON request a line from
standard input, answer one JSON line each:

    {"start": [arguments], "environment": {...}, "log": "path"} -> {"pid": 123}
    {"wait": 123, "timeout_s": 60}                              -> {"status": 0} (negative: signal; null: still runs)
"""

import json
import os
import sys
import time
from pathlib import Path


def prepare() -> None:
    """Import what a run imports, and keep to one thread: a forked child may not use a pool its parent made."""
    import torch

    torch.set_num_threads(1)
    import bionemo_core.cli.run
    import bionemo_core.tasks.train  # noqa: F401
    import bionemo_esm.model  # noqa: F401


def start(arguments: list[str], environment: dict[str, str], log: str) -> int:
    """The process id of a child that runs the command line in a session of its own."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.environ.update(environment)
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep) if "PYTHONPATH" in environment else []
    # Lightning starts the other ranks by repeating sys.argv.
    sys.argv = [str(Path(sys.executable).with_name("bionemo-run")), *arguments]
    status = 70
    try:
        from bionemo_core.cli import main

        status = main(arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


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
            answer = {"pid": start(request["start"], request["environment"], request["log"])}
        else:
            answer = {"status": wait(request["wait"], request["timeout_s"])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
