"""What becomes of labelled sequences that are longer than the model's limit."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np

from bionemo_core.data.labelled_records import LabelledRecord, LabelledRecords, LabelledSplits
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.finetuning.label_spec import LabelSpec
from bionemo_core.finetuning.objective import label_words
from bionemo_core.inference.windows import LongRule, Window, split_windows
from bionemo_core.plurals import format_count
from bionemo_core.protocols import Tokenizer

log = logging.getLogger("bionemo")

SKIP, ERROR, TRUNCATE, WINDOW = ON_LONG = ("skip", "error", "truncate", "window")


def check_on_long(how: str, per_residue: bool) -> None:
    """Check a value of `task.on_long`.

    Raises:
        ConfigError: it is none of `ON_LONG`, or asks for windows although a label belongs to a whole sequence.
    """
    if how not in ON_LONG:
        raise ConfigError(f"task.on_long: got {how!r}, expected one of {', '.join(ON_LONG)}.")
    if how == WINDOW and not per_residue:
        raise ConfigError(
            "task.on_long=window: needs labels for residues, but here a label belongs to a whole sequence. Use "
            "task.on_long=truncate, or skip."
        )


def shorten(
    splits: LabelledSplits, limit: int, how: str, tokenizer: Tokenizer, label_spec: LabelSpec, *, quiet: bool = False
) -> LabelledSplits:
    """Return the splits with sequences of at most `limit` tokens, and log what was changed, unless `quiet`.

    Args:
        splits: the records, whose labels fit.
        limit: the most tokens, without BOS and EOS.
        how: skip to leave longer sequences out, error, truncate, or window to cut them, with their labels, into
            consecutive windows that become records of their own, `id/1`, `id/2` and so on.
        tokenizer: counts the tokens.
        label_spec: says whether labels belong to residues.
        quiet: do not log.

    Raises:
        DataError: a sequence is too long with `error`, or no sequence is left with `skip`.
    """
    if how == SKIP:
        return splits.drop_longer(limit, tokenizer)
    kept: dict[str, Any] = {
        name: _shorten_part(part, name, limit, how, tokenizer, label_spec, quiet)
        for name, part in splits.parts().items()
    }
    return replace(splits, **kept)


def _shorten_part(
    records: LabelledRecords, name: str, limit: int, how: str, tokenizer: Tokenizer, label_spec: LabelSpec, quiet: bool
) -> LabelledRecords:
    rule = LongRule(TRUNCATE if how == TRUNCATE else ERROR, limit, 0)
    long = [
        row
        for row in np.flatnonzero(records.letters > limit).tolist()
        if rule.is_long(records.sequences[row], tokenizer)
    ]
    if not long:
        return records
    names = ", ".join(records[row].display_name for row in long[:10])
    number, most = format_count(len(records), "sequence"), format_count(limit, "token")
    what = f"{name}: {len(long):,} of {number} have more than {most}"
    if how == ERROR:
        raise DataError(f"{what}: {names}. Cut them with task.on_long=truncate, or leave them out with skip.")
    if not quiet:
        log.warning("%s and are %s.", what, "truncated" if how == TRUNCATE else "cut into windows")
    changed = set(long)
    pieces: list[LabelledRecord] = []
    for row in range(len(records)):
        record = records[row]
        pieces += _cut(record, limit, how, tokenizer, label_spec) if row in changed else [record]
    return replace(
        records,
        ids=tuple(piece.id for piece in pieces),
        sequences=tuple(piece.sequence for piece in pieces),
        labels=tuple(piece.label for piece in pieces),
        masks=tuple(piece.mask for piece in pieces),
        indices=np.arange(len(pieces)),
        seconds=tuple(piece.second for piece in pieces) if records.seconds else (),
    )


def _cut(
    record: LabelledRecord, limit: int, how: str, tokenizer: Tokenizer, label_spec: LabelSpec
) -> list[LabelledRecord]:
    ids = tokenizer.encode(record.sequence)
    windows = [Window(0, limit)] if how == TRUNCATE else split_windows(len(ids), limit, 0)
    pieces, end = [], 0
    for number, (start, stop) in enumerate(windows, start=1):
        # The last window ends with the sequence; the residues that it shares with the one before count once.
        place, again = slice(start, stop), max(0, end - start)
        end = stop
        piece = record._replace(sequence=_text_of(record, ids, place, tokenizer))
        if how == WINDOW:
            piece = piece._replace(id=f"{record.id}/{number}")
        if label_spec.per_residue:
            words = label_words(record.label, label_spec)[place]
            mask = (record.mask or "1" * len(ids))[place]
            joined = ("" if label_spec.of_classes else " ").join(words)
            piece = piece._replace(label=joined, mask="0" * again + mask[again:])
        pieces.append(piece)
    return pieces


def _text_of(record: LabelledRecord, ids: Any, place: slice, tokenizer: Tokenizer) -> bytes:
    """Return the text of some of a record's tokens.

    Raises:
        DataError: the tokenizer reads that text in another way.
    """
    if len(ids) == len(record.sequence):
        return record.sequence[place]
    text = tokenizer.decode(ids[place].tolist()).encode("latin-1", errors="replace")
    if not np.array_equal(tokenizer.encode(text), ids[place]):
        raise DataError(f"record {record.display_name}: cannot be cut between two tokens. Use task.on_long=skip.")
    return text
