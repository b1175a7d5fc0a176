"""Sequences that are longer than an objective reads are counted, as many as are cut in fact."""

from types import SimpleNamespace

import numpy as np
import pytest

from bionemo_core.config.schema import Choice
from bionemo_core.data.batches.cuts import count_cuts
from bionemo_core.data.batches.loader import add_bos_eos
from bionemo_core.data.tokenizer import CharacterTokenizer
from bionemo_core.protocols import DataSplits
from bionemo_core.runs.plan_text import cut_lines

SEQ_LENGTH = 12
MASKED = SimpleNamespace(example=None)


class Texts(list):
    """A dataset of sequences."""

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(text) for text in self], dtype=np.int32)


TEXTS = Texts("M" * number for number in (3, 9, 10, 11, 12, 20))


def test_what_is_counted_is_what_the_loader_cuts():
    pieces = ["<unk>", "<pad>", "<mask>", "<cls>", "<eos>", "M"]
    tokenizer = CharacterTokenizer(pieces, unk_id=0, pad_id=1, mask_id=2, bos_id=3, eos_id=4)
    kept = [int((add_bos_eos(tokenizer, text, SEQ_LENGTH) == tokenizer.encode("M")[0]).sum()) for text in TEXTS]
    lost = [len(text) - number for text, number in zip(TEXTS, kept, strict=True)]
    cuts = count_cuts(TEXTS, MASKED, SEQ_LENGTH)
    assert cuts.cut == sum(number > 0 for number in lost) == 2
    assert cuts.lost == pytest.approx(sum(lost) / sum(map(len, TEXTS)))
    assert cuts.text == "2 of 6 sequences are cut to their first 11 tokens: 15.4% of all tokens are never read"


def test_an_objective_of_records_says_what_it_reads():
    of_records = SimpleNamespace(record_example=None, max_tokens=10)
    assert (count_cuts(TEXTS, of_records, SEQ_LENGTH).cut, count_cuts(TEXTS, of_records, 99).cut) == (3, 3)
    assert count_cuts(TEXTS, SimpleNamespace(record_example=None), SEQ_LENGTH) is None
    assert "number is unknown" in count_cuts(list(TEXTS), MASKED, SEQ_LENGTH).text


def test_the_plan_says_it_for_each_split_and_how_to_avoid_it():
    splits = DataSplits(TEXTS, Texts(["MM"]), Texts(["M" * 30]), "")
    spec = SimpleNamespace(data=Choice("data", "fasta", {"on_long": "drop", "max_length": None}))
    assert cut_lines(spec, splits, MASKED, SEQ_LENGTH) == [
        "train: 2 of 6 sequences are cut to their first 11 tokens: 15.4% of all tokens are never read",
        "test: 1 of 1 sequence are cut to their first 11 tokens: 63.3% of all tokens are never read",
        "to read them whole: data.on_long=window data.max_length=10",
    ]
    assert cut_lines(spec, DataSplits(Texts(["MM"]), None, None, ""), MASKED, SEQ_LENGTH) == []
    assert cut_lines(spec, splits, None, SEQ_LENGTH) == []
