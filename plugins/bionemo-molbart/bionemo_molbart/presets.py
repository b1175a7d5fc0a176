"""Factories of the family, one per kind; `plugin.py` gives the sizes.

No `from __future__ import annotations`, no return annotation and no torch at import: hydra-zen reads these
signatures as configurations.
"""

from pathlib import Path
from typing import Optional

from bionemo_core import configure
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import BuildContext, Tokenizer
from bionemo_core.ranges import Count, Share
from bionemo_molbart.sizes import LatentOptions, MaskingOptions, Shape, SpellingOptions


def smiles_vocabulary(
    vocab_file: Optional[str] = None,
    learn_from: Optional[str] = None,
    min_count: Count = 1,
):
    """Return the SMILES tokenizer: v1's expression, and v1's 523 tokens unless a file says otherwise.

    Args:
        vocab_file: a vocabulary, one piece per line in the order of the ids, such as v1's `megamolbart.vocab`.
        learn_from: a SMILES file to learn a vocabulary from; the most frequent tokens come first.
        min_count: with learn_from, leave out tokens that occur less often.

    Raises:
        ConfigError: both files are given, or a vocabulary lacks what it needs.
        DataError: a file cannot be read.
    """
    from bionemo_molbart.tokenizer import learned_tokenizer, molbart_tokenizer, smiles_of_file, tokenizer_from_file

    if vocab_file and learn_from:
        raise ConfigError("tokenizer.vocab_file and tokenizer.learn_from are both given. Keep one of them.")
    if vocab_file:
        return tokenizer_from_file(Path(vocab_file))
    if learn_from:
        return learned_tokenizer(smiles_of_file(Path(learn_from)), min_count)
    return molbart_tokenizer()


def sdf():
    """Return the reader of SD files."""
    from bionemo_molbart.readers.sdf import SdfReader

    return SdfReader()


def random_smiles(share: Share = 1.0, *, tokenizer: Tokenizer):
    """Spell molecules at random, in a share of the records of each pass.

    Args:
        share: the share of the records that are spelt at random; the others stay as they are stored.
    """
    from bionemo_molbart.augment import RandomSpelling

    return RandomSpelling(tokenizer, share)


def build_megamolbart(
    shape: Shape, spelling: SpellingOptions, masking: MaskingOptions, *, tokenizer: Tokenizer, context: BuildContext
):
    """Build MegaMolBART: an encoder-decoder that writes a molecule from masked SMILES.

    Raises:
        ConfigError: sizes do not divide, a word is unknown, or flags contradict each other.
    """
    from bionemo_molbart.model import megamolbart_network, trainable

    network = megamolbart_network(shape, tokenizer, context)
    return trainable(network, tokenizer, spelling, masking, shape.seq_length)


def build_molmim(
    shape: Shape,
    latent: LatentOptions,
    spelling: SpellingOptions,
    masking: MaskingOptions,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
):
    """Build MolMIM: a perceiver's latent becomes a Gaussian that the decoder writes the molecule from.

    The encoder reads at most `seq_length` - 2 tokens.

    Raises:
        ConfigError: sizes do not divide, a word is unknown, or flags contradict each other.
    """
    from bionemo_molbart.model import molmim_network, trainable

    network = molmim_network(shape, latent, tokenizer, context)
    return trainable(network, tokenizer, spelling, masking, shape.seq_length)


megamolbart = configure(build_megamolbart)
"""MegaMolBART as v1 released it: 6 + 6 layers, learned positions, tanh gelu, spans masked in random SMILES."""

molmim = configure(build_molmim, seq_length=128, tokens_head_bias=True, mode="canonicalized", encoder_mask=False)
"""MolMIM as v1 released it: 6 + 6 layers, one latent of the hidden size."""


def megamolbart_nemo():
    """Return the connector to v1's archives of MegaMolBART."""
    from bionemo_molbart.connector import MegaMolBartNemo

    return MegaMolBartNemo()


def molmim_nemo():
    """Return the connector to v1's archives of MolMIM."""
    from bionemo_molbart.connector import MolMimNemo

    return MolMimNemo()
