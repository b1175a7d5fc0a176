"""Which spelling of a molecule the encoder reads and which the decoder writes: v1's flags, and names for four of them.

| mode | encoder reads | decoder writes |
|---|---|---|
| `canonicalized` (MolMIM as released) | canonical | canonical |
| `equivariant` (MegaMolBART as released) | random | the same |
| `invariant` | random | canonical |
| `independent` | random | another random one |

`RandomSpelling` is the augmentation `random_smiles`, which spells the molecules of any data at random.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Tokenizer
from bionemo_molbart.molecules import parsed_before, randomised

TRIES = 4
MAX_SEED = 2**31 - 1


def slack(num_tokens: NDArray[np.integer] | int) -> NDArray[np.integer] | int:
    """Return by how many tokens a random spelling may be longer than the record's own.

    Packs are planned before anything is drawn, so the length of what is drawn needs a bound. A random spelling of a
    ZINC molecule has 2 tokens more on average; one in twenty exceeds this bound and is drawn again, and one molecule
    in seven hundred keeps its own spelling because none of a few fits.
    """
    return 4 + num_tokens // 24


@dataclass(frozen=True)
class Spelling:
    """v1's flags under v1's names."""

    canonicalize_encoder_input: bool
    canonicalize_decoder_output: bool
    encoder_augment: bool
    decoder_independent_augment: bool
    canonicalize_target_smile: bool = False
    """Canonicalise each record as it is loaded. `smiles` and `zinc15` do so when data are prepared, once."""
    augmentation_prob: float = 1.0
    """The probability that what is to be random is; else both sides get the record as it is."""

    def __post_init__(self) -> None:
        """Check that the flags agree.

        Raises:
            ConfigError: the decoder is asked for a canonical and a random spelling, or the encoder is, or a
                probability is none or would have no effect.
        """
        if not 0 <= self.augmentation_prob <= 1:
            raise ConfigError(
                f"model.augmentation_prob: {self.augmentation_prob} is not a share. Give a number from 0 to 1."
            )
        if self.augmentation_prob < 1 and not self.random:
            raise ConfigError(
                f"model.augmentation_prob={self.augmentation_prob} has no effect where nothing is spelt at random: "
                "choose model.mode=equivariant, invariant or independent, or leave it out."
            )
        pairs = (
            ("canonicalize_decoder_output", "decoder_independent_augment"),
            ("canonicalize_encoder_input", "encoder_augment"),
        )
        for canonical, random in pairs:
            if getattr(self, canonical) and getattr(self, random):
                raise ConfigError(
                    f"model.{canonical} and model.{random} are both true: a spelling is canonical or random. "
                    f"Set one to false, or choose model.mode={'|'.join(MODES)}."
                )

    @property
    def random(self) -> bool:
        """Whether a spelling is drawn for either side."""
        return self.encoder_augment or self.decoder_independent_augment

    @property
    def random_target(self) -> bool:
        """Whether the decoder writes a random spelling."""
        if self.canonicalize_decoder_output:
            return False
        return self.random


MODES: Mapping[str, Spelling] = {
    "canonicalized": Spelling(True, True, False, False),
    "equivariant": Spelling(False, False, True, False),
    "invariant": Spelling(False, True, True, False),
    "independent": Spelling(False, False, True, True),
}


def find_spelling(mode: str, augmentation_prob: float = 1.0, **flags: bool | None) -> Spelling:
    """Return the spelling of a mode, changed by those of v1's flags that are not None.

    Raises:
        ConfigError: there is no such mode, the flags contradict each other, or the probability is none.
    """
    if mode not in MODES:
        raise ConfigError(f"model.mode: {mode!r}, expected one of {', '.join(MODES)}.")
    given = {name: value for name, value in flags.items() if value is not None}
    return replace(MODES[mode], augmentation_prob=augmentation_prob, **given)


class RandomSpelling:
    """A random spelling of a molecule, or of several that are joined by dots; any other text stays as it is."""

    def __init__(self, tokenizer: Tokenizer, share: float) -> None:
        """Take the tokenizer, which measures the spellings, and the share of the records to change."""
        self.tokenizer = tokenizer
        self.share = share

    def longest(self, length: int) -> int:
        """Return the most tokens of a spelling of a record of `length` tokens."""
        return length + int(slack(length))

    def __call__(self, record: bytes, draw: RecordRng) -> bytes:
        """Return the record for this pass: the first of a few spellings that is not too long, or its own spelling."""
        if draw.uniform(1)[0] >= self.share:
            return record
        molecule = parsed_before(record.decode("latin-1"))
        if molecule is None:
            return record
        bound = self.longest(len(self.tokenizer.encode(record)))
        for seed in draw.integers(TRIES, MAX_SEED).tolist():
            made = randomised(molecule, seed).encode()
            ids = self.tokenizer.encode(made)
            if len(ids) <= bound and not (ids == self.tokenizer.unk_id).any():
                return made
        return record
