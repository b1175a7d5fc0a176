"""The residue alphabet of ProtT5nv with its sentinels."""

from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import InputForm, Tokenizer

# ProtT5nv (BioNeMo v1): the SentencePiece pieces by id, those of ESM-1nv; residues by falling frequency in UniRef50.
PROTT5NV_PIECES = ("<unk>", "<s>", "</s>", "<pad>", "<mask>", *"LASGVERTDIPKNFQYHMCWXBZUO")

# ProtT5 (Elnaggar et al. 2022), as Hugging Face ships it; its sentinels follow, the first one last.
PROTT5_PIECES = ("<pad>", "</s>", "<unk>", *"ALGVSREDTIPKFQNYMHWCXBOUZ")
NUM_PROTT5_SENTINELS = 100


class ProtT5Tokenizer(CharacterTokenizer):
    """ProtT5's alphabet, with the form of its published recipe: U, Z, O and B are read as X, and EOS ends the text."""

    input_form = InputForm(eos=True, replaced="UZOB", replacement="X")


def prott5_tokenizer() -> CharacterTokenizer:
    """Return the 128 tokens of ProtT5; its decoder starts with the padding, and a mask is its first sentinel."""
    sentinels = [sentinel_piece(number) for number in reversed(range(NUM_PROTT5_SENTINELS))]
    pieces = (*PROTT5_PIECES, *sentinels)
    return ProtT5Tokenizer(pieces, pad_id=0, eos_id=1, unk_id=2, bos_id=0, mask_id=len(pieces) - 1)


def prott5nv_tokenizer(num_sentinel_tokens: int = 96) -> CharacterTokenizer:
    """Return the 30 pieces of ProtT5nv and, from id 30 on, its sentinels.

    Raises:
        ConfigError: there is to be no sentinel.
    """
    if num_sentinel_tokens < 1:
        raise ConfigError(f"tokenizer.num_sentinel_tokens: got {num_sentinel_tokens}, expected 1 or more.")
    sentinels = (sentinel_piece(number) for number in range(num_sentinel_tokens))
    return CharacterTokenizer((*PROTT5NV_PIECES, *sentinels), unk_id=0, bos_id=1, eos_id=2, pad_id=3, mask_id=4)


def sentinel_piece(number: int) -> str:
    """Return the text of T5's sentinel of this number."""
    return f"<extra_id_{number}>"


def sentinel_ids(tokenizer: Tokenizer) -> list[int]:
    """Return the ids of a tokenizer's sentinels, by their number."""
    places = {piece: i for i, piece in enumerate(tokenizer.pieces)}
    ids: list[int] = []
    while (piece := sentinel_piece(len(ids))) in places:
        ids.append(places[piece])
    return ids
