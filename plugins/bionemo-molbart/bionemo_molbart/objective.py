"""The objective of molecules: from the SMILES of a record to the tokens of encoder and decoder."""

import numpy as np
from numpy.typing import NDArray
from rdkit.Chem import Mol

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.store.record_store import StoredSequence
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.protocols import Seq2SeqExample, Tokenizer
from bionemo_molbart.augment import MAX_SEED, TRIES, Spelling, slack
from bionemo_molbart.molecules import MOLECULE, canonical, parsed_before, randomised, restored
from bionemo_molbart.sizes import AS_PAIRS, OF_OBJECTIVE
from bionemo_molbart.spans import SpanMasking

ENDS = 2
"""Positions that BOS and EOS take of `seq_length`; the encoder goes without, but keeps to the same limit, as in v1."""


class MoleculeObjective:
    """The objective that makes pairs of sequences from SMILES; pure, numpy and RDKit only, runs in loader workers.

    The encoder gets the tokens without BOS and EOS, spans masked if asked; the decoder gets BOS and the tokens, and
    is asked for the tokens and EOS, never masked.
    """

    own_keys = OF_OBJECTIVE
    values_of_pairs = AS_PAIRS

    def __init__(
        self, tokenizer: Tokenizer, spelling: Spelling, *, seq_length: int, masking: SpanMasking | None = None
    ) -> None:
        """Take what decides the examples.

        Raises:
            ConfigError: `seq_length` leaves no room for a molecule.
        """
        if seq_length <= ENDS:
            raise ConfigError(f"model.seq_length: {seq_length}, expected more than the {ENDS} of BOS and EOS.")
        self.tokenizer = tokenizer
        self.spelling = spelling
        self.masking = masking
        self.max_tokens = seq_length - ENDS  # longer molecules are cut; `data.batches.cuts` counts them
        self.target_length = seq_length
        self.redrawn = 0
        """Random spellings drawn again because they were too long, in this process."""
        self.kept = 0
        """Records that kept their own spelling because none that was drawn fits, in this process."""
        self._bos = np.array([tokenizer.bos_id], dtype=np.int32)
        self._eos = np.array([tokenizer.eos_id], dtype=np.int32)

    def laid_lengths(self, lengths: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return upper bounds of source and target tokens for records of `lengths` tokens, shape [records] each."""
        own = np.minimum(lengths, self.max_tokens).astype(np.int64)
        longer = np.minimum(own + slack(own), self.max_tokens)
        may_change = self.spelling.encoder_augment or self.spelling.canonicalize_target_smile
        source = longer if may_change or self.masking else own
        target = longer if self.spelling.random_target or self.spelling.canonicalize_target_smile else own
        return source, target + 1

    def record_example(self, record: str | bytes, draw: RecordRng) -> Seq2SeqExample:
        """Return the example of one record; every random choice comes from `draw`.

        Raises:
            DataError: the record is empty, or has to be spelt anew and is no molecule.
        """
        text = record if isinstance(record, str) else record.decode("latin-1")
        own = self.tokenizer.encode(text)
        if not own.size:
            raise DataError("data: a record is empty, expected a SMILES. Leave such records out of the dataset.")
        source, target = self._spelt(record, text, own, draw)
        source = source[: self.max_tokens]
        if self.masking is not None:
            masked = self.masking(source, draw)
            # Inserted masks may outgrow the bound, once in some thousand molecules.
            source = masked if len(masked) <= self._bound(len(own)) else source
        # Of a molecule that is cut, the answer to the last token is the one that follows, not an end that is none.
        labels = np.concatenate((target, self._eos))[: self.max_tokens + 1]
        decoder_input = np.concatenate((self._bos, target[: self.max_tokens]))
        return Seq2SeqExample(source, decoder_input, labels, np.ones(len(labels), dtype=np.bool_))

    def _bound(self, num_tokens: int) -> int:
        own = min(num_tokens, self.max_tokens)
        return min(own + int(slack(own)), self.max_tokens)

    def _spelt(
        self, record: str | bytes, text: str, own: NDArray[np.int32], draw: RecordRng
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the ids that the encoder reads and those that the decoder writes."""
        how = self.spelling
        random = how.random and (how.augmentation_prob == 1 or draw.uniform(1)[0] < how.augmentation_prob)
        if not (random or how.canonicalize_target_smile):
            return own, own
        molecule = _molecule(record, text)
        if molecule is None:
            raise DataError(
                f"data: record {text[:80]!r} is not the SMILES of a molecule, so it has no other spelling. Prepare the "
                "records with data=smiles, which rejects such records, or set model.mode=canonicalized."
            )
        bound = self._bound(len(own))
        standard = own
        if how.canonicalize_target_smile:
            standard = self.tokenizer.encode(canonical(molecule))
            if len(standard) > bound:
                self.kept += 1
                standard = own
        source = self._drawn(molecule, own, bound, draw) if random and how.encoder_augment else standard
        if how.canonicalize_decoder_output:
            return source, standard
        if random and how.decoder_independent_augment:
            return source, self._drawn(molecule, own, bound, draw)
        return source, source

    def _drawn(self, molecule: Mol, own: NDArray[np.int32], bound: int, draw: RecordRng) -> NDArray[np.int32]:
        """Return the first of a few random spellings that is within the bound, or the record's own spelling."""
        tries = TRIES if len(own) <= self.max_tokens else 0
        for seed in draw.integers(TRIES, MAX_SEED)[:tries].tolist():
            ids = self.tokenizer.encode(randomised(molecule, seed))
            if len(ids) <= bound:
                return ids
            self.redrawn += 1
        self.kept += 1
        return own


def _molecule(record: str | bytes, text: str) -> Mol | None:
    """Return the molecule stored with the record, else the parsed text; both give the same random spellings."""
    kept = record.derived.get(MOLECULE) if isinstance(record, StoredSequence) else None
    return parsed_before(text) if kept is None else restored(kept)
