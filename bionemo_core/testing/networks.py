"""Checks of a model's network and objective: what they compute depends on their own input and on the seed alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.plurals import format_count
from bionemo_core.protocols import BuildContext
from bionemo_core.testing.capabilities import batch_of, examples_of
from bionemo_core.testing.runs import BuiltModel, alone_in_process, build_model, kept_generators
from bionemo_core.testing.subject import Subject, explain_failures, fail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bionemo_core.data.batches.batch import MicroBatch

SUM_TOLERANCE = 1e-5
STATES_TOLERANCE = 1e-4
SEQUENCES = 6
LEAST_DISTINCT = 16
"""A parameter with at least so many different values was drawn at random."""
DRAWS = 20
"""Examples of each record, of which a few hundred tokens are replaced."""


def check_loss_is_a_sum(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that the loss of a batch is the sum of its sequences' losses, with padding and rows that are only filling.

    Raises:
        ConformanceError: it is not; the message shows both losses.
    """
    where = f"model {registered.name!r}"
    with alone_in_process():
        built = build_model(subject, registered)
        network = getattr(built.module, "network", None)
        if network is None:
            return  # a LightningModule with a training step of its own
        built.module.eval()
        examples = examples_of(built)
        with explain_failures(f"{where}: its forward on padded rows"):
            alone = [_losses(network, batch_of([one], built, packed=False)) for one in examples]
            together = _losses(network, batch_of(examples, built, packed=False, filling=1))
    for kind, values in zip(("tokens", "sequences"), zip(*alone, together, strict=True), strict=True):
        total, got = sum(values[:-1]), values[-1]
        if not abs(got - total) <= SUM_TOLERANCE * max(abs(total), 1e-3):
            fail(
                f"{where}: a batch of {len(examples)} sequences has the loss {got:.6f} over {kind}, and its sequences "
                f"alone have {' + '.join(f'{value:.6f}' for value in values[:-1])} = {total:.6f}. Return the sum over "
                "what counts (batch.loss_mask, or the first batch.num_sequences rows), not a mean: LanguageModule "
                "divides by the count of the global batch. A row must not depend on the other rows or on its padding."
            )


def _losses(network: Any, batch: "MicroBatch") -> tuple[float, float]:
    """Return the loss over tokens and over sequences, summed."""
    import torch

    from bionemo_core.training.losses import Losses

    with torch.no_grad():
        losses = Losses.of(network(batch))
    return float(losses.tokens), float(losses.sequences)


