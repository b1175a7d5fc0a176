"""Which molecules are used: the rules that `prepare` applies to every record of a source."""

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from rdkit import Chem

from bionemo_core.data.downloads import hash_bytes
from bionemo_core.data.readers import Record, Source
from bionemo_core.data.sources.input_files import FileOptions
from bionemo_core.data.splits.labels import TABLES
from bionemo_core.data.store.residue_filter import FilterResult
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Tokenizer
from bionemo_molbart.molecules import (
    MOLECULE,
    RDKIT_VERSION,
    SCAFFOLD,
    Limit,
    canonical,
    largest_fragment,
    neutralised,
    parsed,
    property_limits,
    qed_limit,
    scaffold,
    serialised,
    why_not,
)
from bionemo_molbart.tokenizer import smiles_tokens

SMILES = "smiles"
"""The name of the format, and of the column in tables."""
TITLED = (SMILES, "sdf")
"""Formats whose records have names, which need not be ids."""
LIPINSKI_WEIGHT, LIPINSKI_LOGP, LIPINSKI_DONORS, LIPINSKI_ACCEPTORS = 500.0, 5.0, 5, 10
"""The rule of five (Lipinski et al. 1997)."""
_CHOICES = {
    "on_invalid": ("skip", "error"),
    "unknown_tokens": ("skip", "error", "unk"),
    "salts": ("keep", "strip", "reject"),
    "on_duplicate_id": ("drop", "error", "keep"),
}
_FIRST, _LAST = 0x21, 0x7E
_PRINTABLE = bytes(range(_FIRST, _LAST + 1))
_WHITE_SPACE = b" \t\r\n\f\v"


