"""Standard streams without a reader, and writes that begin while another one is under way."""

import os
import subprocess
import sys

BOTH = """
import sys
from bionemo_core.io.std_streams import guard, keep_working
guard()
keep_working()
for number in range(2000):
    print("a line for nobody", number)
print("and another", file=sys.stderr)
sys.stdout.flush()
"""

INSIDE = """
import os, signal, sys
reader, writer = os.pipe()
os.dup2(writer, 1)
from bionemo_core.io.std_streams import guard
guard()
seen = b""

def drain(number, frame):
    global seen
    seen += os.read(reader, 1 << 20)
    print("from the handler", flush=True)

signal.signal(signal.SIGALRM, drain)
signal.setitimer(signal.ITIMER_REAL, 0.3, 0.1)
print("x" * 300_000, flush=True)  # longer than a pipe: it waits for the handler, which reads
signal.setitimer(signal.ITIMER_REAL, 0)
seen += os.read(reader, 1 << 20)
sys.exit(0 if seen.count(b"x") == 300_000 and b"from the handler" in seen else 9)
"""


def _run(code: str, **streams: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", code], timeout=60, **streams)


def test_the_work_goes_on_when_both_streams_lose_the_same_reader() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert _run(BOTH, stdout=writer, stderr=writer).returncode == 0
    os.close(writer)


def test_a_signal_handler_may_print_while_a_print_is_under_way() -> None:
    done = _run(INSIDE, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()
