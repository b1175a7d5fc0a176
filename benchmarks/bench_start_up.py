"""How soon the command answers what needs no torch: each case is a whole process, interpreter start included.

Printed are the least and the median over the runs, in seconds, beside the goal.

    python benchmarks/bench_start_up.py [--runs 10]
"""

import argparse
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter

CASES = ((["--help"], 0.5), (["plugins"], 0.5), (["model=esm1nvv"], 1.0))
"""What is typed, and the goal in seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    command = shutil.which("bionemo-run", path=str(Path(sys.executable).parent))
    if command is None:
        raise SystemExit("bench_start_up: bionemo-run is not installed beside this Python.")
    print(f"{'command':<30} {'least':>8} {'median':>8} {'goal':>8}")
    for arguments, goal_s in CASES:
        times = [_seconds([command, *arguments]) for _ in range(runs)]
        shown = " ".join(["bionemo-run", *arguments])
        print(f"{shown:<30} {min(times):7.2f}s {statistics.median(times):7.2f}s {goal_s:7.1f}s")


def _seconds(command: list[str]) -> float:
    began = perf_counter()
    subprocess.run(command, capture_output=True, check=False)
    return perf_counter() - began


if __name__ == "__main__":
    main()
