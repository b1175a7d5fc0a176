"""Checks of a dataset: the same records every time, with the lengths that it declares."""

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.labelled_records import LabelledRecords
from bionemo_core.data.pair_records import split_pair
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.protocols import BuildContext, DataSplits, RecordDataset, Tokenizer
from bionemo_core.testing.optional.labelled_data import check_labelled
from bionemo_core.testing.subject import Subject, explain_failures, fail

NUM_RECORDS = 64
NUM_PASSES = 4
PROCESS_TIMEOUT_S = 300
RESIDUES = "ACDEFGHIKLMNPQRSTVWYXBZUO"


def check_dataset(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a dataset is the same whenever and wherever it is built.

    Raises:
        ConformanceError: it differs or is invalid; the message names the split and the record.
    """
    where = f"data {registered.name!r}"
    tokenizer = tokenizer_for(subject, registered)
    once, again = (build_splits(subject, registered, tokenizer, home) for home in ("once", "again"))
    with explain_failures(where):
        if isinstance(once.train, LabelledRecords):
            check_labelled(where, once, again)
        for split in ("train", "val", "test") if not isinstance(once.train, LabelledRecords) else ():
            records, others = getattr(once, split), getattr(again, split)
            if (records is None) != (others is None):
                fail(f"{where}: built twice, the split {split!r} exists only once.")
            if records is not None:
                check_split(f"{where}, split {split!r}", records, others, tokenizer)
    if not once.fingerprint:
        fail(f"{where}: its DataSplits has no fingerprint, so a resume could not detect changed records.")
    if once.fingerprint != again.fingerprint:
        fail(
            f"{where}: built twice, its fingerprints differ ({once.fingerprint}, {again.fingerprint}), so no run could "
            "be resumed. Compute the fingerprint from the records alone, without paths or times."
        )
    _check_other_process(where, subject, registered, once)


def _check_other_process(where: str, subject: Subject, registered: RegisteredComponent, here: DataSplits) -> None:
    """Check that another process, which orders its sets and hashes otherwise, gets the same records."""
    asked = json.dumps([subject.settings.plugin, registered.name, subject.settings.parameters, str(subject.folder)])
    other_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(  # noqa: S603 - this interpreter, with a module of ours
        [sys.executable, "-m", "bionemo_core.testing.records_seen", asked],
        env={**os.environ, **subject.environment, "PYTHONHASHSEED": other_seed},
        text=True,
        capture_output=True,
        timeout=PROCESS_TIMEOUT_S,
    )
    if done.returncode:
        fail(f"{where}: another process cannot build it:\n{done.stderr[-2000:]}")
    there = json.loads(done.stdout.splitlines()[-1])
    for split, seen in records_seen(here).items():
        if there[split] != seen:
            what = "another fingerprint" if split == "fingerprint" else f"other records in the split {split!r}"
            fail(
                f"{where}: another process gets {what}: {str(there[split])[:60]}, here {str(seen)[:60]}. A resumed run "
                "and other ranks are other processes. Do not depend on the order of a set, on hash() or on id(): sort, "
                "or use hashlib."
            )


def records_seen(splits: DataSplits) -> dict[str, Any]:
    """Return the fingerprint of a dataset and some records of each split, as another process compares them."""
    seen: dict[str, Any] = {"fingerprint": splits.fingerprint}
    for split in ("train", "val", "test"):
        records = getattr(splits, split)
        seen[split] = [] if records is None else [repr(records[i]) for i in _some_of(records)]
    return seen


def _some_of(records: RecordDataset) -> list[int]:
    """Return the indices of some records, evenly spaced."""
    size = len(records)
    return np.unique(np.linspace(0, size - 1, NUM_RECORDS, dtype=int)).tolist() if size else []


def tokenizer_for(subject: Subject, registered: RegisteredComponent) -> Any:
    """Return a dataset's tokenizer: that of a model with this data, else the plugin's first, else one of residues.

    Raises:
        ConformanceError: it cannot be built.
    """
    context = BuildContext(home=str(subject.folder))
    offered = {one.name: one for one in subject.components("tokenizer")}
    for model in subject.components("model"):
        defaults = model.component.defaults
        if defaults.get("data") == registered.name and defaults.get("tokenizer") in offered:
            return subject.build(offered[str(defaults["tokenizer"])], context=context)
    for tokenizer in offered.values():
        return subject.build(tokenizer, context=context)
    from bionemo_core.data.tokenizer import CharacterTokenizer

    special = ("<unk>", "<s>", "</s>", "<pad>", "<mask>")
    return CharacterTokenizer((*special, *RESIDUES), unk_id=0, bos_id=1, eos_id=2, pad_id=3, mask_id=4)


def build_splits(subject: Subject, registered: RegisteredComponent, tokenizer: Tokenizer, home: str) -> DataSplits:
    """Build a dataset with a home folder of its own.

    Raises:
        ConformanceError: it cannot be built, or has no record.
    """
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
    """Check that a split has the records of `others`, the same split built again.

    Raises:
        ConformanceError: a record differs or is invalid; the message names it.
    """
    if len(records) != len(others):
        fail(f"{where}: built twice, it has {len(records)} and {len(others)} records.")
    lengths: Any = getattr(records, "lengths", None)
    if hasattr(records, "order"):
        _check_order(where, records, others)
    pairs = bool(getattr(records, "pairs", False))
    shape, what = ((len(records), 2), "a source's and a target's") if pairs else ((len(records),), "one length")
    if lengths is not None and np.shape(lengths) != shape:
        fail(f"{where}: `lengths` has the shape {np.shape(lengths)}, expected {shape}: {what} per record.")
    for index in _some_of(records):
        record = records[index]
        if not isinstance(record, str | bytes):
            fail(f"{where}: record {index} is {type(record).__name__}, expected str or bytes.")
        if records[index] != record or others[index] != record:
            fail(
                f"{where}: record {index} differs when it is read again: {_short(record)}, then "
                f"{_short(others[index])}. Records must be fixed; make random choices in the objective, "
                "from its `draw`."
            )
        if hasattr(records, "draw_record"):
            _check_draws(where, records, others, index, tokenizer)
        elif lengths is not None:
            texts = split_pair(record) if pairs else (record,)
            own, made = np.atleast_1d(lengths[index]).tolist(), [len(tokenizer.encode(text)) for text in texts]
            if own != made:
                fail(
                    f"{where}: `lengths` says {_listed(own)} tokens for record {index}, but the tokenizer makes "
                    f"{_listed(made)}. Packing relies on `lengths`: correct them, or leave them out."
                )


def _listed(numbers: list[int]) -> str:
    return " and ".join(map(str, numbers))


def _check_order(where: str, records: Any, others: Any) -> None:
    """Check that an order is a pure function of the seed and names records that exist."""
    positions = np.arange(2 * len(records) + 3, dtype=np.int64)
    passes, indices = records.order(1).locate(positions)
    if np.shape(passes) != positions.shape or np.shape(indices) != positions.shape:
        fail(
            f"{where}: order(1).locate gives the shapes {np.shape(passes)} and {np.shape(indices)}, expected twice "
            f"{positions.shape}."
        )
    if indices.min() < 0 or indices.max() >= len(records) or passes.min() < 0 or (np.diff(passes[[0, -1]]) < 0).any():
        fail(
            f"{where}: order(1).locate gives records {indices.min()} to {indices.max()} and passes {passes.min()} to "
            f"{passes.max()}, expected records 0 to {len(records) - 1} and passes from 0 on."
        )
    some = positions[1::3]
    for order in (records.order(1), others.order(1)):
        if not all(np.array_equal(a[1::3], b) for a, b in zip((passes, indices), order.locate(some), strict=True)):
            fail(
                f"{where}: order(1).locate gives other records when it is asked again, or for other positions at once. "
                "It must be a pure function of the seed and the position: ranks and resumed runs rely on it."
            )


def _check_draws(where: str, records: Any, others: Any, index: int, tokenizer: Tokenizer) -> None:
    """Check that draws depend on `draw` alone, and that `lengths` are upper bounds."""
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
                "for the same draw. Make random choices from `draw` alone."
            )
        if bound is not None and bound < len(tokenizer.encode(drawn)):
            fail(
                f"{where}: `lengths` says at most {bound} tokens for record {index}, but draw_record gave "
                f"{len(tokenizer.encode(drawn))}. Packing relies on `lengths`: give the longest that may be drawn."
            )


def _short(record: Any) -> str:
    return repr(record[:40])
