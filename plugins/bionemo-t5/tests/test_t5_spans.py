"""Span corruption against values worked out by hand, and against its own rules over many draws."""

import numpy as np
import pytest

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.errors import ConfigError
from bionemo_t5.spans import SpanCorruption
from bionemo_t5.tokenizer import PROTT5NV_PIECES, prott5_tokenizer, prott5nv_tokenizer, sentinel_ids

TOKENIZER = prott5nv_tokenizer()
SEQUENCE = b"MKTAYIAKQRQISFVKSHFS"


def corruption(**settings: object) -> SpanCorruption:
    return SpanCorruption(TOKENIZER, **{"seq_length": 512, "seq_length_dec": 256, **settings})


def draw(index: int = 0) -> RecordRng:
    return RecordRng(1234, 0, index, "masking")


class Words:
    """A draw whose words and uniform numbers are given."""

    def __init__(self, words: list[int], uniform: list[float] = ()) -> None:
        self.given, self.uniform_given = words, uniform

    def words(self, n: int) -> np.ndarray:
        return np.array(self.given[:n], dtype=np.uint64)

    def uniform(self, n: int) -> np.ndarray:
        return np.array(self.uniform_given[:n])


def test_ids_are_those_of_v1() -> None:
    assert len(PROTT5NV_PIECES) == 30
    assert TOKENIZER.vocab_size == 126
    assert sentinel_ids(TOKENIZER) == list(range(30, 126))
    assert (TOKENIZER.unk_id, TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.pad_id, TOKENIZER.mask_id) == (
        0,
        1,
        2,
        3,
        4,
    )
    assert TOKENIZER.encode("LASG").tolist() == [5, 6, 7, 8]


def test_single_tokens_by_hand() -> None:
    # 10 residues at 0.15: round(1.5) = 2 are taken, those with the smallest words, here the 2nd and the 7th.
    words = [9, 0, 8, 7, 6, 5, 1, 4, 3, 2]
    example = corruption().record_example(b"LASGVERTDI", Words(words))
    assert example.source.tolist() == [5, 30, 7, 8, 9, 10, 31, 12, 13, 14]
    assert example.decoder_input.tolist() == [1, 30, 6, 31, 11]
    assert example.labels.tolist() == [30, 6, 31, 11, 2]
    assert example.loss_mask.all()
    assert {array.dtype.name for array in example[:3]} == {"int32"}


def test_neighbours_are_spans_of_their_own() -> None:
    example = corruption().record_example(b"LASGVERTDI", Words([9, 8, 7, 0, 1, 6, 5, 4, 3, 2]))
    assert example.source.tolist() == [5, 6, 7, 30, 31, 10, 11, 12, 13, 14]
    assert example.labels.tolist() == [30, 8, 31, 9, 2]


