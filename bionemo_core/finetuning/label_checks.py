"""The check of all labels before anything is computed: which cannot be used, why, and what becomes of them.

No torch at import.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bionemo_core.data.labelled_records import LabelledRecord, LabelledRecords, LabelledSplits
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.finetuning.label_spec import LabelSpec
from bionemo_core.finetuning.objective import (
    MISSING_VALUE,
    BadLabel,
    LabelObjective,
    class_counts,
    is_missing,
    label_words,
    mean_and_scale,
)
from bionemo_core.finetuning.several_targets import check_targets, several_text
from bionemo_core.plurals import format_count
from bionemo_core.protocols import InputForm, Tokenizer

log = logging.getLogger("bionemo")

ERROR, SKIP, CLASS = "error", "skip", "class"
ON_BAD_LABEL = (ERROR, SKIP, CLASS)
_SHOWN = 10
"""Bad records that a message names for each reason, and classes that a line names."""


def check_on_bad_label(key: str, how: str, of_classes: bool) -> None:
    """Check a value of `on_bad_label`.

    Raises:
        ConfigError: it is none of `ON_BAD_LABEL`, or asks for classes of a regression.
    """
    if how not in ON_BAD_LABEL:
        raise ConfigError(f"{key}: got {how!r}, expected one of {', '.join(ON_BAD_LABEL)}.")
    if how == CLASS and not of_classes:
        raise ConfigError(f"{key}=class: a regression has no classes. Use {key}=skip.")


@dataclass
class LabelCheck:
    """The check of the labels of some splits.

    Args:
        tokenizer: counts the residues of a sequence.
        label_spec: the label spec; a classification without classes takes any class.
        how: error to refuse bad labels, skip to leave them out, or class to take words for missing values as classes.
        key: the user's key for `how`, for messages.
    """

    tokenizer: Tokenizer
    label_spec: LabelSpec
    how: str = ERROR
    key: str = "task.on_bad_label"
    _bad: dict[str, list[str]] = field(default_factory=dict)
    _residues: int = 0
    """Residues whose missing label is ignored."""
    _unlabelled: int = 0
    """Records of which all of several labels are missing."""

    def __post_init__(self) -> None:
        check_on_bad_label(self.key, self.how, self.label_spec.of_classes)
        self._objective = LabelObjective(self.tokenizer, self.label_spec, form=InputForm(), seq_length=2**31 - 1)

    def splits(self, splits: LabelledSplits, *, quiet: bool = False) -> LabelledSplits:
        """Return the splits without bad labels; see `parts`."""
        kept: dict[str, Any] = self.parts(splits.parts(), quiet=quiet)
        return replace(splits, **kept)

    def parts(self, parts: Mapping[str, LabelledRecords], *, quiet: bool = False) -> dict[str, LabelledRecords]:
        """Return the splits without bad labels, and log how many were left out, unless `quiet`.

        Raises:
            ConfigError: the records have other labels than the label spec, or a mask of residues without such labels.
            DataError: labels are bad and `how` does not allow it, or a split has no other label.
        """
        for part in parts.values():
            check_targets(part, self.label_spec)
            if any(part.masks) and not self.label_spec.per_residue:
                raise ConfigError(
                    "data: a mask of residues is for labels of residues, but here each sequence has one label. Leave "
                    "out the key of the mask (data.mask_column, or data.mask of FLIP)."
                )
        self._bad, self._residues, self._unlabelled = {}, 0, 0
        kept = {name: self._clean(name, records) for name, records in parts.items()}
        total, records = sum(map(len, self._bad.values())), sum(map(len, parts.values()))
        if total and self.how != SKIP:
            raise DataError(
                f"labels: {total:,} of {format_count(records, 'record')} cannot be used. "
                f"{self._listed()}{self._advice()}"
            )
        for name, part in kept.items():
            if not len(part):
                raise DataError(f"labels: no record of the split {name} can be used. {self._listed()}")
        if total and not quiet:
            log.warning("labels: left out %d of %s. %s", total, format_count(records, "record"), self._listed())
        if self._residues and not quiet:
            log.warning("labels: ignored %s whose label is a missing value.", format_count(self._residues, "residue"))
        if self._unlabelled and not quiet:
            log.warning(
                "labels: left out %d of %s, which have no label at all.",
                self._unlabelled,
                format_count(records, "record"),
            )
        return kept

    def _clean(self, split: str, records: LabelledRecords) -> LabelledRecords:
        masks, rows = list(records.masks or [""] * len(records)), []
        for row in range(len(records)):
            record = records[row]
            if self.how == SKIP and self.label_spec.per_residue:
                record = self._ignore_missing(record)
                masks[row] = record.mask
            try:
                has_label = self._check(record)
            except BadLabel as bad:
                self._bad.setdefault(bad.reason, []).append(f"{split} {record.display_name}{bad.detail}")
            else:
                rows += [row] if has_label else []
                self._unlabelled += not has_label
        return replace(records, masks=tuple(masks)).select(rows)

    def _check(self, record: LabelledRecord) -> bool:
        """Return whether the record is of use: one with several labels needs one of them."""
        residues = len(self.tokenizer.encode(record.sequence)) if self.label_spec.per_residue else 1
        try:
            _, counts = self._objective.targets(record, residues)
        except BadLabel as bad:
            if bad.reason == MISSING_VALUE and self.how == CLASS and not self.label_spec.classes:
                return True
            raise
        if self.label_spec.targets:
            return bool(counts.any())
        if self.how == SKIP and not counts.any():
            raise BadLabel("no label counts", record)
        return True

    def _ignore_missing(self, record: LabelledRecord) -> LabelledRecord:
        """Mask the residues whose label is a missing value."""
        words = label_words(record.label, self.label_spec)
        mask = record.mask or "1" * len(words)
        if len(mask) != len(words):
            return record
        missing = [
            counts != "0" and word not in self.label_spec.classes and is_missing(word, self.label_spec)
            for word, counts in zip(words, mask, strict=True)
        ]
        if not any(missing):
            return record
        self._residues += sum(missing)
        return record._replace(mask="".join("0" if gone else one for gone, one in zip(missing, mask, strict=True)))

    def _listed(self) -> str:
        texts = []
        for reason, names in self._bad.items():
            more = f"; and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
            texts.append(f"{reason} {len(names):,} ({'; '.join(names[:_SHOWN])}{more})")
        return f"{', '.join(texts)}."

    def _advice(self) -> str:
        what = "such residues and records" if self.label_spec.per_residue else "such records"
        text = f" Correct them, or leave {what} out with {self.key}=skip."
        if MISSING_VALUE in self._bad and self.label_spec.of_classes and self.how == ERROR:
            letters = ", as '-' is in DSSP" if self.label_spec.per_residue else ""
            text += f" If a word for a missing value is a class{letters}, set {self.key}=class."
        return text


def warn_of_like_classes(label_spec: LabelSpec) -> None:
    """Warn of classes of whole sequences that differ in case alone, which may be meant to be one."""
    if label_spec.per_residue:
        return
    spellings: dict[str, list[str]] = {}
    for name in label_spec.classes:
        spellings.setdefault(name.casefold(), []).append(name)
    if alike := [" and ".join(map(repr, names)) for names in spellings.values() if len(names) > 1]:
        log.warning("labels: the classes %s differ in case alone. If they mean the same, spell them alike.", alike[0])


def labels_text(splits: LabelledSplits, label_spec: LabelSpec) -> str:
    """Return one line: the classes with their counts in each split, or the range of the training values."""
    if label_spec.targets:
        return several_text(splits, label_spec)
    if label_spec.matching:
        return "none; all pairs belong together"
    if not label_spec.of_classes:
        mean, deviation = mean_and_scale(splits.train, label_spec.per_residue)
        return f"values of the training split: mean {mean:.6g}, standard deviation {deviation:.6g}"
    parts = splits.parts()
    counts = np.stack([class_counts(part, list(label_spec.classes), label_spec.per_residue) for part in parts.values()])
    named = [
        f"{name} {' + '.join(f'{n:,}' for n in of)}" for name, of in zip(label_spec.classes, counts.T, strict=True)
    ]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    unit = "residues" if label_spec.per_residue else "sequences"
    return f"{', '.join(named[:_SHOWN])}{more} ({unit} in {' + '.join(parts)})"
