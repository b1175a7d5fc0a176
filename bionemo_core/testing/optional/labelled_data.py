"""Checks of labelled data: each record has a label, and no sequence is in two splits."""

from bionemo_core.data.labelled_records import TARGET_SEPARATOR, LabelledRecord, LabelledRecords, LabelledSplits
from bionemo_core.plurals import format_count
from bionemo_core.protocols import DataSplits
from bionemo_core.testing.subject import fail


def check_labelled(where: str, splits: DataSplits, again: DataSplits) -> None:
    """Check the labels of a dataset, and that it is the same when it is built again.

    Raises:
        ConformanceError: they cannot be trained on; the message names the split and the record.
    """
    if not isinstance(splits, LabelledSplits):
        fail(f"{where}: its records have labels, but it returns {type(splits).__name__}, expected LabelledSplits.")
    assert isinstance(again, LabelledSplits)
    parts, others = splits.parts(), again.parts()
    if parts.keys() != others.keys():
        fail(f"{where}: built twice, it has the splits {sorted(parts)}, then {sorted(others)}.")
    for name, records in parts.items():
        if not isinstance(records, LabelledRecords):
            fail(f"{where}, split {name!r}: it is a {type(records).__name__}, expected LabelledRecords.")
        _check_records(f"{where}, split {name!r}", records, others[name])
        if records.targets != splits.train.targets:
            fail(f"{where}, split {name!r}: its targets are {records.targets}, those of train {splits.train.targets}.")
    if len(set(splits.train.labels)) < 2:
        fail(f"{where}, split 'train': every label is {splits.train.labels[0]!r}, so there is nothing to learn.")
    _check_leaks(where, parts)


def _check_records(where: str, records: LabelledRecords, others: LabelledRecords) -> None:
    if len(records) != len(others):
        fail(f"{where}: built twice, it has {len(records)} and {len(others)} records.")
    columns = {"sequences": records.sequences, "labels": records.labels, "indices": records.indices}
    columns |= {"masks": records.masks} if records.masks else {}
    for name, column in columns.items():
        if len(column) != len(records):
            fail(f"{where}: it has {len(records)} ids and {len(column)} {name}. Make it with LabelledRecords.of(rows).")
    if len(set(records.indices.tolist())) < len(records):
        fail(f"{where}: two records have the same number. Make it with LabelledRecords.of(rows).")
    for index in range(len(records)):
        record = records[index]
        if others[index] != record:
            fail(f"{where}: built twice, record {record.display_name} differs. A resumed run needs the same records.")
        _check_record(where, record, len(records.targets))


def _check_record(where: str, record: LabelledRecord, num_targets: int) -> None:
    if not isinstance(record.sequence, bytes) or not record.sequence:
        fail(f"{where}: the sequence of record {record.display_name} is {record.sequence!r:.40}, expected bytes.")
    if not isinstance(record.label, str):
        fail(f"{where}: the label of record {record.display_name} is {record.label!r:.40}, expected text.")
    if record.mask and len(record.mask) != len(record.sequence):
        fail(
            f"{where}: record {record.display_name} has {format_count(len(record.sequence), 'residue')} and "
            f"{format_count(len(record.mask), 'mask letter')}, expected one for each or none."
        )
    if num_targets and record.label.count(TARGET_SEPARATOR) != num_targets - 1:
        fail(
            f"{where}: record {record.display_name} has "
            f"{format_count(record.label.count(TARGET_SEPARATOR) + 1, 'label')} for "
            f"{format_count(num_targets, 'target')}. Separate them by TARGET_SEPARATOR, with an empty text for "
            "a missing one."
        )


def _check_leaks(where: str, parts: dict[str, LabelledRecords]) -> None:
    """Check that no sequence of one split is in another, where its label would be known."""
    seen: dict[bytes, str] = {}
    for name, records in parts.items():
        for index in range(len(records)):
            record = records[index]
            if seen.setdefault(record.sequence, name) != name:
                fail(
                    f"{where}: the sequence of record {record.display_name} of {name!r} is in "
                    f"{seen[record.sequence]!r} too, so its metrics would be too good. Keep it in one split."
                )
