"""Warnings about prepared data that can be used, but are probably not what the user meant."""

import logging
from collections.abc import Mapping
from itertools import islice
from typing import Any

from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.data.store.residue_filter import NOT_IN_ALPHABET, NOT_IN_VOCABULARY, RecordFilter, ResidueFilter

log = logging.getLogger("bionemo")

_MANY_REPEATED = 0.02
"""Above this share of records with a repeated id, a warning says that the ids may not be ids."""

_MANY_UNREADABLE = 0.5
"""Above this share of records that the tokenizer cannot read, a warning says that it may be the wrong one."""

_NUCLEOTIDES = frozenset(b"ACGTUN")
_ONLY_OF_PROTEINS = frozenset("EFIKLPQ")
"""Amino acids whose letters stand for no nucleotide, not even an ambiguous one."""

_SEQUENCES_LOOKED_AT = 100
_LEAST_LETTERS = 100


def warn_of_implausible_data(store: PreparedStore, rules: RecordFilter) -> None:
    """Warn if many ids are repeated, if the tokenizer reads few records, or if a protein file looks like DNA."""
    _warn_of_repeated_ids(store.manifest)
    _warn_of_unreadable_records(store.manifest)
    _warn_of_nucleotides(store, rules)


def _warn_of_repeated_ids(manifest: Mapping[str, Any]) -> None:
    records = manifest["records"]
    repeated = records["rejected"].get("duplicate id", 0)
    if repeated > _MANY_REPEATED * records["read"]:
        log.warning(
            "%s: %d of %d records repeat the id of an earlier one and were rejected. If these are labels and not "
            "ids, keep the records with data.on_duplicate_id=keep.",
            manifest["sources"][0]["name"],
            repeated,
            records["read"],
        )


def _warn_of_unreadable_records(manifest: Mapping[str, Any]) -> None:
    records = manifest["records"]
    unreadable = sum(records["rejected"].get(reason, 0) for reason in (NOT_IN_ALPHABET, NOT_IN_VOCABULARY))
    if unreadable > _MANY_UNREADABLE * records["read"]:
        log.warning(
            "%s: the tokenizer cannot read %d of %d records, which were rejected. Check that the tokenizer suits the "
            "file: proteins need one of residues, molecules one of SMILES.",
            manifest["sources"][0]["name"],
            unreadable,
            records["read"],
        )


def _warn_of_nucleotides(store: PreparedStore, rules: RecordFilter) -> None:
    if not isinstance(rules, ResidueFilter) or not set(rules.alphabet) >= _ONLY_OF_PROTEINS:
        return
    looked_at = [store[row] for row in islice(range(len(store)), _SEQUENCES_LOOKED_AT)]
    if sum(map(len, looked_at)) >= _LEAST_LETTERS and all(set(one.upper()) <= _NUCLEOTIDES for one in looked_at):
        log.warning(
            "%s: the first %d sequences have no other letters than A, C, G, T, U and N, as DNA and RNA do. The "
            "tokenizer reads each letter as an amino acid. For a model of proteins, translate the sequences first.",
            store.manifest["sources"][0]["name"],
            len(looked_at),
        )
