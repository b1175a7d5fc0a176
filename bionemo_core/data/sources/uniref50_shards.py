"""UniRef50 in v1's layout: shuffled records in CSV shards of three splits.

A folder has `raw/`, the downloaded file, and `processed/{train,val,test}/x000.csv` with a manifest.
"""

import csv
import json
import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.readers import Column, CsvSource, FastaSource, Record, RecordBlock
from bionemo_core.data.splits.indices import TEST, TRAIN, VAL, SplitIndices
from bionemo_core.data.store.prepare import prepare
from bionemo_core.data.store.residue_filter import RecordFilter
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.io.atomic import new_folder
from bionemo_core.io.hashing import canonical, fingerprint_of, hash_file, seal
from bionemo_core.io.locks import lock_beside
from bionemo_core.plurals import format_count
from bionemo_core.protocols import BuildContext, DataSplits

log = logging.getLogger("bionemo")

HEADER = ("record_id", "record_name", "sequence_length", "sequence")
MANIFEST = "manifest.json"
_FORMAT = "bionemo uniref50 shards 1"
_BUCKET_BYTES = 1 << 26
_MAX_BUCKETS = 200  # files that are open at the same time
_BUFFER_BYTES = 1 << 16
_BLANKS = b" \t\r\x0b\x0c"
_NUMBER = "number"
_REMOVE = "Remove that folder to make it again, or choose another data.root."


