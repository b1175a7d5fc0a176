"""Speed and peak memory of `task=prepare` on a large FASTA file, beside pyfastx making its index of the same file.

    python benchmarks/bench_prepare.py [--megabytes 1000] [--rounds 3]

The proteins are generated, with lengths like UniRef50. Each side runs in a process of its own, start-up included;
both are interleaved; medians of the rounds. Peak memory is the resident set of the process at its largest.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

LETTERS = np.frombuffer(b"LASGVERTDIPKNFQYHMCW", dtype=np.uint8)
PREPARE = "import sys; from bionemo_core.cli import main; sys.exit(main())"
PYFASTX = "import pyfastx, sys; print(pyfastx.Fasta(sys.argv[1]).size)"
MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.stdout.write(done.stdout.decode())
sys.exit(done.returncode)
"""


def generate(path: Path, megabytes: int) -> int:
    """Write proteins until the file has that size, and return how many."""
    rng = np.random.default_rng(0)
    residues = rng.choice(LETTERS, 1 << 20).tobytes()
    number = 0
    with path.open("wb") as stream:
        while stream.tell() < megabytes * 1_000_000:
            lengths = np.clip(rng.lognormal(5.45, 0.75, 10_000), 20, 5000).astype(int)
            starts = rng.integers(0, len(residues) - 5000, len(lengths))
            for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
                stream.write(b">UniRef50_%08d cluster n=1 Tax=unclassified\n" % number)
                stream.writelines(
                    residues[i : min(i + 60, start + length)] + b"\n" for i in range(start, start + length, 60)
                )
                number += 1
    return number


def measured(command: list[str]) -> tuple[float, float, str]:
    """Seconds, peak resident megabytes and output of a command."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", MEASURE, *command], capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    kilobytes, _, output = done.stdout.partition("\n")
    return seconds, int(kilobytes) * 1024 / 1e6, output


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "generated.fasta"
        num_records = generate(path, given.megabytes)
        size = path.stat().st_size / 1e6
        sides: dict[str, list[tuple[float, float]]] = {"task=prepare": []}
        versions = f"Python {platform.python_version()}"
        if find_spec("pyfastx"):
            sides["pyfastx index"] = []
            versions += f", pyfastx {version('pyfastx')}"
        for number in range(given.rounds):
            command = [sys.executable, "-c", PREPARE, "task=prepare", "tokenizer=esm1nv", "data=fasta"]
            home = [f"data.path={path}", f"home={folder}/{number}", "task.picture=false"]
            seconds, peak, output = measured([*command, *home])
            sides["task=prepare"].append((seconds, peak))
            if f"read {num_records:,} = used {num_records:,}" not in output:
                raise SystemExit(f"not all of {num_records:,} records were used:\n{output}")
            if "pyfastx index" in sides:
                copy = Path(folder) / f"{number}.fasta"
                copy.symlink_to(path)
                sides["pyfastx index"].append(measured([sys.executable, "-c", PYFASTX, str(copy)])[:2])
    print(f"{size:,.0f} MB, {num_records:,} proteins; {versions}; median of {given.rounds} rounds")
    for name, found in sides.items():
        seconds = statistics.median(seconds for seconds, _ in found)
        peak = max(peak for _, peak in found)
        print(f"{name:15} {seconds:7.2f} s  {size / seconds:6.0f} MB/s  peak {peak:5.0f} MB resident")


if __name__ == "__main__":
    main()
