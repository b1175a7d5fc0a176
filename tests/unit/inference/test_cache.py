"""Decoding with the core's own networks: neither the cache nor the batch changes a token."""

import pytest
import torch
from tiny_models import MAX_LENGTH, TOKENIZER, inference, network

from bionemo_core.inference.beam import beam_search
from bionemo_core.inference.choosing import TokenSampling
from bionemo_core.inference.decoding import greedy, sample
from bionemo_core.inference.philox import RowRng
from bionemo_core.inference.sampling import source_batch
from bionemo_core.nn.seq2seq import Memory
from bionemo_core.testing.decoding import Uncached, decoder_input

ROWS = 64
KINDS = ("transformer", "perceiver")
MARGIN = 1e-4


def texts(rows: int) -> list[str]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 20, (rows,), generator=generator).tolist()
    return ["".join("ABCDEFGHIJ"[i] for i in torch.randint(0, 10, (n,), generator=generator)) for n in lengths]


def memory_of(kind: str, dtype: torch.dtype, rows: slice = slice(None)) -> Memory:
    with torch.no_grad():
        ids = inference(kind, dtype).tokenize(texts(ROWS)[rows])
        return network(kind, dtype).encode(source_batch(ids, TOKENIZER.pad_id, 24))


def decode(method: str, decoder, memory: Memory, first: int = 0) -> torch.Tensor:
    if method == "greedy":
        return greedy(decoder, memory, TOKENIZER, max_length=MAX_LENGTH)
    if method == "beam":
        return beam_search(decoder, memory, TOKENIZER, max_length=MAX_LENGTH, beam_size=3).tokens
    rng = RowRng.of(9, memory.states.shape[1], first_sequence=first)
    sampling = TokenSampling(top_p=0.95, temperature=1.2)
    return sample(decoder, memory, TOKENIZER, rng, max_length=MAX_LENGTH, sampling=sampling)


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_changes_no_token(kind, method):
    memory = memory_of(kind, torch.float64)
    with_cache = decode(method, network(kind), memory)
    assert torch.equal(with_cache, decode(method, Uncached(network(kind), TOKENIZER.vocab_size), memory))
    assert len({tuple(row) for row in with_cache.flatten(1).tolist()}) > ROWS // 4, (
        "different memories must decode to different texts"
    )


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_one_and_of_64_decode_alike(kind, method):
    together = decode(method, network(kind), memory_of(kind, torch.float64))
    alone = [
        decode(method, network(kind), memory_of(kind, torch.float64, slice(i, i + 1)), first=i) for i in range(ROWS)
    ]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_agrees_up_to_the_first_small_margin(kind, record_property):
    memory = memory_of(kind, torch.float32)
    plain = network(kind, torch.float32)
    without = greedy(Uncached(plain, TOKENIZER.vocab_size), memory, TOKENIZER, max_length=MAX_LENGTH)
    alone = torch.cat([decode("greedy", plain, memory_of(kind, torch.float32, slice(i, i + 1))) for i in range(ROWS)])
    begin = torch.full((ROWS, 1), TOKENIZER.bos_id)
    prefixes = decoder_input(torch.cat((begin, without), dim=1)[:, :-1])
    with torch.no_grad():
        best_two = plain.decoder_logits(memory, prefixes)[:, :, : TOKENIZER.vocab_size].topk(2, dim=2).values
    # True up to the first small margin of a row; later tokens may differ.
    clear = (best_two[:, :, 0] - best_two[:, :, 1]).cummin(dim=1).values > MARGIN
    record_property("tokens_with_a_clear_margin", int(clear.sum()))
    assert clear.float().mean() > 0.95
    for other in (decode("greedy", plain, memory), alone):
        assert torch.equal(other[clear], without[clear])


@pytest.mark.parametrize("method", ["sample", "beam"])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_and_beams_in_single_precision(kind, method, record_property):
    memory, plain = memory_of(kind, torch.float32), network(kind, torch.float32)
    together = decode(method, plain, memory)
    without = decode(method, Uncached(plain, TOKENIZER.vocab_size), memory)
    half = decode(method, plain, memory_of(kind, torch.float32, slice(0, ROWS // 2)))
    for name, one, other in (("cache", together, without), ("batch", together[: ROWS // 2], half)):
        same = (one == other).flatten(1).all(dim=1)
        record_property(f"texts_that_differ_by_{name}", int((~same).sum()))
        assert same.float().mean() > 0.95
