"""Characters to ids and back."""

import pytest

from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.errors import ConfigError
from bionemo_core.protocols import Tokenizer


def test_round_trip(tokenizer: CharacterTokenizer) -> None:
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.vocab_size == 30
    assert tokenizer.encode("LAX").tolist() == [5, 6, 25] == tokenizer.encode(b"LAX").tolist()
    assert tokenizer.decode([1, 5, 6, 4, 25, 2]) == "LAX"


def test_what_the_alphabet_lacks_is_unknown(tokenizer: CharacterTokenizer) -> None:
    assert tokenizer.encode("lJ-é蛋<").tolist() == [tokenizer.unk_id] * 6
    assert tokenizer.encode(b"\0\xff").tolist() == [tokenizer.unk_id] * 2


def test_bad_pieces_are_refused() -> None:
    ids = {"pad_id": 0, "bos_id": 0, "eos_id": 0, "unk_id": 0, "mask_id": 0}
    with pytest.raises(ConfigError, match="'A' occurs twice"):
        CharacterTokenizer(["<x>", "A", "A"], **ids)
    with pytest.raises(ConfigError, match="'AB'"):
        CharacterTokenizer(["<x>", "AB"], **ids)
    with pytest.raises(ConfigError, match="mask_id is 9"):
        CharacterTokenizer(["<x>", "A"], **{**ids, "mask_id": 9})
    with pytest.raises(ConfigError, match="id 7 has no piece"):
        CharacterTokenizer(["<x>", "A"], **ids).decode([7])
