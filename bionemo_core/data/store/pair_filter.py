"""The filter of pairs: both texts must be valid; reactions are taken apart into a source and a target first."""

import re
from dataclasses import dataclass

from bionemo_core.data.pair_records import PAIR_SEPARATOR, SOURCE_TOKENS, split_pair
from bionemo_core.data.readers.records import Record
from bionemo_core.data.store.residue_filter import FilterResult, RecordFilter
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Tokenizer

BACKWARD, FORWARD = DIRECTIONS = ("backward", "forward")
"""From the product to the reactants (retrosynthesis), and from the reactants to the product."""
_ATOM_MAP = re.compile(rb":\d+(?=\])")
_EXTENSION = "CXSMILES extension left out"


def strip_atom_maps(smiles: bytes) -> bytes:
    """Return a SMILES without atom maps: `[CH3:1]` becomes `[CH3]`, which a canonical form writes as `C`."""
    return _ATOM_MAP.sub(b"", smiles)


@dataclass(frozen=True)
class ReactionForm:
    """How reaction SMILES, `reactants>reagents>product`, become pairs."""

    direction: str = BACKWARD
    reagents: bool = False
    """Whether the source of a forward pair has the reagents too, after the reactants."""

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: the direction is unknown, or the reagents have no place.
        """
        if self.direction not in DIRECTIONS:
            raise ConfigError(f"data.direction: {self.direction!r}, expected one of {', '.join(DIRECTIONS)}.")
        if self.reagents and self.direction == BACKWARD:
            raise ConfigError(
                "data.reagents=true: with data.direction=backward the source is the product alone. Leave it out, or "
                "set data.direction=forward."
            )

    def sides(self, reaction: bytes) -> tuple[bytes, bytes] | None:
        """Return the source and the target, or None if the text has not the form of a reaction."""
        parts = reaction.split(b">")
        if len(parts) != 3:
            return None
        reactants, reagents, product = parts
        if self.direction == BACKWARD:
            return product, reactants
        return (b".".join(side for side in (reactants, reagents) if side) if self.reagents else reactants), product


@dataclass(frozen=True)
class PairFilter:
    """The filter of pairs for a tokenizer; satisfies `bionemo_core.data.store.residue_filter.RecordFilter`."""

    tokenizer: Tokenizer
    text: RecordFilter
    """The rules for each of the two texts."""
    on_invalid: str = "skip"
    reaction: ReactionForm | None = None
    """How to take records apart that are reactions; None: they are joined pairs."""
    max_length: int | None = None
    deduplicate: bool = False
    on_duplicate_id: str = "drop"

    derived = (SOURCE_TOKENS,)

    @property
    def slow(self) -> bool:
        """Return whether filtering in other processes pays off."""
        return bool(getattr(self.text, "slow", False))

    def facts(self) -> dict[str, object]:
        """Return everything that decides what is stored."""
        form = self.reaction
        return {
            "rules": "pairs",
            "text": self.text.facts(),
            "reaction": None if form is None else [form.direction, form.reagents],
            "max_length": self.max_length,
            "deduplicate": self.deduplicate,
            "on_duplicate_id": self.on_duplicate_id,
        }

    def length(self, sequence: bytes) -> int:
        """Return the tokens of both texts of a stored pair."""
        return sum(len(self.tokenizer.encode(side)) for side in split_pair(sequence))

    def derive(self, sequence: bytes) -> tuple[bytes, ...]:
        """Return the number of tokens of the source."""
        return (b"%d" % len(self.tokenizer.encode(split_pair(sequence)[0])),)

    def apply(self, record: Record) -> FilterResult:
        """Return the pair to store, or the reason for rejecting it."""
        if record.problem:
            return FilterResult((), record.problem)
        notes: tuple[str, ...] = ()
        if self.reaction is None:
            sides = split_pair(record.sequence)
        else:
            text, *extension = record.sequence.split(None, 1)[:2] or [b""]
            if extension and not extension[0].startswith(b"|"):
                return self._refuse("white space within the reaction", record.sequence)
            notes = (_EXTENSION,) if extension else ()
            found = self.reaction.sides(text)
            if found is None:
                return self._refuse("no reaction, expected reactants>reagents>product", record.sequence)
            sides = found
        return self._join(sides, record, notes)

    def _join(self, sides: tuple[bytes, bytes], record: Record, notes: tuple[str, ...]) -> FilterResult:
        kept: list[bytes] = []
        for name, side in zip(("source", "target"), sides, strict=True):
            if not side:
                return self._refuse(f"empty {name}", record.sequence)
            text = strip_atom_maps(side) if self._reads_molecules else side
            result = self.text.apply(record._replace(sequence=text, columns=()))
            if not result.sequences:
                return result._replace(reason=f"{name}: {result.reason}")
            kept += result.sequences
            notes = (*notes, *(f"{name}: {note}" for note in result.notes))
            if self.max_length is not None and len(self.tokenizer.encode(kept[-1])) > self.max_length:
                return FilterResult((), f"{name} longer than {self.max_length} tokens")
        return FilterResult((PAIR_SEPARATOR.join(kept),), notes=notes)

    @property
    def _reads_molecules(self) -> bool:
        return self.reaction is not None or hasattr(self.tokenizer, "canonical")

    def _refuse(self, reason: str, text: bytes) -> FilterResult:
        fatal = self.on_invalid == "error"
        advice = " Skip such records with data.on_invalid=skip." if fatal else ""
        return FilterResult((), reason, f": {text[:80].decode('latin-1')!r}: {reason}.{advice}", fatal=fatal)
