"""The output file: HDF5, Parquet or NPZ, written part by part and renamed into place when it is complete."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.errors import ConfigError
from bionemo_core.inference.embedding import SQUARES, is_per_sequence
from bionemo_core.inference.outputs import ADVICE, Parts
from bionemo_core.io.atomic import new_path
from bionemo_core.machine import has_package

SUFFIXES = {".h5": "hdf5", ".hdf5": "hdf5", ".parquet": "parquet", ".npz": "npz"}


def file_kind(path: Path) -> str:
    """Return `hdf5`, `parquet` or `npz`, by the extension of the file name.

    Raises:
        ConfigError: the extension is none of these, or h5py is not installed.
    """
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"task.output={path}: expected a name that ends in {', '.join(SUFFIXES)}.")
    if kind == "hdf5" and not has_package("h5py"):
        raise ConfigError(
            f"task.output={path}: HDF5 needs the Python package 'h5py', which is not installed. Run "
            "`pip install h5py`, or choose a name that ends in .parquet or .npz."
        )
    return kind


def write_output(path: Path, parts: Parts) -> None:
    """Write all parts to `path`; if that fails, leave no file.

    Raises:
        StorageError: the file cannot be written.
    """
    write = _WRITERS[file_kind(path)]
    with new_path(path, advice=ADVICE) as temporary:
        write(temporary, parts, _Totals.of(parts))


@dataclass(frozen=True)
class _Totals:
    """Sizes, ids and lengths over all parts."""

    sequences: int
    rows: int
    widths: dict[str, tuple[int, ...]]
    """The shape of one row of each output: (hidden,), (vocabulary,), or () for a number."""
    ids: list[str]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, parts: Parts) -> _Totals:
        ids: list[str] = []
        lengths = []
        widths: dict[str, tuple[int, ...]] = {}
        for part in parts:
            ids += part.ids
            lengths.append(part.embedded.lengths)
            widths = {name: array.shape[1:] for name, array in part.embedded.arrays.items()}
        joined = np.concatenate(lengths) if lengths else np.zeros(0, dtype=np.int64)
        return cls(len(ids), int(joined.sum()), widths, ids, joined)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """The first row of each sequence, and the end of the last, shape [sequences + 1]."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @property
    def joined(self) -> list[str]:
        """The outputs that are one array over all sequences; the others have an array for each."""
        return [name for name in self.widths if name not in SQUARES]

    @property
    def is_ragged(self) -> bool:
        return not all(is_per_sequence(name) for name in self.joined)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an output as one array."""
        return (self.sequences if is_per_sequence(name) else self.rows, *self.widths[name])


def _write_hdf5(path: Path, parts: Parts, totals: _Totals) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["facts"] = json.dumps(parts.facts, sort_keys=True)
        file.create_dataset("ids", data=totals.ids, dtype=h5py.string_dtype())
        file.create_dataset("lengths", data=totals.lengths)
        for name, mark in parts.marks.items():
            file.create_dataset(name, data=mark)
        if totals.is_ragged:
            file.create_dataset("offsets", data=totals.offsets)
        written = dict.fromkeys(totals.joined, 0)
        targets = {name: file.create_dataset(name, totals.shape(name), np.float32) for name in totals.joined}
        for part in parts:
            for name in totals.joined:
                array = part.embedded.arrays[name]
                targets[name][written[name] : written[name] + len(array)] = array
                written[name] += len(array)
        for name, square in _number_squares(parts, totals):
            file.create_dataset(name, data=square)


def _number_squares(parts: Parts, totals: _Totals) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the maps of each sequence with their names: `contacts/0` of the first."""
    squares = [name for name in totals.widths if name in SQUARES]
    first = 0
    for part in parts if squares else ():
        for name in squares:
            yield from ((f"{name}/{first + row}", square) for row, square in enumerate(part.embedded.maps(name)))
        first += len(part.ids)


def _write_parquet(path: Path, parts: Parts, totals: _Totals) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def kind(name: str) -> Any:
        value = pa.float32()
        if name in SQUARES:
            return pa.list_(value)
        row = pa.list_(value, totals.widths[name][0]) if totals.widths[name] else value
        return row if is_per_sequence(name) else pa.list_(row)

    fields = [pa.field("id", pa.string()), pa.field("length", pa.int64())]
    fields += [pa.field(name, pa.bool_()) for name in parts.marks]
    fields += [pa.field(name, kind(name)) for name in totals.widths]
    schema = pa.schema(fields, metadata={"facts": json.dumps(parts.facts, sort_keys=True)})
    start = 0
    with pq.ParquetWriter(path, schema) as writer:
        for part in parts:
            rows = slice(start, start + len(part.ids))
            start = rows.stop
            lengths = part.embedded.lengths
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
            columns = [pa.array(part.ids, pa.string()), pa.array(lengths)]
            columns += [pa.array(mark[rows]) for mark in parts.marks.values()]
            for name, array in part.embedded.arrays.items():
                if name in SQUARES:
                    columns.append(pa.array([square.ravel() for square in part.embedded.maps(name)], kind(name)))
                    continue
                values = pa.array(array.reshape(-1), pa.float32())
                if totals.widths[name]:
                    values = pa.FixedSizeListArray.from_arrays(values, totals.widths[name][0])
                columns.append(values if is_per_sequence(name) else pa.ListArray.from_arrays(offsets, values))
            writer.write_table(pa.table(columns, schema=schema))


def _write_npz(path: Path, parts: Parts, totals: _Totals) -> None:
    def blocks(name: str) -> Iterator[bytes]:
        for part in parts:
            yield np.ascontiguousarray(part.embedded.arrays[name]).tobytes()

    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in (
            ("ids", np.array(totals.ids, dtype=np.str_)),
            ("lengths", totals.lengths),
            *parts.marks.items(),
            *((("offsets", totals.offsets),) if totals.is_ragged else ()),
            ("facts", np.array(json.dumps(parts.facts, sort_keys=True))),
        ):
            _write_npy(archive, name, array.shape, array.dtype, iter([array.tobytes()]))
        for name in totals.joined:
            _write_npy(archive, name, totals.shape(name), np.dtype(np.float32), blocks(name))
        for name, square in _number_squares(parts, totals):
            _write_npy(archive, name, square.shape, square.dtype, iter([square.tobytes()]))


def _write_npy(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Iterator[bytes]
) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_2_0(member, header)
        for block in blocks:
            member.write(block)


_WRITERS: dict[str, Callable[[Path, Parts, _Totals], None]] = {
    "hdf5": _write_hdf5,
    "parquet": _write_parquet,
    "npz": _write_npz,
}
