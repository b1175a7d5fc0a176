"""The data component for the FASTA files of the FLIP benchmark.

No `from __future__ import annotations` and no unions but `Optional` here: the configuration reads these signatures.
"""

from pathlib import Path
from typing import Optional

from bionemo_core.errors import DataError
from bionemo_core.plurals import format_count
from bionemo_core.protocols import BuildContext, DataSplits, Tokenizer


# Long: a signature that is its keys, and their help.
def flip_fasta(
    sequences: str,
    labels: Optional[str] = None,
    mask: Optional[str] = None,
    target: str = "TARGET",
    on_invalid: str = "skip",
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
) -> DataSplits:
    """Read FASTA files of the FLIP benchmark; `SET=` and `VALIDATION=` in a header name the split.

    Args:
        sequences: the sequences; without `labels`, their headers have `TARGET=`, `SET=` and `VALIDATION=`.
        labels: a FASTA file with one letter per residue, and `SET=` and `VALIDATION=` in its headers.
        mask: a FASTA file with 1 or 0 per residue: whether its label counts.
        target: the attribute of a header with the label, if `labels` is not given.
        on_invalid: action for a letter outside the tokenizer's alphabet: skip the record, error, or unk to keep it.

    Raises:
        DataError: a file cannot be read, an attribute is missing, or lengths differ.
    """
    from bionemo_core.data.labelled_records import LabelledRecords, LabelledSplits
    from bionemo_core.data.readers import decode_text
    from bionemo_core.data.sources.labelled.cleaner import Cleaner
    from bionemo_core.data.splits.shared import warn_of_shared_sequences

    where = f"flip: {sequences}"
    texts = _read_fasta(sequences)
    answers = _read_fasta(labels) if labels else {}
    masks = {name: text.decode() for name, (_, text) in _read_fasta(mask).items()} if mask else {}
    rows: dict[str, list[tuple[str, bytes, str, str]]] = {"train": [], "val": [], "test": []}
    problems: list[str] = []
    clean = Cleaner(tokenizer, on_invalid, where)
    for name, (header, text) in texts.items():
        if labels and name not in answers:
            clean.reject("no label", name)
            continue
        if labels:
            header, letters = answers[name]
            label = decode_text(letters)
        else:
            label = _parse_attribute(header, target, name, where)
        if mask and name not in masks:
            clean.reject("no mask", name)
            continue
        split = _parse_split(header, name, where)
        sequence = clean(name, text)
        if sequence is not None:
            problems += _length_problems(name, sequence, label if labels else "", masks.get(name, ""))
            rows[split].append((name, sequence, label, masks.get(name, "")))
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise DataError(f"{where}: {'; '.join(problems[:10])}{more}. Correct the files.")
    for name in answers:
        if name not in texts:
            clean.reject("a label without a sequence", name)
    clean.report(sum(map(len, rows.values())))
    made = {split: LabelledRecords.of(some, where) if some else None for split, some in rows.items()}
    if made["train"] is None:
        raise DataError(f"{where}: no record has SET=train, expected at least one. Check the headers.")
    warn_of_shared_sequences(made, "Change SET= in their headers.")
    return LabelledSplits.from_parts(made["train"], made["val"], made["test"])


def _read_fasta(path: str) -> dict[str, tuple[str, bytes]]:
    """Read the header and the sequence of each record, by its id.

    Raises:
        DataError: the file cannot be read, or an id occurs twice.
    """
    from bionemo_core.data.readers import FastaSource, decode_text

    records: dict[str, tuple[str, bytes]] = {}
    source = FastaSource(Path(path).expanduser(), columns=("description",))
    for record in source.records(source.paths[0]):
        name = decode_text(record.id)
        if name in records:
            raise DataError(f"flip: {path}:{record.line}: id {name!r} occurs twice. Remove one of the records.")
        header = decode_text(record.columns[0]) if record.columns else ""
        records[name] = (header, b"".join(record.sequence.split()))
    return records


def _parse_attribute(header: str, key: str, name: str, where: str) -> str:
    for word in header.split():
        found, separator, value = word.partition("=")
        if separator and found.upper() == key.upper():
            return value
    raise DataError(f"{where}: the header of {name!r} has no {key}=..., it has {header[:80]!r}.")


def _parse_split(header: str, name: str, where: str) -> str:
    split = _parse_attribute(header, "SET", name, where).lower()
    if split not in ("train", "test"):
        raise DataError(f"{where}: {name!r} has SET={split}, expected train or test.")
    validation = split == "train" and _parse_attribute(header, "VALIDATION", name, where).lower() == "true"
    return "val" if validation else split


def _length_problems(name: str, sequence: bytes, label: str, mask: str) -> list[str]:
    return [
        f"{name!r} has {format_count(len(sequence), 'residue')} and {format_count(len(text), what)}"
        for what, text in (("label", label), ("mask letter", mask))
        if text and len(text) != len(sequence)
    ]