def check_states(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that the states of a sequence are the same in a batch as alone, in every kind of batch that embedding uses.

    Raises:
        ConformanceError: they differ, or the model declares `embedding` and has no states.
    """
    from bionemo_core.nn.residue_states import encoder_network

    where = f"model {registered.name!r}"
    with alone_in_process():
        built = build_model(subject, registered)
        base = encoder_network(getattr(built.module, "network", built.module))
        if not (hasattr(base, "hidden_states") or hasattr(base, "encode")):
            if "embedding" in registered.component.capabilities:
                fail(
                    f"{where} declares 'embedding', but its network has neither hidden_states(batch) nor encode(batch)."
                )
            return
        with explain_failures(f"{where}: embedding with it"):
            for packed in {"packing" in registered.component.capabilities, False}:
                _compare_states(f"{where}: {'packed' if packed else 'padded'}", built, packed)


def _compare_states(where: str, built: BuiltModel, packed: bool) -> None:
    from bionemo_core.inference.embedding import EMBEDDINGS, HIDDENS, Embedder, EmbeddingSettings

    settings = EmbeddingSettings(outputs=(EMBEDDINGS, HIDDENS), unknown="unk", on_long="truncate")
    embedder = Embedder(built.module, built.tokenizer, settings)
    embedder.packing = packed and embedder.packing
    records = [built.splits.train[index] for index in range(min(SEQUENCES, len(built.splits.train)))]
    together = embedder.run(records).rows(HIDDENS)
    for number, record in enumerate(records):
        alone = embedder.run([record]).arrays[HIDDENS]
        distance = largest_difference(together[number], alone)
        if not distance <= STATES_TOLERANCE:
            fail(
                f"{where} with {len(records) - 1} others, the hidden states of sequence {number + 1} differ by "
                f"{distance:.3f} of the largest from those of the sequence alone. hidden_states must return "
                "[length, rows, hidden]; keep attention and convolutions within batch.cu_seqlens (or "
                "batch.segment_ids) and batch.padding_mask, and take no statistics over rows. A network that cannot "
                "keep packed sequences apart must not declare 'packing'."
            )


def largest_difference(got: "NDArray[np.float32]", expected: "NDArray[np.float32]") -> float:
    """Return the largest difference of two arrays, relative to the largest value; infinite if their shapes differ."""
    if got.shape != expected.shape:
        return float("inf")
    return float(np.abs(got - expected).max() / max(float(np.abs(expected).max()), 1e-9))


def check_seed(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a model's first weights depend on `context.seed`, and on nothing else.

    Raises:
        ConformanceError: two builds with one seed differ, or two seeds give the same weights.
    """
    import torch

    where = f"model {registered.name!r}"
    with alone_in_process(), kept_generators():
        built = build_model(subject, registered)

        def weights(seed: int, state: int) -> dict[str, Any]:
            _disturb(state)
            context = BuildContext(seed=seed, home=built.spec.home)
            module = subject.registry.build(built.spec.model, tokenizer=built.tokenizer, context=context)
            return {name: parameter.detach() for name, parameter in module.named_parameters()}

        first, again, other = weights(1, 1), weights(1, 2), weights(2, 1)
    changed = [name for name, tensor in first.items() if not torch.equal(tensor, again[name])]
    if changed:
        more = format_count(len(changed) - 1, "more parameter")
        fail(
            f"{where}: built twice with context.seed=1, {changed[0]} and {more} differ, so "
            "no run could be repeated. Call torch.manual_seed(context.seed) before the network is made, and use "
            "neither torch.seed() nor another source of random numbers."
        )
    drawn = [name for name, tensor in first.items() if tensor.unique().numel() >= LEAST_DISTINCT]
    if drawn and all(torch.equal(first[name], other[name]) for name in drawn):
        fail(
            f"{where}: its weights are the same for context.seed=1 and 2, so the key `seed` would not change a run. "
            "Call torch.manual_seed(context.seed) before the network is made."
        )


def _disturb(state: int) -> None:
    """Set every global generator to a state."""
    import random

    import torch

    random.seed(state)
    np.random.seed(state)
    torch.manual_seed(state)


def check_objective(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that examples depend on the record and on `draw` alone.

    Raises:
        ConformanceError: they do not; the message names the record.
    """
    where = f"model {registered.name!r}"
    with alone_in_process(), kept_generators():
        built = build_model(subject, registered)
        for number in range(min(SEQUENCES, len(built.splits.train))):
            with explain_failures(f"{where}: its objective on record {number}"):
                _disturb(1)
                first = _example(built, number)
                _disturb(2)
                again = _example(built, number)
            if not all(np.array_equal(one, other) for one, other in zip(first, again, strict=True)):
                fail(
                    f"{where}: its objective makes another example of record {number} when it is asked again with the "
                    "same draw, so a resumed run would differ. Take every random choice from `draw`."
                )
            _check_replaced(where, built, number)
        _check_collate(where, built, packed="packing" in registered.component.capabilities)


def _check_collate(where: str, built: BuiltModel, *, packed: bool) -> None:
    """Check that an objective's own `collate` keeps every sequence, and gives the same rows for the same examples."""
    from bionemo_core.data.batches.rows import RowArrays, RowShape, Seq2SeqArrays

    collate = getattr(built.module.objective, "collate", None)
    if collate is None:
        return
    examples = [_example(built, number) for number in range(min(SEQUENCES, len(built.splits.train)))]
    target = getattr(built.module.objective, "target_length", 0)
    shape = RowShape(built.module.seq_length, len(examples), built.tokenizer.pad_id, packed, target_length=target)
    with explain_failures(f"{where}: collate of its objective"):
        first, again = (collate(list(examples), len(examples), shape) for _ in range(2))
    if not isinstance(first, RowArrays | Seq2SeqArrays):
        fail(f"{where}: collate returns {type(first).__name__}, expected what bionemo_core.data.batches.rows returns.")
    rows = first.source if isinstance(first, Seq2SeqArrays) else first
    if rows.num_sequences != len(examples) or len(rows.lengths) != len(examples):
        fail(f"{where}: collate makes rows of {rows.num_sequences} sequences from {len(examples)} examples.")
    sides = zip((rows, *first[1:]), (again[0], *again[1:]), strict=True) if rows is not first else [(first, again)]
    if not all(np.array_equal(a, b) for one, other in sides for a, b in zip(one, other, strict=True)):
        fail(f"{where}: collate makes other rows of the same examples when it is called again.")


def _check_replaced(where: str, built: BuiltModel, number: int) -> None:
    """Check that an objective that replaces tokens of a record takes the mask or ordinary tokens."""
    from bionemo_core.data.batches.loader import add_bos_eos

    if hasattr(built.module.objective, "record_example"):
        return
    ids = add_bos_eos(built.tokenizer, built.splits.train[number], built.module.seq_length)
    others = set(built.tokenizer.special_ids) - {built.tokenizer.mask_id}
    for data_pass in range(DRAWS):
        tokens = np.asarray(_example(built, number, data_pass)[0])
        if tokens.shape != ids.shape:
            return  # no such objective
        wrong = sorted(set(tokens[tokens != ids].tolist()) & others)
        if wrong:
            fail(
                f"{where}: its objective replaces tokens by {built.tokenizer.pieces[wrong[0]]!r} (id {wrong[0]}), a "
                "special token that is not the mask. Give it `tokenizer.mask_id` and `tokenizer.special_ids`."
            )


def _example(built: BuiltModel, number: int, data_pass: int = 0) -> "Sequence[NDArray[Any]]":
    from bionemo_core.data.batches.loader import add_bos_eos

    draw = RecordRng(1, data_pass, number, "masking")
    objective, record = built.module.objective, built.splits.train[number]
    whole = getattr(objective, "record_example", None)
    if whole is not None:
        example: Sequence[NDArray[Any]] = whole(record, draw)
        return example
    ids = add_bos_eos(built.tokenizer, record, built.module.seq_length)
    before = ids.copy()
    example = objective.example(ids, draw)
    if not np.array_equal(ids, before):
        fail("its objective changes the ids that it gets; they may be shared. Copy them first.")
    return example
