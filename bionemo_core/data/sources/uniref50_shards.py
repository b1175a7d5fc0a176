"""UniRef50 in v1's layout: every record in one of three splits, shuffled, in CSV shards.

A folder holds `raw/`, the file as it was downloaded, and `processed/{train,val,test}/x000.csv` with a manifest.
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
from bionemo_core.data.store.record_store import canonical, file_sha256, fingerprint_of, seal
from bionemo_core.data.store.residue_filter import RecordFilter
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.io.atomic import exclusive, new_folder
from bionemo_core.protocols import BuildContext, DataSplits

log = logging.getLogger("bionemo")

HEADER = ("record_id", "record_name", "sequence_length", "sequence")
MANIFEST = "manifest.json"
_FORMAT = "bionemo uniref50 shards 1"
_BUCKET_BYTES = 1 << 26
_MOST_BUCKETS = 200  # files that are open at once
_BUFFER_BYTES = 1 << 16
_BLANKS = b" \t\r\x0b\x0c"
_NUMBER = "number"
_REMOVE = "Remove that folder to make it again, or name another data.root."


@dataclass(frozen=True)
class ShardLayout:
    """How the records of a FASTA file are dealt; the names are those of v1 and of the component's keys."""

    val_size: int = 5_000
    test_size: int = 1_000_000
    num_csv_files: int = 50
    split_seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: one is out of its range.
        """
        if not 1 <= self.num_csv_files <= 1000:
            raise ConfigError(f"data.num_csv_files: {self.num_csv_files}, expected 1 to 1000.")

    def order(self, num_records: int) -> NDArray[np.int64]:
        """The records, by number in the file, in the order of the splits: val, test, then train. Shape [records].

        Raises:
            ConfigError: nothing is left to train on.
        """
        if self.val_size < 0 or self.test_size < 0 or self.val_size + self.test_size >= num_records:
            raise ConfigError(
                f"data.val_size and data.test_size: {self.val_size:,} and {self.test_size:,} leave nothing of "
                f"{num_records:,} records to train on. Lower them, or bring more data."
            )
        order = np.arange(num_records)
        np.random.default_rng(self.split_seed).shuffle(order)  # as v1 does, so that its splits are these
        return order

    def sides(self, num_records: int) -> NDArray[np.int8]:
        """The split of each record of the file: 0 trains, 1 validates, 2 tests; shape [records].

        Raises:
            ConfigError: nothing is left to train on.
        """
        order = self.order(num_records)
        sides = np.full(num_records, TRAIN, dtype=np.int8)
        sides[order[: self.val_size]] = VAL
        sides[order[self.val_size : self.val_size + self.test_size]] = TEST
        return sides

    def shards(self, num_records: int) -> list[tuple[str, int, int]]:
        """Path of each shard, and the places in the order where it starts and ends, ascending."""
        bounds = [0, self.val_size, self.val_size + self.test_size, num_records]
        shards = []
        for split, first, last in zip(("val", "test", "train"), bounds, bounds[1:], strict=False):
            least, more = divmod(last - first, self.num_csv_files)  # np.array_split's sizes
            for number in range(self.num_csv_files):
                size = least + (number < more)
                shards.append((f"{split}/x{number:03d}.csv", first, first + size))
                first += size
        return shards


def write_shards(fasta: Path, processed: Path, layout: ShardLayout) -> dict[str, Any]:
    """The manifest of `processed`, whose shards are written now unless they are there.

    Raises:
        ConfigError: they are there with other sizes or another seed, or nothing would be left to train on.
        DataError: the FASTA file cannot be read, or the shards were made of another one or are damaged.
        StorageError: they cannot be written.
    """
    with exclusive(processed, "uniref50"):
        if processed.exists():
            manifest = read_shards(processed, layout)
            if not fasta.exists() or _stamp(fasta) == manifest["stamp"] or file_sha256(fasta) == manifest["source"]:
                return manifest
            raise DataError(f"uniref50: {processed} was made of another file than {fasta} is now. {_REMOVE}")
        with new_folder(processed) as folder:
            stamp = _stamp(fasta) if fasta.exists() else []
            num_records, num_bytes = _measured(fasta)
            log.info("uniref50: shuffling %s records into %s.", f"{num_records:,}", processed)
            _shuffle(fasta, folder, layout, num_records, num_bytes)
            files = {
                name: {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
                for name, _, _ in layout.shards(num_records)
            }
            manifest = seal(
                {
                    "format": _FORMAT,
                    "layout": asdict(layout),
                    "records": num_records,
                    "source": file_sha256(fasta),
                    "stamp": stamp,
                    "files": files,
                }
            )
            if _stamp(fasta) != stamp:
                raise _changed(fasta)
            (folder / MANIFEST).write_bytes(canonical(manifest))
    return manifest


def read_shards(processed: Path, layout: ShardLayout) -> dict[str, Any]:
    """The manifest of shards that are there.

    Raises:
        ConfigError: they were made with other sizes or another seed.
        DataError: they are damaged, or something else is there.
    """
    try:
        manifest: dict[str, Any] = json.loads((processed / MANIFEST).read_bytes())
        if seal(manifest) != manifest or manifest["format"] != _FORMAT:
            raise ValueError("changed since it was written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"uniref50: {processed}: is there, but has no manifest that can be read ({error}). If v1 made it, use "
            f"data=csv data.dataset_path={processed}. {_REMOVE}"
        ) from error
    made = manifest["layout"]
    if made != asdict(layout):
        asked = {key: value for key, value in asdict(layout).items() if made.get(key) != value}
        different = "; ".join(f"{key}={made.get(key)}, {value} is asked for" for key, value in asked.items())
        raise ConfigError(f"uniref50: {processed} was made with {different}. {_REMOVE}")
    for name, facts in manifest["files"].items():
        path = processed / name
        if not path.is_file() or path.stat().st_size != facts["bytes"]:
            raise DataError(
                f"uniref50: {path}: is not the file of {facts['bytes']:,} bytes that was written. {_REMOVE}"
            )
    return manifest


def split_shards(
    fasta: Path, processed: Path, layout: ShardLayout, rules: RecordFilter, context: BuildContext
) -> DataSplits:
    """The splits of the shards in `processed`, which are written if they are not there, each in a store of its own.

    Raises:
        ConfigError: the shards were made with other sizes or another seed, or nothing would be left to train on.
        DataError: a file cannot be read, or a split has no record that can be used.
        StorageError: something cannot be written.
    """
    files = write_shards(fasta, processed, layout)["files"]
    wanted = {"train": True, "val": layout.val_size > 0, "test": layout.test_size > 0}
    stores = {}
    for split in (split for split, some in wanted.items() if some):
        names = [name for name in files if name.startswith(f"{split}/")]
        source = CsvSource([processed / name for name in names], HEADER[3], id_column=HEADER[1])
        stores[split] = prepare(source, rules, context)
        for name, facts in zip(names, stores[split].manifest["sources"], strict=True):
            if facts["sha256"] != files[name]["sha256"]:
                raise DataError(f"uniref50: {processed / name}: was changed since it was written. {_REMOVE}")
    fingerprint = fingerprint_of({split: store.fingerprint for split, store in stores.items()})
    return DataSplits(stores["train"], stores.get("val"), stores.get("test"), fingerprint)


def split_store(fasta: Path, layout: ShardLayout, rules: RecordFilter, context: BuildContext) -> DataSplits:
    """The same splits of one store, without shards.

    Raises:
        ConfigError: nothing is left to train on.
        DataError: the file cannot be read, or has no record that can be used.
        StorageError: the store cannot be written.
    """
    store = prepare(_NumberedFasta(fasta), rules, context)
    sides = layout.sides(store.manifest["records"]["read"])
    numbers = (int(store.column(row, _NUMBER)) for row in range(len(store)))
    return SplitIndices.from_split_ids(sides[np.fromiter(numbers, dtype=np.int64, count=len(store))]).of(store)


class _NumberedFasta:
    """A FASTA file whose records know their number in it, from 0, whichever of them are used."""

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
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _measured(fasta: Path) -> tuple[int, int]:
    """Records of a FASTA file, and the bytes of their ids and sequences."""
    num_records = num_bytes = 0
    for block in FastaSource(fasta).blocks(fasta):
        num_records += len(block)
        num_bytes += len(block.ids.data) + len(block.sequences.data)
    return num_records, num_bytes


def _shuffle(fasta: Path, folder: Path, layout: ShardLayout, num_records: int, num_bytes: int) -> None:
    """Write the shards by two passes over the data: into buckets by place in the order, then sorted within each.

    Any number of records takes the memory of one bucket, and 12 bytes a record.
    """
    num_buckets = min(_MOST_BUCKETS, num_records, math.ceil(num_bytes / _BUCKET_BYTES) or 1)
    kind = np.int32 if num_records < 1 << 31 else np.int64
    places = np.empty(num_records, dtype=kind)
    places[layout.order(num_records)] = np.arange(num_records, dtype=kind)
    buckets = [folder / f"bucket{number:03d}" for number in range(num_buckets)]
    with ExitStack() as stack:
        streams = [stack.enter_context(path.open("wb", buffering=_BUFFER_BYTES)) for path in buckets]
        number = 0
        for block in FastaSource(fasta).blocks(fasta):
            if number + len(block) > num_records:
                raise _changed(fasta)
            for name, sequence in zip(block.ids.values(), block.sequences.values(), strict=True):
                place = int(places[number])
                number += 1
                stream = streams[place * num_buckets // num_records]
                stream.write(b"%d\t%d\t%b\t%b\n" % (place, number, name, _letters(sequence)))
    if number < num_records:
        raise _changed(fasta)
    del places
    _write_rows(folder, layout.shards(num_records), _sorted_lines(buckets))


def _changed(fasta: Path) -> DataError:
    return DataError(f"uniref50: {fasta}: changed while it was read. Run again when nothing writes to it.")


def _letters(sequence: bytes) -> bytes:
    return sequence.translate(None, _BLANKS).upper()


def _sorted_lines(buckets: list[Path]) -> Iterator[bytes]:
    """The lines of all buckets, each without its place; the buckets are removed."""
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
