"""A labelled sequence that is too long is left out, refused, or cut together with its labels, and that is said."""

import numpy as np
import pytest

from bionemo_core.data.labelled_records import LabelledRecords, LabelledSplits
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.finetuning.label_spec import LabelSpec
from bionemo_core.finetuning.long_sequences import check_on_long, shorten

presets = pytest.importorskip("bionemo_esm.presets")
LETTERS, NUMBERS = LabelSpec("token_classification"), LabelSpec("token_regression")


@pytest.fixture(scope="module")
def tokenizer():
    return presets.esm1nv_alphabet()


def splits(label: str, mask: str = "") -> LabelledSplits:
    rows = [("a", b"MKTAYIAKQR", label, mask), ("b", b"GS", "1", "")]
    return LabelledSplits.from_parts(LabelledRecords.of(rows, "here"), None, None)


def test_they_are_left_out_or_refused(tokenizer):
    given = splits("1")
    answers = LabelSpec("sequence_regression")
    assert shorten(given, 4, "skip", tokenizer, answers).train.ids == ("b",)
    with pytest.raises(DataError, match=r"train: 1 of 2 sequences have more than 4 tokens: 'a'. .*on_long=truncate"):
        shorten(given, 4, "error", tokenizer, answers)
    with pytest.raises(ConfigError, match="expected one of skip, error, truncate, window"):
        check_on_long("cut", True)
    with pytest.raises(ConfigError, match="needs labels for residues"):
        check_on_long("window", False)


def test_labels_and_masks_are_cut_too(tokenizer, caplog):
    with caplog.at_level("WARNING", logger="bionemo"):
        cut = shorten(splits("HHHHCCCCEE", "1101111111"), 4, "truncate", tokenizer, LETTERS).train
    assert (cut[0].id, cut[0].sequence, cut[0].label, cut[0].mask) == ("a", b"MKTA", "HHHH", "1101")
    assert (cut[1].sequence, cut[1].label) == (b"GS", "1")
    assert "train: 1 of 2 sequences have more than 4 tokens and are truncated" in caplog.text
    numbers = " ".join(map(str, range(10)))
    assert shorten(splits(numbers), 4, "truncate", tokenizer, NUMBERS).train[0].label == "0 1 2 3"
    assert shorten(splits("7"), 4, "truncate", tokenizer, LabelSpec("sequence_regression")).train[0].label == "7"


def test_windows_cover_every_residue_once(tokenizer, caplog):
    with caplog.at_level("WARNING", logger="bionemo"):
        cut = shorten(splits("HHHHCCCCEE"), 4, "window", tokenizer, LETTERS).train
    assert [(r.id, r.sequence, r.label, r.mask) for r in (cut[0], cut[1], cut[2])] == [
        ("a/1", b"MKTA", "HHHH", "1111"),
        ("a/2", b"YIAK", "CCCC", "1111"),
        ("a/3", b"AKQR", "CCEE", "0011"),
    ]
    assert cut.ids[3] == "b" and cut.indices.tolist() == [0, 1, 2, 3]
    assert "are cut into windows" in caplog.text
    assert np.array([r.count("1") for r in cut.masks[:3]]).sum() == 10
