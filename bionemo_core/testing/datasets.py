"""Checks of a dataset: the same records every time, as long as it says they are."""

from typing import Any

import numpy as np

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.protocols import BuildContext, DataSplits, RecordDataset, Tokenizer
from bionemo_core.testing.subject import Subject, fail, failed

NUM_RECORDS = 64
NUM_PASSES = 4
RESIDUES = "ACDEFGHIKLMNPQRSTVWYXBZUO"


def check_dataset(subject: Subject, registered: RegisteredComponent) -> None:
    """Accept a dataset that is the same whenever and wherever it is built.

    Raises:
        ConformanceError: names the split and the record.
    """
    where = f"data {registered.name!r}"
    tokenizer = tokenizer_for(subject, registered)
    once, again = (_built(subject, registered, tokenizer, home) for home in ("once", "again"))
    try:
        for split in ("train", "val", "test"):
            records, others = getattr(once, split), getattr(again, split)
            if (records is None) != (others is None):
                fail(f"{where}: built twice, the split {split!r} is there only once.")
            if records is not None:
                check_split(f"{where}, split {split!r}", records, others, tokenizer)
    except AssertionError:
        raise
    except Exception as error:
        raise failed(where, error) from error
    if not once.fingerprint:
        fail(f"{where}: its DataSplits has no fingerprint, so a resume could not see that records changed.")
    if once.fingerprint != again.fingerprint:
        fail(
            f"{where}: built twice, its fingerprints differ ({once.fingerprint}, {again.fingerprint}), so no run could "
            "be resumed. Make it of the records alone: no path, no time."
        )


def tokenizer_for(subject: Subject, registered: RegisteredComponent) -> Any:
    """Return the tokenizer for a dataset: that of a model that uses it, else the plugin's first, else residues.

    Raises:
        ConformanceError: it cannot be built.
    """
    context = BuildContext(home=str(subject.folder))
    offered = {one.name: one for one in subject.components("tokenizer")}
    for model in subject.components("model"):
        brought = model.component.defaults
        if brought.get("data") == registered.name and brought.get("tokenizer") in offered:
            return subject.build(offered[str(brought["tokenizer"])], context=context)
    for tokenizer in offered.values():
        return subject.build(tokenizer, context=context)
    from bionemo_core.data.tokenizer import CharacterTokenizer

    special = ("<unk>", "<s>", "</s>", "<pad>", "<mask>")
    return CharacterTokenizer((*special, *RESIDUES), unk_id=0, bos_id=1, eos_id=2, pad_id=3, mask_id=4)


def _built(subject: Subject, registered: RegisteredComponent, tokenizer: Tokenizer, home: str) -> DataSplits:
    context = BuildContext(home=str(subject.folder / f"data-{registered.name}-{home}"))
    splits = subject.build(registered, tokenizer=tokenizer, context=context)
    if not isinstance(splits, DataSplits):
        fail(
            f"data {registered.name!r}: its factory returns {type(splits).__name__}, expected "
            "bionemo_core.protocols.DataSplits(train=..., val=..., test=..., fingerprint=...)."
        )
    if not len(splits.train):
        fail(f"data {registered.name!r}: the split 'train' is empty.")
    return splits


def check_split(where: str, records: RecordDataset, others: RecordDataset, tokenizer: Tokenizer) -> None:
    """Accept a split whose records are those of `others`, the same split built again.

    Raises:
        ConformanceError: names the record.
    """
    if len(records) != len(others):
        fail(f"{where}: built twice, it has {len(records)} and {len(others)} records.")
    lengths: Any = getattr(records, "lengths", None)
    if lengths is not None and np.shape(lengths) != (len(records),):
        fail(f"{where}: `lengths` has the shape {np.shape(lengths)}, expected ({len(records)},): one a record.")
    for index in np.unique(np.linspace(0, len(records) - 1, NUM_RECORDS, dtype=int)).tolist() if len(records) else ():
        record = records[index]
        if not isinstance(record, str | bytes):
            fail(f"{where}: record {index} is {type(record).__name__}, expected str or bytes.")
        if records[index] != record or others[index] != record:
            fail(
                f"{where}: record {index} differs from one reading to the next: {_short(record)}, then "
                f"{_short(others[index])}. Records are fixed; what is random belongs to the objective, drawn from its "
                "`draw`."
            )
        if hasattr(records, "draw_record"):
            _check_draws(where, records, others, index, tokenizer)
        elif lengths is not None and lengths[index] != len(tokenizer.encode(record)):
            fail(
                f"{where}: `lengths` says {lengths[index]} tokens for record {index}, the tokenizer makes "
                f"{len(tokenizer.encode(record))} of it. Packing relies on it: correct it, or leave `lengths` out."
            )


def _check_draws(where: str, records: Any, others: Any, index: int, tokenizer: Tokenizer) -> None:
    """Accept draws that follow from `draw` alone, and for which `lengths` is an upper bound."""
    bound = None if getattr(records, "lengths", None) is None else records.lengths[index]
    for data_pass in range(NUM_PASSES):
        drawn, *again = (
            dataset.draw_record(index, RecordRng(0, data_pass, index, "record"))
            for dataset in (records, records, others)
        )
        if not isinstance(drawn, str | bytes):
            fail(f"{where}: draw_record({index}, ...) gives {type(drawn).__name__}, expected str or bytes.")
        if again != [drawn, drawn]:
            fail(
                f"{where}: draw_record({index}, ...) gives {_short(drawn)}, then {_short(again[again[0] == drawn])} "
                "for the same draw. Take what is random from `draw` alone."
            )
        if bound is not None and bound < len(tokenizer.encode(drawn)):
            fail(
                f"{where}: `lengths` says at most {bound} tokens for record {index}, draw_record gave "
                f"{len(tokenizer.encode(drawn))} of them. Packing relies on it: give the longest that may be drawn."
            )


def _short(record: Any) -> str:
    return repr(record[:40])
