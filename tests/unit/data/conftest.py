"""A tokenizer, an objective and a home folder for the tests of data."""

from pathlib import Path

import pytest

from bionemo_core.data.batches.masking import MaskedLanguageObjective
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.protocols import BuildContext

PIECES = ["<unk>", "<s>", "</s>", "<pad>", "<mask>", *"LASGVERTDIPKNFQYHMCWXBZUO"]


@pytest.fixture(scope="session")
def tokenizer() -> CharacterTokenizer:
    return CharacterTokenizer(PIECES, pad_id=3, bos_id=1, eos_id=2, unk_id=0, mask_id=4)


@pytest.fixture(scope="session")
def objective(tokenizer: CharacterTokenizer) -> MaskedLanguageObjective:
    return MaskedLanguageObjective(
        mask_id=tokenizer.mask_id, special_ids=tokenizer.special_ids, vocab_size=tokenizer.vocab_size
    )


@pytest.fixture
def context(tmp_path: Path) -> BuildContext:
    return BuildContext(home=str(tmp_path / "home"))