def test_longer_spans_by_hand() -> None:
    # 20 residues at 0.3: 6 are to be taken. Words put the beginnings in the order 4, 5, 18, 10.
    order = [4, 5, 18, 10, *(i for i in range(20) if i not in (4, 5, 18, 10))]
    words = [0] * 20
    for rank, place in enumerate(order):
        words[place] = rank
    # Lengths 1 + floor(ln(1 - u) / ln(0.8)): u = 0.4 gives 3, u = 0.1 gives 1, u = 0.7 gives 6, cut to 3.
    uniform = [0.4, 0.1, 0.7, 0.7, *[0.1] * 16]
    made = corruption(masked_lm_prob=0.3, max_ngram_size=3, seq_length_dec=512, seq_length=300)
    example = made.record_example(b"LASGVERTDIPKNFQYHMCW", Words(words, uniform))
    # 4 to 6; 5 is taken already; 18 and 19, where the sequence ends; of the last three wanted only one is left: 10.
    assert example.source.tolist() == [5, 6, 7, 8, 30, 12, 13, 14, 31, 16, 17, 18, 19, 20, 21, 22, 32]
    assert example.labels.tolist() == [30, 9, 10, 11, 31, 15, 32, 23, 24, 2]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_ngram_size": 4},
        {"max_ngram_size": 8, "mean_ngram_size": 3.0},
        {"max_ngram_size": 3, "geometric_dist": False},
    ],
    ids=str,
)
def test_source_and_answer_together_are_the_record(settings: dict[str, object]) -> None:
    made = corruption(**settings)
    for index in range(60):
        record = (SEQUENCE * 30)[: 1 + 11 * index]
        example = made.record_example(record, draw(index))
        assert example.decoder_input[0] == TOKENIZER.bos_id
        assert example.labels[-1] == TOKENIZER.eos_id
        assert example.decoder_input[1:].tolist() == example.labels[:-1].tolist()
        answers: dict[int, list[int]] = {}
        for token in example.labels[:-1].tolist():
            if token >= 30:
                answers[token] = []
            else:
                answers[max(answers)].append(token)
        assert list(answers) == list(range(30, 30 + len(answers))), "sentinels come in order, each once"
        whole = [residue for token in example.source.tolist() for residue in answers.get(token, [token])]
        assert whole == TOKENIZER.encode(record[:510]).tolist()
        spans = [len(span) for span in answers.values()]
        assert 1 <= min(spans) <= max(spans) <= settings.get("max_ngram_size", 1)
        assert sum(spans) <= max(1, round(min(len(record), 510) * 0.15))
        source, target = made.laid_lengths(np.array([len(record)]))
        assert len(example.source) <= source[0] <= 512
        assert len(example.labels) <= target[0] <= made.target_length


def test_an_example_is_a_function_of_its_draw() -> None:
    made = corruption(max_ngram_size=3)
    first, again, other = (made.record_example(SEQUENCE, draw(index)) for index in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.source, other.source)


def test_every_token_is_taken_as_often_as_any_other() -> None:
    made = corruption()
    taken = sum((made.record_example(SEQUENCE, draw(index)).source >= 30).astype(int) for index in range(4000))
    assert taken.sum() == 3 * 4000  # round(20 x 0.15) of each
    assert abs(taken - 600).max() < 5 * np.sqrt(4000 * 0.15 * 0.85)


def test_mean_length_is_the_one_asked_for() -> None:
    lengths = corruption(max_ngram_size=512, mean_ngram_size=3.0)._lengths(20_000, draw())
    assert lengths.mean() == pytest.approx(3.0, rel=0.03)
    harmonic = corruption(max_ngram_size=3, geometric_dist=False)._lengths(20_000, draw())
    assert np.bincount(harmonic)[1:] / 20_000 == pytest.approx([6 / 11, 3 / 11, 2 / 11], abs=0.02)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seq_length_dec": 154}, "= 155 in the decoder"),
        ({"seq_length": 1024, "seq_length_dec": 512}, "96 sentinels .* may need 154"),
        ({"masked_lm_prob": 0.0}, "masked_lm_prob: got 0.0"),
        ({"max_ngram_size": 0}, "max_ngram_size: got 0"),
        ({"mean_ngram_size": 3.0, "geometric_dist": False}, "mean_ngram_size: got 3.0"),
        ({"seq_length": 2}, "seq_length: got 2"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        corruption(**settings)


def test_the_decoder_of_v1_is_long_enough() -> None:
    assert corruption(seq_length_dec=155).target_length == 155


def test_the_source_has_the_form_of_the_tokenizer() -> None:
    tokenizer = prott5_tokenizer()
    made = SpanCorruption(tokenizer, seq_length=512, seq_length_dec=256)
    example = made.record_example(b"UZOBALGVSR", draw())
    assert example.source[-1] == tokenizer.eos_id
    written = np.concatenate((example.source, example.labels))
    assert not np.isin(written, tokenizer.encode("UZOB")).any()
    assert np.count_nonzero(written == tokenizer.encode("X")[0]) == 4
    assert len(example.source) <= made.laid_lengths(np.array([10]))[0][0]
    assert made.laid_lengths(np.array([512]))[0][0] < 512
    own = corruption().record_example(b"UZOBALGVSR", draw())  # ProtT5nv's has letters as they are, and no EOS
    assert TOKENIZER.eos_id not in own.source and len(own.source) == 10
