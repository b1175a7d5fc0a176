"""Time to read and index a FASTA file: the core's reader and store, pyfastx, Biopython's SeqIO.

    python benchmarks/bench_fasta.py [FASTA]

Without a file, 200,000 proteins of lengths like UniRef50 are generated. Sides that are not installed are left out;
all are interleaved; medians of the rounds.
"""

import argparse
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bionemo_core.data.readers import FastaSource
from bionemo_core.data.store.prepare import prepare
from bionemo_core.data.store.residue_filter import ResidueFilter
from bionemo_core.protocols import BuildContext

ROUNDS = 5
LETTERS = b"LASGVERTDIPKNFQYHMCW"


def generate(path: Path, num_records: int = 200_000) -> None:
    """Write proteins with log-normal lengths, wrapped at 60."""
    rng = np.random.default_rng(0)
    letters = np.frombuffer(LETTERS, dtype=np.uint8)
    lengths = np.clip(rng.lognormal(5.45, 0.75, num_records), 20, 5000).astype(int)
    with path.open("wb") as stream:
        for number, length in enumerate(lengths.tolist()):
            sequence = rng.choice(letters, length).tobytes()
            stream.write(b">UniRef50_%08d cluster n=1\n" % number)
            stream.writelines(sequence[i : i + 60] + b"\n" for i in range(0, length, 60))


def read(path: Path, home: Path) -> int:
    """Residues of all records, by the core's reader: ids, sequences and line numbers in columns."""
    return sum(len(block.sequences.data) for block in FastaSource(path).blocks(path))


def read_records(path: Path, home: Path) -> int:
    """The same, a Python object a record."""
    return sum(len(record.sequence) for record in FastaSource(path).records(path))


def store(path: Path, home: Path) -> int:
    """Residues of a prepared store: cleaned, checked for duplicates, hashed, flushed to disk, verified."""
    rules = ResidueFilter("".join(sorted(LETTERS.decode() + "XBZUO")))
    return int(prepare(FastaSource(path), rules, BuildContext(home=str(home))).lengths.sum())


def biopython(path: Path, home: Path) -> int:
    """Residues of all records, by Bio.SeqIO.parse."""
    import gzip

    from Bio import SeqIO

    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
        return sum(len(record.seq) for record in SeqIO.parse(stream, "fasta"))


def pyfastx_index(path: Path, home: Path) -> int:
    """Residues, by pyfastx's index made from nothing (it stores offsets, no sequences)."""
    import pyfastx

    copy = home / path.name
    home.mkdir(parents=True)
    copy.symlink_to(path)
    return int(pyfastx.Fasta(str(copy)).size)


def pyfastx_read(path: Path, home: Path) -> int:
    """Residues of all records, by pyfastx without an index."""
    import pyfastx

    return sum(len(sequence) for _, sequence in pyfastx.Fasta(str(path), build_index=False))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fasta", nargs="?", type=Path)
    path = parser.parse_args().fasta
    sides: dict[str, Callable[[Path, Path], int]] = {
        "ours, read": read,
        "ours, read one by one": read_records,
        "ours, prepared store": store,
    }
    versions = [f"Python {platform.python_version()}"]
    for module, name, added in (
        ("pyfastx", "pyfastx", {"pyfastx, read": pyfastx_read, "pyfastx, index": pyfastx_index}),
        ("Bio", "biopython", {"Bio.SeqIO, read": biopython}),
    ):
        if importlib.util.find_spec(module):
            sides |= added
            versions.append(f"{name} {version(name)}")
    with TemporaryDirectory() as folder:
        if path is None:
            path = Path(folder) / "generated.fasta"
            generate(path)
        path = path.resolve()
        times: dict[str, list[float]] = {name: [] for name in sides}
        found = set()
        for number in range(ROUNDS + 1):
            for name, side in sides.items():
                home = Path(folder) / f"{number}-{name}"
                begin = time.perf_counter()
                residues = side(path, home)
                if number:  # the first round warms up
                    times[name].append(time.perf_counter() - begin)
                found.add((name != "ours, prepared store") * residues)
        if len(found - {0}) > 1:
            raise SystemExit(f"the sides disagree about the number of residues: {sorted(found)}")
        print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB; {', '.join(versions)}; median of {ROUNDS} rounds")
    reference = statistics.median(times["ours, read"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:22} {median:7.3f} s   {median / reference:6.2f} x ours, read")


if __name__ == "__main__":
    main()