@dataclass(frozen=True)
class ShardLayout:
    """The split and the shards of a FASTA file's records; the names are those of v1 and of the component's keys."""

    val_size: int = 5_000
    test_size: int = 1_000_000
    num_csv_files: int = 50
    split_seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: a number is out of its range.
        """
        if not 1 <= self.num_csv_files <= 1000:
            raise ConfigError(f"data.num_csv_files: {self.num_csv_files}, expected 1 to 1000.")

    def order(self, num_records: int) -> NDArray[np.int64]:
        """Return the records, by number in the file, in the order val, test, train; shape [records].

        Raises:
            ConfigError: nothing is left to train on.
        """
        if self.val_size < 0 or self.test_size < 0 or self.val_size + self.test_size >= num_records:
            raise ConfigError(
                f"data.val_size and data.test_size: {self.val_size:,} and {self.test_size:,} leave nothing of "
                f"{format_count(num_records, 'record')} to train on. Lower them, or give more data."
            )
        order = np.arange(num_records)
        np.random.default_rng(self.split_seed).shuffle(order)  # as in v1, so that the splits are the same
        return order

    def split_ids(self, num_records: int) -> NDArray[np.int8]:
        """Return the split of each record of the file: 0 train, 1 validation, 2 test; shape [records].

        Raises:
            ConfigError: nothing is left to train on.
        """
        order = self.order(num_records)
        split_ids = np.full(num_records, TRAIN, dtype=np.int8)
        split_ids[order[: self.val_size]] = VAL
        split_ids[order[self.val_size : self.val_size + self.test_size]] = TEST
        return split_ids

    def shards(self, num_records: int) -> list[tuple[str, int, int]]:
        """Return the path of each shard, and where it starts and ends in the order, ascending."""
        bounds = [0, self.val_size, self.val_size + self.test_size, num_records]
        shards = []
        for split, first, last in zip(("val", "test", "train"), bounds, bounds[1:], strict=False):
            quotient, remainder = divmod(last - first, self.num_csv_files)  # np.array_split's sizes
            for number in range(self.num_csv_files):
                size = quotient + (number < remainder)
                shards.append((f"{split}/x{number:03d}.csv", first, first + size))
                first += size
        return shards


def write_shards(fasta: Path, processed: Path, layout: ShardLayout) -> dict[str, Any]:
    """Write the shards of `processed` unless they exist, and return their manifest.

    Raises:
        ConfigError: the shards exist with other sizes or another seed, or nothing would be left to train on.
        DataError: the FASTA file cannot be read, or the shards are damaged or come from another file.
        StorageError: the shards cannot be written.
    """
    with lock_beside(processed, "uniref50"):
        if processed.exists():
            manifest = read_shards(processed, layout)
            if not fasta.exists() or _stamp(fasta) == manifest["stamp"]:
                return manifest
            if hash_file(fasta).sha256 == manifest["source"]:
                return manifest
            raise DataError(f"uniref50: {processed} was made from another file than {fasta}. {_REMOVE}")
        with new_folder(processed) as folder:
            stamp = _stamp(fasta) if fasta.exists() else []
            num_records, num_bytes = _measure(fasta)
            log.info("uniref50: shuffling %s into %s.", format_count(num_records, "record"), processed)
            _shuffle(fasta, folder, layout, num_records, num_bytes)
            files = {
                name: {"bytes": (folder / name).stat().st_size, "sha256": hash_file(folder / name).sha256}
                for name, _, _ in layout.shards(num_records)
            }
            manifest = seal(
                {
                    "format": _FORMAT,
                    "layout": asdict(layout),
                    "records": num_records,
                    "source": hash_file(fasta).sha256,
                    "stamp": stamp,
                    "files": files,
                }
            )
            if _stamp(fasta) != stamp:
                raise _changed_error(fasta)
            (folder / MANIFEST).write_bytes(canonical(manifest))
    return manifest


def read_shards(processed: Path, layout: ShardLayout) -> dict[str, Any]:
    """Read and check the manifest of existing shards.

    Raises:
        ConfigError: the shards were made with other sizes or another seed.
        DataError: the shards are damaged, or the folder has no shards.
    """
    try:
        manifest: dict[str, Any] = json.loads((processed / MANIFEST).read_bytes())
        if seal(manifest) != manifest or manifest["format"] != _FORMAT:
            raise ValueError("it was changed after it was written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"uniref50: {processed}: exists, but its manifest cannot be read ({error}). If v1 made the folder, use "
            f"data=csv data.dataset_path={processed}. {_REMOVE}"
        ) from error
    made = manifest["layout"]
    if made != asdict(layout):
        asked = {key: value for key, value in asdict(layout).items() if made.get(key) != value}
        different = "; ".join(f"{key}={made.get(key)}, expected {value}" for key, value in asked.items())
        raise ConfigError(f"uniref50: {processed} was made with {different}. {_REMOVE}")
    for name, facts in manifest["files"].items():
        path = processed / name
        if not path.is_file() or path.stat().st_size != facts["bytes"]:
            raise DataError(f"uniref50: {path}: is missing or does not have its {facts['bytes']:,} bytes. {_REMOVE}")
    return manifest


def split_shards(
    fasta: Path, processed: Path, layout: ShardLayout, rules: RecordFilter, context: BuildContext
) -> DataSplits:
    """Prepare a store for each split of the shards in `processed`, which are written unless they exist.

    Raises:
        ConfigError: the shards were made with other sizes or another seed, or nothing would be left to train on.
        DataError: a file cannot be read, or a split has no usable record.
        StorageError: a file cannot be written.
    """
    files = write_shards(fasta, processed, layout)["files"]
    in_use = {"train": True, "val": layout.val_size > 0, "test": layout.test_size > 0}
    stores = {}
    for split in (split for split, used in in_use.items() if used):
        names = [name for name in files if name.startswith(f"{split}/")]
        source = CsvSource([processed / name for name in names], HEADER[3], id_column=HEADER[1])
        stores[split] = prepare(source, rules, context)
        for name, facts in zip(names, stores[split].manifest["sources"], strict=True):
            if facts["sha256"] != files[name]["sha256"]:
                raise DataError(f"uniref50: {processed / name}: was changed after it was written. {_REMOVE}")
    fingerprint = fingerprint_of({split: store.fingerprint for split, store in stores.items()})
    return DataSplits(stores["train"], stores.get("val"), stores.get("test"), fingerprint)


def split_store(fasta: Path, layout: ShardLayout, rules: RecordFilter, context: BuildContext) -> DataSplits:
    """Prepare one store without shards, and split it in the same way.

    Raises:
        ConfigError: nothing is left to train on.
        DataError: the file cannot be read, or has no usable record.
        StorageError: the store cannot be written.
    """
    store = prepare(_NumberedFasta(fasta), rules, context)
    split_ids = layout.split_ids(store.manifest["records"]["read"])
    numbers = (int(store.column(row, _NUMBER)) for row in range(len(store)))
    return SplitIndices.from_split_ids(split_ids[np.fromiter(numbers, dtype=np.int64, count=len(store))]).of(store)


class _NumberedFasta:
    """A FASTA file whose records have a column with their number in the file, from 0."""

    kind = "fasta"
    columns = (_NUMBER,)

    def __init__(self, path: Path) -> None:
        self.paths = [path]

    @property
    def options(self) -> dict[str, object]:
        return {}

    def records(self, path: Path) -> Iterator[Record]:
        for block in self.blocks(path):
            yield from block.records()

    def blocks(self, path: Path) -> Iterator[RecordBlock]:
        first = 0
        for block in FastaSource(path).blocks(path):
            numbers = Column.of([b"%d" % number for number in range(first, first + len(block))])
            first += len(block)
            yield replace(block, columns=(numbers,))


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _measure(fasta: Path) -> tuple[int, int]:
    """Count the records of a FASTA file, and the bytes of their ids and sequences."""
    num_records = num_bytes = 0
    for block in FastaSource(fasta).blocks(fasta):
        num_records += len(block)
        num_bytes += len(block.ids.data) + len(block.sequences.data)
    return num_records, num_bytes


def _shuffle(fasta: Path, folder: Path, layout: ShardLayout, num_records: int, num_bytes: int) -> None:
    """Write the shards in two passes: into buckets by place in the order, then sorted within each bucket.

    This needs the memory of one bucket, and 12 bytes per record.
    """
    num_buckets = min(_MAX_BUCKETS, num_records, math.ceil(num_bytes / _BUCKET_BYTES) or 1)
    dtype = np.int32 if num_records < 1 << 31 else np.int64
    places = np.empty(num_records, dtype=dtype)
    places[layout.order(num_records)] = np.arange(num_records, dtype=dtype)
    buckets = [folder / f"bucket{number:03d}" for number in range(num_buckets)]
    with ExitStack() as stack:
        streams = [stack.enter_context(path.open("wb", buffering=_BUFFER_BYTES)) for path in buckets]
        number = 0
        for block in FastaSource(fasta).blocks(fasta):
            if number + len(block) > num_records:
                raise _changed_error(fasta)
            for name, sequence in zip(block.ids.values(), block.sequences.values(), strict=True):
                place = int(places[number])
                number += 1
                stream = streams[place * num_buckets // num_records]
                stream.write(b"%d\t%d\t%b\t%b\n" % (place, number, name, _clean(sequence)))
    if number < num_records:
        raise _changed_error(fasta)
    del places
    _write_rows(folder, layout.shards(num_records), _sorted_lines(buckets))


def _changed_error(fasta: Path) -> DataError:
    return DataError(f"uniref50: {fasta}: changed while it was read. Run again when no other program writes to it.")


def _clean(sequence: bytes) -> bytes:
    return sequence.translate(None, _BLANKS).upper()


def _sorted_lines(buckets: list[Path]) -> Iterator[bytes]:
    """Yield the lines of all buckets in order, without their places, and remove the buckets."""
    for bucket in buckets:
        lines = bucket.read_bytes().split(b"\n")[:-1]
        bucket.unlink()
        places = np.fromiter((int(line[: line.index(b"\t")]) for line in lines), dtype=np.int64, count=len(lines))
        for row in np.argsort(places):
            yield lines[row].partition(b"\t")[2]


def _write_rows(folder: Path, shards: list[tuple[str, int, int]], lines: Iterator[bytes]) -> None:
    for name, first, last in shards:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("w", encoding="latin-1", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(HEADER)
            for _ in range(first, last):
                number, record_name, sequence = next(lines).decode("latin-1").split("\t")
                writer.writerow((number, record_name, len(sequence), sequence))
