"""Checks of a model's types and of the capabilities that it declares."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bionemo_core.plugins import RegisteredComponent
from bionemo_core.protocols import Example, Model, Seq2SeqExample, TensorType
from bionemo_core.testing.runs import BuiltModel, alone_in_process, build_model, run_spec, train_model, train_on_ranks
from bionemo_core.testing.subject import Subject, explain_failures, fail

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import MicroBatch

MEMBERS = ("input_types", "output_types", "seq_length", "objective")
PACKED_TOGETHER = 3
PACKING_TOLERANCE = 1e-5
RANKS = 2
RANKS_TOLERANCE = 1e-5
RANKS_STEPS = 4


def check_types(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a model is a LightningModule with typed inputs and outputs.

    Raises:
        ConformanceError: a member is missing or invalid; the message names it.
    """
    import pytorch_lightning as pl
    import torch

    where = f"model {registered.name!r}"
    with alone_in_process():
        module = build_model(subject, registered).module
    if not isinstance(module, pl.LightningModule):
        fail(f"{where}: its factory returns {type(module).__name__}, expected a pytorch_lightning.LightningModule.")
    missing = [
        name for name in MEMBERS if not hasattr(module, name)
    ]  # since Python 3.12 isinstance does not evaluate properties
    if missing or not isinstance(module, Model):
        fail(f"{where}: it lacks {', '.join(missing)}, required by bionemo_core.protocols.Model.")
    for member in ("input_types", "output_types"):
        types = getattr(module, member)
        if not isinstance(types, Mapping) or not types:
            fail(f"{where}: {member} is {types!r}, expected a mapping of names to TensorType.")
        for name, one in types.items():
            if not isinstance(one, TensorType) or not isinstance(getattr(torch, one.dtype, None), torch.dtype):
                fail(
                    f"{where}: {member}[{name!r}] is {one!r}, expected a TensorType such as "
                    'TensorType(("rows", "length"), "int64").'
                )
    if not isinstance(module.seq_length, int) or module.seq_length < 3:
        fail(f"{where}: seq_length is {module.seq_length!r}, expected the longest sequence in tokens.")


