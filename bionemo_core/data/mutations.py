"""Variants of a protein: substitutions, insertions and deletions, in the notations that tables use.

Notations: `A24G` and `A24G:K30R` (ProteinGym), `p.Lys24Ala`, `p.K24A`, `p.Lys24del`, `p.Lys24_Met26del`,
`p.Lys24_Met25insGln`, `p.Lys24delinsGlnGln`, `p.Lys24dup`, `p.Lys24=` (HGVS), several as `p.[Lys24Ala;Thr30Val]`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from bionemo_core.errors import DataError

THREE_LETTERS = {
    **{"ALA": "A", "CYS": "C", "ASP": "D", "GLU": "E", "PHE": "F", "GLY": "G", "HIS": "H", "ILE": "I", "LYS": "K"},
    **{"LEU": "L", "MET": "M", "ASN": "N", "PRO": "P", "GLN": "Q", "ARG": "R", "SER": "S", "THR": "T", "VAL": "V"},
    **{"TRP": "W", "TYR": "Y", "SEC": "U", "PYL": "O", "ASX": "B", "GLX": "Z", "XAA": "X", "XLE": "J"},
}
"""The one-letter code of each three-letter code."""

_RESIDUE = r"[A-Za-z]{3}|[A-Za-z]"
_CHANGE = re.compile(
    rf"(?P<first>{_RESIDUE})(?P<start>\d+)(?:_(?P<last>{_RESIDUE})(?P<end>\d+))?"
    rf"(?:(?P<kind>delins|del|dup|ins)(?P<new>[A-Za-z]*)|(?P<same>=)|(?P<to>{_RESIDUE}))"
)
_STOP = re.compile(r"\*|Ter|fs|ext")
_PREFIX = re.compile(r"(?:(?<=^)|(?<=[:;,/\s\[]))(?:[A-Za-z0-9_.\-]*\d:)?p\.")
"""`p.`, after the accession of a protein, which unlike a change ends with a digit."""


class Mutation(NamedTuple):
    """The replacement of residues by others: a substitution, an insertion or a deletion."""

    wild_type: str
    """The residues that are replaced; empty: an insertion."""
    position: int
    """Position of the first of them in the wild type, from 0; residues are inserted before it."""
    mutant: str
    """The residues that take their place; empty: a deletion."""

    @property
    def is_substitution(self) -> bool:
        """Whether the length stays, with one residue for one."""
        return len(self.wild_type) == len(self.mutant) == 1

    @property
    def end(self) -> int:
        """The position after the last replaced residue."""
        return self.position + len(self.wild_type)


def read_variant(text: str, wild_type: str, first_position: int = 1) -> list[Mutation]:
    """Parse a variant such as `A24G`, `A24G:K30R` or `p.Lys24del`; the wild type (`WT`, `p.=`) has no mutations.

    Raises:
        DataError: the text cannot be parsed, or does not fit the wild type.
    """
    bare = _PREFIX.sub("", text.strip())
    if bare.upper() in ("WT", "_WT", "=", "(=)", "[=]"):
        return []
    if not bare:
        raise DataError(f"variant {text!r}: is empty, expected mutations such as A24G, or WT for the wild type itself.")
    if re.search(r"\]\s*;\s*\[", bare):
        raise DataError(f"variant {text!r}: names two alleles. Give each protein a row of its own.")
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    reader = _Reader(text, wild_type, first_position)
    mutations = [one for word in re.split(r"[:,;/\s]+", bare) for one in reader.read(word)]
    reader.check_apart(mutations)
    return mutations


class _Reader(NamedTuple):
    """What the changes of one variant are read against."""

    text: str
    wild_type: str
    first_position: int

    def read(self, word: str) -> list[Mutation]:
        """Parse one change; one that changes nothing is none.

        Raises:
            DataError: it cannot be parsed, or does not fit the wild type.
        """
        plain = word[1:-1] if word.startswith("(") and word.endswith(")") else word
        found = _CHANGE.fullmatch(plain)
        if found is None or (found["last"] and not found["kind"]):
            raise self._error(word)
        start = self._place(word, found["first"], found["start"])
        last = self._place(word, found["last"], found["end"]) if found["last"] else start
        replaced, kind = self.wild_type[start : last + 1], found["kind"]
        if last < start:
            raise self._error(word)
        if found["same"]:
            return []
        if kind is None:
            return [Mutation(replaced, start, self._residue(word, found["to"]))]
        new = self._residues(word, found["new"])
        if bool(new) != (kind in ("ins", "delins")) or (kind == "ins" and last != start + 1):
            raise self._error(word)
        return {
            "del": [Mutation(replaced, start, "")],
            "dup": [Mutation("", last + 1, replaced)],
            "ins": [Mutation("", last, new)],
            "delins": [Mutation(replaced, start, new)],
        }[kind]

    def check_apart(self, mutations: Sequence[Mutation]) -> None:
        """Check that no residue is changed twice.

        Raises:
            DataError: one is.
        """
        ordered = sorted(mutations, key=lambda one: (one.position, one.end))
        for before, after in itertools.pairwise(ordered):
            both_inserted = before.position == before.end == after.position == after.end
            if after.position < before.end or both_inserted:
                number = after.position + self.first_position
                raise DataError(f"variant {self.text!r}: position {number} is mutated twice.")

    def _place(self, word: str, residue: str, number: str) -> int:
        position, letter = int(number) - self.first_position, self._residue(word, residue)
        if not 0 <= position < len(self.wild_type):
            last = self.first_position + len(self.wild_type) - 1
            raise DataError(f"variant {self.text!r}: position {number} is not within {self.first_position} to {last}.")
        if self.wild_type[position] != letter:
            start = self.first_position
            advice = (
                "If the numbering does not start at 1, set task.first_position."
                if start == 1
                else f"Its first residue has the number task.first_position={start}. Check that, and task.wild_type."
            )
            raise DataError(
                f"variant {self.text!r}: the wild type has {self.wild_type[position]} at position {number}, not "
                f"{letter}. {advice}"
            )
        return position

    def _residue(self, word: str, code: str) -> str:
        letter = code.upper() if len(code) == 1 else THREE_LETTERS.get(code.upper())
        if letter is None:
            raise self._error(word)
        return letter

    def _residues(self, word: str, codes: str) -> str:
        """Read `GlnAla` as three-letter codes, and anything else, such as `QA` or `ALA`, as one-letter codes."""
        if re.fullmatch(r"(?:[A-Z][a-z]{2})+", codes):
            return "".join(self._residue(word, codes[at : at + 3]) for at in range(0, len(codes), 3))
        return codes.upper()

    def _error(self, word: str) -> DataError:
        if _STOP.search(word):
            return DataError(f"variant {self.text!r}: {word!r} ends or shifts the protein, which has no likelihood.")
        return DataError(
            f"variant {self.text!r}: cannot read {word!r}, expected mutations such as A24G, A24G:K30R or p.Lys24del."
        )


def compare(mutated: str, wild_type: str) -> list[Mutation]:
    """Return what makes `mutated` of the wild type: substitutions, or one change of a stretch if lengths differ."""
    if len(mutated) == len(wild_type):
        pairs = enumerate(zip(wild_type, mutated, strict=True))
        return [Mutation(before, position, after) for position, (before, after) in pairs if before != after]
    shorter = min(len(mutated), len(wild_type))
    head = next((i for i in range(shorter) if mutated[i] != wild_type[i]), shorter)
    rest = shorter - head
    tail = next((i for i in range(rest) if mutated[-1 - i] != wild_type[-1 - i]), rest)
    return [Mutation(wild_type[head : len(wild_type) - tail], head, mutated[head : len(mutated) - tail])]


def mutate(wild_type: str, mutations: Sequence[Mutation]) -> str:
    """Return the sequence with the mutations."""
    result = wild_type
    for one in sorted(mutations, key=lambda one: (one.position, one.end), reverse=True):
        result = result[: one.position] + one.mutant + result[one.end :]
    return result
