"""Checks of an augmentation: a record for each draw, a function of the draw alone, within the declared length."""

from typing import Any

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.protocols import BuildContext
from bionemo_core.testing.datasets import tokenizer_for
from bionemo_core.testing.subject import Subject, explain_failures, fail

NUM_RECORDS, NUM_PASSES = 32, 4


def check_augmentation(subject: Subject, registered: RegisteredComponent) -> None:
    """Check an augmentation for the plugin's first tokenizer, on the default data of its models, else on `data=sample`.

    Raises:
        ConformanceError: it cannot be used; the message shows the record.
    """
    where = f"augmentation {registered.name!r}"
    tokenizer = tokenizer_for(subject, registered)
    context = BuildContext(home=str(subject.folder))
    change, again = (subject.build(registered, tokenizer=tokenizer, context=context) for _ in range(2))
    if not callable(change):
        fail(f"{where}: its factory returns {type(change).__name__}, expected a function of (record, draw).")
    chosen = [model.component.defaults.get("data") for model in subject.components("model")]
    data = subject.registry.get("data", next((str(one) for one in chosen if isinstance(one, str)), "sample"))
    sample = subject.build(data, tokenizer=tokenizer, context=context)
    texts = [sample.train[index] for index in range(min(NUM_RECORDS, len(sample.train)))]
    records = [text.encode() if isinstance(text, str) else text for text in texts]
    changed = 0
    with explain_failures(where):
        for index, record in enumerate(records):
            for data_pass in range(NUM_PASSES):
                made = _check_record(where, (change, again), record, (data_pass, index), tokenizer)
                changed += made != record
    if not changed:
        fail(f"{where}: it changes none of {len(records)} records in {NUM_PASSES} passes, so it has no effect.")


def _check_record(where: str, built: Any, record: bytes, key: tuple[int, int], tokenizer: Any) -> bytes:
    change, again = built
    made: Any = change(record, RecordRng(0, *key, "record"))
    if not isinstance(made, bytes) or not made:
        fail(f"{where}: it makes {made!r:.40} of {record!r:.40}, expected bytes that are not empty.")
    for other in (change, again):
        if other(record, RecordRng(0, *key, "record")) != made:
            fail(f"{where}: it makes something else of {record!r:.40} for the same draw. Make all choices from `draw`.")
    size, tokens = len(tokenizer.encode(record)), tokenizer.encode(made)
    most = max(size, change.longest(size)) if hasattr(change, "longest") else size
    if len(tokens) > most:
        fail(f"{where}: it makes {len(tokens)} tokens of {size}. Declare the most as `longest(length)`.")
    if tokenizer.unk_id in tokens and tokenizer.unk_id not in tokenizer.encode(record):
        fail(f"{where}: it makes {made!r:.40} of {record!r:.40}, with letters that the tokenizer does not know.")
    return bytes(made)