def check_packing(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a sequence has the same loss in a pack as alone.

    Raises:
        ConformanceError: a loss differs; the message shows both losses of the first such sequence.
    """
    where = f"model {registered.name!r} declares 'packing'"
    with alone_in_process():
        built = build_model(subject, registered)
        network = getattr(built.module, "network", None)
        if network is None:
            fail(f"{where}, but has no `network` that maps a TokenBatch to its summed loss; see LanguageModule.")
        built.module.eval()
        examples = examples_of(built)
        with explain_failures(f"{where}: its forward on a packed row"):
            alone = [_loss(network, [one], built, packed=False) for one in examples]
            together = [
                _loss(network, [_mask_unless(one, i == chosen) for i, one in enumerate(examples)], built, packed=True)
                for chosen in range(len(examples))
            ]
    for number, (one, packed) in enumerate(zip(alone, together, strict=True)):
        if not abs(packed - one) <= PACKING_TOLERANCE * abs(one):
            fail(
                f"{where}, but sequence {number + 1} of {len(examples)} has the loss {one:.7f} per token alone and "
                f"{packed:.7f} in a pack. Take positions from batch.position_ids, keep attention within "
                "batch.cu_seqlens (or batch.segment_ids), and do not average over the row."
            )


AnyExample = Example | Seq2SeqExample


def examples_of(built: BuiltModel) -> list[AnyExample]:
    """Return examples of the first records, of different lengths, short enough for one packed row."""
    from bionemo_core.data.batches.loader import add_bos_eos
    from bionemo_core.data.batches.rng import RecordRng

    records = built.splits.train
    whole = getattr(built.module.objective, "record_example", None)
    if whole is not None:  # such a record may be invalid after it is cut
        numbers = range(min(len(records), PACKED_TOGETHER))
        return [whole(records[number], RecordRng(1, 0, number, "masking")) for number in numbers]
    limit = (built.spec.batch.seq_length or built.module.seq_length) // PACKED_TOGETHER
    framed = (add_bos_eos(built.tokenizer, records[i], limit) for i in range(min(len(records), PACKED_TOGETHER)))
    # Sequences of different lengths, so that no sequence begins where it would in rows of equal length.
    cut = [ids[: max(3, limit - 5 * number)] for number, ids in enumerate(framed)]
    return [built.module.objective.example(ids, RecordRng(1, 0, number, "masking")) for number, ids in enumerate(cut)]


def _mask_unless(example: AnyExample, keep: bool) -> AnyExample:
    """Return the example; unless `keep`, without its loss."""
    return example if keep else example._replace(loss_mask=example.loss_mask & False)


def _loss(network: Any, examples: Sequence[AnyExample], built: BuiltModel, *, packed: bool) -> float:
    """Return the loss per token of a batch whose row has no padding."""
    import torch

    from bionemo_core.training.losses import Losses

    batch = batch_of(examples, built, packed=packed)
    with torch.no_grad():
        return float(Losses.of(network(batch)).tokens) / max(batch.num_loss_tokens, 1)


def batch_of(examples: Sequence[AnyExample], built: BuiltModel, *, packed: bool, filling: int = 0) -> "MicroBatch":
    """Return the micro batch of the examples; `filling` padded rows of padding follow them, as in static shapes."""
    from bionemo_core.data.batches.batch import micro_batch_of
    from bionemo_core.data.batches.rows import RowShape, collate, collate_pairs

    rows = 1 if packed else len(examples) + filling
    capacity = max if filling else sum
    length = capacity(len(one[0]) for one in examples)
    shape = RowShape(length, rows, built.tokenizer.pad_id, packed, static_shapes=bool(filling))
    pairs = [one for one in examples if isinstance(one, Seq2SeqExample)]
    if pairs:
        target_length = capacity(len(one.labels) for one in pairs)
        return micro_batch_of(collate_pairs(pairs, rows, shape._replace(target_length=target_length)))
    return micro_batch_of(collate([one for one in examples if isinstance(one, Example)], rows, shape))


def check_tensor_parallel(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a model has the same losses on two tensor-parallel ranks as on one, without dropout.

    Raises:
        ConformanceError: a rank fails, or a loss differs; the message shows the first such step.
    """
    advice = (
        "Use megatron-core's layers for what is split, initialise them the same on any layout, and keep everything "
        "else the same on every rank."
    )
    _check_two_ranks(subject, registered, "tensor_parallel", advice)


def check_pipeline_parallel(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a model has the same losses as two stages of a pipeline as on one rank, without dropout.

    Raises:
        ConformanceError: a rank fails, or a loss differs; the message shows the first such step.
    """
    advice = "Let `pipeline_stages` name the stage of every parameter, and `forward` begin with what it received."
    _check_two_ranks(subject, registered, "pipeline_parallel", advice)


def _check_two_ranks(subject: Subject, registered: RegisteredComponent, capability: str, advice: str) -> None:
    where = f"model {registered.name!r} declares {capability!r}"
    sizes: dict[str, Any] = {capability.replace("_", "_model_") + "_size": RANKS}
    no_dropout = {
        f"model__{name}": 0.0
        for name, _, default, _ in registered.keys
        if name.endswith("dropout") and isinstance(default, float)
    }
    one_rank = run_spec(subject, registered.name, trainer__max_steps=RANKS_STEPS, **no_dropout)
    two_ranks = replace(
        one_rank,
        trainer=replace(one_rank.trainer, devices=RANKS),
        parallel=replace(one_rank.parallel, **sizes),
    )
    folder = subject.folder / "runs"
    expected = train_model(
        one_rank, subject, f"{where}: training on one rank", folder / f"{registered.name}-{capability}-one"
    )
    got = train_on_ranks(
        two_ranks, subject, f"{where}: training on {RANKS} ranks", folder / f"{registered.name}-{capability}-two", RANKS
    )
    if got.keys() != expected.keys():
        fail(f"{where}, but one rank ran {len(expected)} steps and {RANKS} ranks ran {len(got)}.")
    for step, loss in expected.items():
        if not abs(got[step] - loss) <= RANKS_TOLERANCE * abs(loss):
            fail(
                f"{where}, but the loss of step {step} is {loss:.7f} on one rank and {got[step]:.7f} on {RANKS}. "
                f"{advice} Parameters whose names end in 'dropout' were set to 0."
            )
