"""A million proteins through `task=embed` on one GPU: rate, disk, and the same file after kill -9.

Random proteins with lengths as UniRef50 has them (log-normal, mean about 300 residues), ESM-2 8M with random weights.
First a tenth of them twice: undisturbed, and killed with SIGKILL once a part is saved, then started again; the hashes
of the two outputs must be equal. Then all of them, timed as a user's command, start and joining of the parts included.

    python benchmarks/embed_million_gpu.py [--sequences 1000000] [--accelerator gpu]
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

import h5py
import numpy as np

RESIDUES = np.frombuffer(b"LAGVSERTIDPKQNFYMHWC", dtype=np.uint8)


def write_proteins(path: Path, count: int, seed: int = 2) -> int:
    """Write random proteins as FASTA; return their residues."""
    draw, total = np.random.default_rng(seed), 0
    with path.open("wb") as file:
        for start in range(0, count, 10_000):
            lengths = np.clip(draw.lognormal(5.45, 0.75, size=min(10_000, count - start)), 10, 1024).astype(int) - 2
            letters, ends = RESIDUES[draw.integers(0, 20, lengths.sum())].tobytes(), np.cumsum(lengths)
            for number, (end, length) in enumerate(zip(ends, lengths, strict=True)):
                file.write(b">p%d\n%s\n" % (start + number, letters[end - length : end]))
            total += int(lengths.sum())
    return total


def command(*arguments: str, home: Path) -> "subprocess.Popen[bytes]":
    """Start the command in a process group of its own."""
    environment = {**os.environ, "BIONEMO_HOME": str(home)}
    with (home / "log").open("ab") as log:
        return subprocess.Popen(
            ["bionemo-run", *arguments], env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def finish(process: "subprocess.Popen[bytes]", home: Path) -> None:
    """Wait for a command, and end this script with its output if it failed."""
    if process.wait():
        sys.exit((home / "log").read_text()[-3000:])


def killed_after_a_part(process: "subprocess.Popen[bytes]", output: Path) -> int:
    """Kill the command once a part of the output is saved; return the number of parts."""
    while process.poll() is None:
        parts = len(list(output.parent.glob(f"{output.name}.parts/*.json")))
        if parts:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return parts
        sleep(0.05)
    return 0


def hash_of(output: Path) -> str:
    """The hash of all embeddings of an output."""
    with h5py.File(output) as file:
        return hashlib.sha256(file["embeddings"][:].tobytes()).hexdigest()


def main() -> int:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=1_000_000)
    parser.add_argument("--accelerator", default="gpu")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        home = Path(folder)
        tenth, whole = home / "tenth.fasta", home / "whole.fasta"
        write_proteins(tenth, arguments.sequences // 10)
        residues = write_proteins(whole, arguments.sequences)
        on = f"trainer.accelerator={arguments.accelerator}"
        finish(command("model=esm2_8m", "name=weights", "trainer.max_steps=1", on, home=home), home)
        (weights,) = (home / "runs" / "weights").iterdir()

        def embed(fasta: Path, output: Path, *more: str) -> "subprocess.Popen[bytes]":
            asked = f"restore_from_path={weights}", f"task.input={fasta}", f"task.output={output}"
            return command("task=embed", *asked, on, *more, home=home)

        small = f"task.tokens_per_part={max(4096, residues // 100)}"
        undisturbed, killed, output = home / "undisturbed.h5", home / "killed.h5", home / "all.h5"
        finish(embed(tenth, undisturbed, small), home)
        parts = killed_after_a_part(embed(tenth, killed, small), killed)
        finish(embed(tenth, killed, small), home)
        equal = hash_of(undisturbed) == hash_of(killed)
        print(f"killed with {parts} parts saved and started again: {'equal' if equal else 'NOT EQUAL'}", flush=True)
        begun = perf_counter()
        finish(embed(whole, output), home)
        wall = perf_counter() - begun
        with h5py.File(output) as file:
            shape = file["embeddings"].shape
        size = output.stat().st_size / 1e9
        print(f"{shape[0]:,} sequences, {residues:,} residues in {wall:.0f} s: {residues / wall:,.0f} residues/s")
        print(f"output {size:.2f} GB")
        print((home / "log").read_text()[-1500:])
        return int(not (equal and parts and shape[0] == arguments.sequences))


if __name__ == "__main__":
    sys.exit(main())
