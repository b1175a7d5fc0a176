"""Checks that a model with the capability `decoding` decodes the same with and without cache and batch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from bionemo_core.plugins import RegisteredComponent
from bionemo_core.testing.runs import BuiltModel, alone_in_process, build_model
from bionemo_core.testing.subject import Subject, explain_failures, fail

if TYPE_CHECKING:
    from torch import Tensor

SEQUENCES = 6
MAX_LENGTH = 12
BEAMS = 3
NEEDED = ("encode", "start", "step", "decoder_logits")


def check_decoding(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that greedy decoding, sampling and beam search ignore the cache and the other rows of the batch.

    The check runs in float64, so that rounding cannot change a token.

    Raises:
        ConformanceError: a result differs; the message names the method and the first such sequence.
    """
    where = f"model {registered.name!r} declares 'decoding'"
    with alone_in_process():
        built = build_model(subject, registered)
        network = getattr(built.module, "network", None)
        missing = [name for name in NEEDED if not hasattr(network, name)]
        if missing:
            fail(f"{where}, but its network lacks {', '.join(missing)}; see bionemo_core.nn.seq2seq.Seq2SeqLM.")
        built.module.double().eval()
        with explain_failures(f"{where}: its decoding"):
            _check_each_method(built, where)


def _check_each_method(built: BuiltModel, where: str) -> None:
    network, tokenizer = built.module.network, built.tokenizer
    texts = list(islice(_texts(built), SEQUENCES))
    whole = network.encode(_source(built, texts))
    uncached = Uncached(network, tokenizer.vocab_size)
    for method, decode in _methods(tokenizer).items():
        together = decode(network, whole, 0)
        _compare(f"{where}, but {method} with the cache", together, decode(uncached, whole, 0), "without it")
        for number, text in enumerate(texts):
            alone = decode(network, network.encode(_source(built, [text])), number)
            in_batch = together[number : number + 1]
            _compare(f"{where}, but {method} of sequence {number + 1} in a batch", in_batch, alone, "alone")


def _methods(tokenizer: Any) -> dict[str, Callable[[Any, Any, int], "Tensor"]]:
    from bionemo_core.inference.beam import beam_search
    from bionemo_core.inference.choosing import TokenSampling
    from bionemo_core.inference.decoding import greedy, sample
    from bionemo_core.inference.philox import RowRng

    def draw(decoder: Any, memory: Any, first: int) -> "Tensor":
        rng = RowRng.of(1, memory.states.shape[1], first_sequence=first)
        sampling = TokenSampling(top_p=0.95)
        return sample(decoder, memory, tokenizer, rng, max_length=MAX_LENGTH, sampling=sampling)

    return {
        "greedy decoding": lambda decoder, memory, _: greedy(decoder, memory, tokenizer, max_length=MAX_LENGTH),
        "seeded sampling": draw,
        "beam search": lambda decoder, memory, _: (
            beam_search(decoder, memory, tokenizer, max_length=MAX_LENGTH, beam_size=BEAMS).tokens
        ),
    }


def _texts(built: BuiltModel) -> Any:
    """Yield the ids of records, cut to what the model accepts."""
    limit = getattr(built.module.objective, "max_tokens", built.module.seq_length)
    for number in range(len(built.splits.train)):
        ids = built.tokenizer.encode(built.splits.train[number])
        if len(ids) > 0:
            yield ids[:limit]


def _source(built: BuiltModel, ids: Any) -> Any:
    from bionemo_core.inference.sampling import source_batch

    return source_batch(ids, built.tokenizer.pad_id, built.module.seq_length)


def _compare(what: str, one: "Tensor", other: "Tensor", otherwise: str) -> None:
    import torch

    if torch.equal(one, other):
        return
    row = int((one != other).flatten(1).any(dim=1).nonzero()[0])
    fail(
        f"{what} gives {one[row].tolist()}, and {otherwise} {other[row].tolist()}. `step` must return the "
        "logits that `decoder_logits` returns for the whole prefix, and rows must not affect each other."
    )


@dataclass
class Prefix:
    """The state of a decoder without a cache."""

    memory: Any
    tokens: "Tensor"
    """Every token so far, int64[rows, length]."""

    def select(self, rows: "Tensor") -> "Prefix":
        """Return the state of these rows."""
        memory, mask = self.memory, self.memory.padding_mask
        chosen = replace(memory, states=memory.states[:, rows], padding_mask=None if mask is None else mask[rows])
        return Prefix(chosen, self.tokens[rows])


class Uncached:
    """A network that computes every step from the whole prefix with `decoder_logits`."""

    def __init__(self, network: Any, vocab_size: int) -> None:
        self.network, self.vocab_size = network, vocab_size

    def start(self, memory: Any, max_length: int) -> Prefix:
        """Return the empty prefix."""
        import torch

        rows = memory.states.shape[1]
        return Prefix(memory, torch.empty(rows, 0, dtype=torch.int64, device=memory.states.device))

    def step(self, tokens: "Tensor", state: Prefix) -> "Tensor":
        """Return the logits after `tokens`, [rows, vocabulary]."""
        import torch

        state.tokens = torch.cat((state.tokens, tokens[:, None]), dim=1)
        with torch.no_grad():
            logits: Tensor = self.network.decoder_logits(state.memory, decoder_input(state.tokens))
        return logits[:, -1, : self.vocab_size]


def decoder_input(tokens: "Tensor") -> Any:
    """Return the decoder's batch for prefixes of one length, int64[rows, length]."""
    import torch

    from bionemo_core.data.batches.batch import TokenBatch

    rows, length = tokens.shape
    real = torch.ones_like(tokens, dtype=torch.bool)
    return TokenBatch(
        tokens=tokens,
        labels=tokens,
        loss_mask=~real,
        position_ids=torch.arange(length, device=tokens.device).expand(rows, -1),
        padding_mask=real,
        segment_ids=torch.arange(rows, device=tokens.device)[:, None].expand(-1, length),
        cu_seqlens=None,
        lengths=[length] * rows,
        max_seqlen=length,
        num_loss_tokens=0,
        num_tokens=rows * length,
        num_sequences=rows,
        budget=rows * length,
    )