@dataclass(frozen=True)
class MoleculeOptions:
    """The user's options; the names are the keys of the data components."""

    canonicalize: bool = True
    on_invalid: str = "skip"
    unknown_tokens: str = "skip"
    salts: str = "keep"
    neutralize: bool = False
    max_smiles_length: int = 512
    min_length: int = 1
    max_length: int | None = None
    lipinski: bool = False
    max_weight: float | None = None
    max_logp: float | None = None
    min_qed: float | None = None
    deduplicate: bool = False
    on_duplicate_id: str = "drop"
    parsed: bool = False
    scaffolds: bool = False

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: one is out of its range.
        """
        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise ConfigError(f"data.{key}: {getattr(self, key)!r}, expected one of {', '.join(choices)}.")
        if self.max_smiles_length < 1 or self.min_length < 1:
            raise ConfigError(
                f"data.max_smiles_length {self.max_smiles_length} and data.min_length {self.min_length}: "
                "expected at least 1 character and 1 token."
            )
        if self.max_length is not None and self.max_length < self.min_length:
            raise ConfigError(f"data.max_length: {self.max_length} is below data.min_length {self.min_length}.")
        if self.min_qed is not None and not 0 <= self.min_qed <= 1:
            raise ConfigError(f"data.min_qed: {self.min_qed}, expected a number from 0 to 1.")


@dataclass(frozen=True)
class MoleculeFiles(FileOptions):
    """The options for reading files of molecules: like files of sequences, with the SMILES in a column of that name."""

    of_proteins = False

    def source(self, paths: list[Path], columns: tuple[str, ...] = ()) -> Source:
        """Return the reader of some files.

        Raises:
            ConfigError: the format or an option cannot be used.
        """
        name = self.detect_format(paths)
        if name not in TITLED and name not in TABLES:
            raise ConfigError(
                f"data.format: {name} files hold no molecules, expected {', '.join([*TITLED, *TABLES])}. "
                "Name other files, or their format with data.format."
            )
        if name in TABLES and self.column is None and self.data_col is None:
            return replace(self, column=SMILES).source(paths, columns)
        return super().source(paths, columns)


def filter_tokens(
    text: bytes, tokenizer: Tokenizer, options: MoleculeOptions, notes: tuple[str, ...] = ()
) -> FilterResult:
    """Filter a SMILES by its tokens: the tokenizer must know them, and their number must be within the limits."""
    ids = tokenizer.encode(text)
    if not options.min_length <= len(ids) <= (options.max_length or len(ids)):
        short = len(ids) < options.min_length
        limit = options.min_length if short else options.max_length
        return FilterResult((), f"{'shorter' if short else 'longer'} than {limit} tokens")
    unknown = ids == tokenizer.unk_id
    if not unknown.any():
        return FilterResult((text,), notes=notes)
    if options.unknown_tokens == "unk":
        return FilterResult((text,), notes=(*notes, "with unknown tokens, kept"))
    token = _token_at(text, int(unknown.argmax()))
    detail = f": {_shown(text)}: token {token!r} is not in the tokenizer's vocabulary."
    fatal = options.unknown_tokens == "error"
    advice = " Skip such molecules with data.unknown_tokens=skip." if fatal else ""
    return FilterResult((), "token outside the vocabulary", detail + advice, fatal=fatal)


@dataclass(frozen=True)
class TokenFilter:
    """The filter of SMILES that this plugin has written itself, which RDKit need not parse again."""

    tokenizer: Tokenizer
    options: MoleculeOptions

    @property
    def deduplicate(self) -> bool:
        """Whether one of several records with the same SMILES is kept."""
        return self.options.deduplicate

    def facts(self) -> dict[str, object]:
        """Return all options that decide what is stored."""
        return {"rules": "tokens", "vocabulary": _vocabulary(self.tokenizer), **_told(self.options)}

    def length(self, sequence: bytes) -> int:
        """Return the number of tokens of a stored SMILES."""
        return len(self.tokenizer.encode(sequence))

    def apply(self, record: Record) -> FilterResult:
        """Keep the SMILES as it is, or reject it with a reason."""
        if record.problem:
            return FilterResult((), record.problem)
        return filter_tokens(record.sequence, self.tokenizer, self.options)


@dataclass(frozen=True)
class MoleculeFilter:
    """The filter of SMILES for a tokenizer; satisfies `bionemo_core.data.store.residue_filter.RecordFilter`."""

    tokenizer: Tokenizer
    options: MoleculeOptions
    slow: ClassVar[bool] = True
    """RDKit takes longer over a molecule than sending it to another process does."""

    @property
    def deduplicate(self) -> bool:
        """Whether one of several records with the same stored SMILES is kept."""
        return self.options.deduplicate

    @property
    def on_duplicate_id(self) -> str:
        """The action for a record that repeats an earlier id: drop, error or keep."""
        return self.options.on_duplicate_id

    def facts(self) -> dict[str, object]:
        """Return all facts that decide what is stored: RDKit's version too, since canonical SMILES change with it."""
        return {
            "rules": "molecules",
            "rdkit": RDKIT_VERSION,
            "vocabulary": _vocabulary(self.tokenizer),
            **_told(self.options),
        }

    def length(self, sequence: bytes) -> int:
        """Return the number of tokens of a stored SMILES."""
        return len(self.tokenizer.encode(sequence))

    @property
    def derived(self) -> tuple[str, ...]:
        """The names of the columns stored beside a SMILES."""
        return ((MOLECULE,) if self.options.parsed else ()) + ((SCAFFOLD,) if self.options.scaffolds else ())

    def derive(self, sequence: bytes) -> tuple[bytes, ...]:
        """Return the molecule of a stored SMILES as RDKit serialises it, and its scaffold, as the options ask."""
        molecule = (serialised(sequence.decode("latin-1")),) if self.options.parsed else ()
        return molecule + ((scaffold(sequence),) if self.options.scaffolds else ())

    def apply(self, record: Record) -> FilterResult:
        """Return the SMILES to store, or the reason for rejecting it."""
        text = record.sequence.strip(_WHITE_SPACE)
        reason = record.problem or self._problem_with_text(text)
        if reason:
            return self._refused(reason, f": {_shown(text)}: {reason}.")
        molecule = parsed(text.decode())
        if molecule is None:
            return self._refused("invalid SMILES", f": {_shown(text)}: {why_not(text.decode())}.")
        if molecule.GetNumAtoms() == 0:
            return self._refused("no atoms", f": {_shown(text)}: no atoms.")
        return self._of_molecule(molecule, text)

    def _of_molecule(self, molecule: Chem.Mol, text: bytes) -> FilterResult:
        notes: tuple[str, ...] = ()
        if self.options.salts != "keep" and b"." in text:
            if self.options.salts == "reject":
                return FilterResult((), "several fragments")
            molecule, notes = largest_fragment(molecule), ("stripped to the largest fragment",)
        if self.options.neutralize:
            neutral = neutralised(molecule)
            if _charges(neutral) != _charges(molecule):
                molecule, notes = neutral, (*notes, "neutralized")
        elif notes and Chem.GetFormalCharge(molecule):
            notes = (*notes, "left with a charge (data.neutralize=true removes it)")
        if self.options.canonicalize or notes:
            text = canonical(molecule).encode()
        for passes in limits_of(self.options):
            if refusal := passes.refuses(molecule):
                return FilterResult((), refusal)
        return filter_tokens(text, self.tokenizer, self.options, notes)

    def _problem_with_text(self, text: bytes) -> str:
        """Why RDKit need not be asked: it takes some of this for a molecule, or for the start of one."""
        if not text:
            return "empty SMILES"
        if len(text) > self.options.max_smiles_length:
            return f"longer than {self.options.max_smiles_length} characters"
        strange = text.translate(None, _PRINTABLE)
        if strange.translate(None, _WHITE_SPACE):
            return "characters that are not ASCII"
        return "white space within the SMILES" if strange else ""

    def _refused(self, reason: str, detail: str) -> FilterResult:
        fatal = self.options.on_invalid == "error"
        advice = " Skip such records with data.on_invalid=skip." if fatal else ""
        return FilterResult((), reason, detail + advice, fatal=fatal)


@lru_cache(maxsize=8)
def limits_of(options: MoleculeOptions) -> tuple[Limit, ...]:
    """Return the limits on properties, cheap ones first; an explicit limit replaces that of Lipinski's rule."""
    five = options.lipinski
    limits = property_limits(
        LIPINSKI_WEIGHT if five and options.max_weight is None else options.max_weight,
        LIPINSKI_LOGP if five and options.max_logp is None else options.max_logp,
        LIPINSKI_DONORS if five else None,
        LIPINSKI_ACCEPTORS if five else None,
    )
    return limits if options.min_qed is None else (*limits, qed_limit(options.min_qed))


def _told(options: MoleculeOptions) -> dict[str, object]:
    """Return the options that decide what is stored of a molecule, for the fingerprint of the store."""
    told = {name: value for name, value in asdict(options).items() if name not in ("parsed", "scaffolds")}
    if not options.neutralize:
        del told["neutralize"]  # so that molecules that were prepared before it existed are found
    return told


def _charges(molecule: Chem.Mol) -> list[int]:
    return [atom.GetFormalCharge() for atom in molecule.GetAtoms()]


def _vocabulary(tokenizer: Tokenizer) -> str:
    return hash_bytes("\n".join(tokenizer.pieces).encode())


def _shown(text: bytes) -> str:
    return repr(text[:80].decode("latin-1"))


def _token_at(text: bytes, place: int) -> str:
    tokens = smiles_tokens(text)
    return tokens[place].decode() if place < len(tokens) else ""
