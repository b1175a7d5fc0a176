"""The residue alphabets of the family, in the order of their published ids."""

from collections.abc import Sequence

from bionemo_core.data.tokenizer import CharacterTokenizer, add_tokens

# ESM-1nv (BioNeMo v1): the SentencePiece pieces by id; residues by falling frequency in UniRef50.
ESM1NV_PIECES = ("<unk>", "<s>", "</s>", "<pad>", "<mask>", *"LASGVERTDIPKNFQYHMCWXBZUO")

# ESM-1b and ESM-2 (fair-esm's alphabet, as Hugging Face ships it).
ESM2_PIECES = ("<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>")

# ESM C: ESM-2's, with a sign between chains; its tables have rows for 31 tokens that nothing uses.
ESMC_PIECES = (*ESM2_PIECES[:31], "|", "<mask>", *(f"<unused_{row}>" for row in range(33, 64)))


def esm1nv_tokenizer(extra_tokens: Sequence[str] | None = None) -> CharacterTokenizer:
    """Return the 30 pieces of ESM-1nv and ProtT5nv, and after them those that a user adds."""
    return CharacterTokenizer(
        add_tokens(ESM1NV_PIECES, extra_tokens), unk_id=0, bos_id=1, eos_id=2, pad_id=3, mask_id=4
    )


def esm2_tokenizer(extra_tokens: Sequence[str] | None = None) -> CharacterTokenizer:
    """Return the 33 tokens of ESM-1b and ESM-2, and after them those that a user adds."""
    return CharacterTokenizer(add_tokens(ESM2_PIECES, extra_tokens), bos_id=0, pad_id=1, eos_id=2, unk_id=3, mask_id=32)


def esmc_tokenizer(extra_tokens: Sequence[str] | None = None) -> CharacterTokenizer:
    """Return the 64 tokens of ESM C, 31 of them unused, and after them those that a user adds."""
    return CharacterTokenizer(add_tokens(ESMC_PIECES, extra_tokens), bos_id=0, pad_id=1, eos_id=2, unk_id=3, mask_id=32)
