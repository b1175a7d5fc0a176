"""Checks of a loss for fine-tuning: a sum over the labels that count, lower for better outputs, with gradients."""

from typing import TYPE_CHECKING, Any

from bionemo_core.finetuning.label_spec import KINDS, MATCHING, MULTILABEL
from bionemo_core.finetuning.losses import kinds_of
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.testing.runs import alone_in_process, kept_generators
from bionemo_core.testing.subject import Subject, explain_failures, fail

if TYPE_CHECKING:
    from torch import Tensor

NUM_LABELS, CLASSES, TARGETS = 12, 4, 2


def check_loss(subject: Subject, registered: RegisteredComponent) -> None:
    """Check a loss with outputs and labels of each kind of prediction that it is for.

    Raises:
        ConformanceError: it cannot train; the message names the kind.
    """
    where = f"loss {registered.name!r}"
    loss = subject.build(registered)
    if not callable(loss):
        fail(f"{where}: its factory returns {type(loss).__name__}, expected a function of (outputs, labels, counts).")
    kinds = kinds_of(loss)
    if not kinds or not set(kinds) <= KINDS.keys():
        fail(f"{where}: its `kinds` are {kinds}, expected some of {', '.join(KINDS)}.")
    with alone_in_process(), kept_generators():
        for kind in (one for one in kinds if one != MATCHING):  # its labels have another form
            with explain_failures(f"{where} with {kind}"):
                _check_kind(f"{where} with {kind}", loss, kind)


def _check_kind(where: str, loss: Any, kind: str) -> None:
    import torch

    outputs, labels, counts = _made_up(kind)
    outputs.requires_grad_(True)
    total = loss(outputs, labels, counts)
    if not isinstance(total, torch.Tensor) or total.shape != () or total.dtype != torch.float32:
        got = f"{total.dtype} of shape {list(total.shape)}" if isinstance(total, torch.Tensor) else type(total).__name__
        fail(f"{where}: it returns {got}, expected the sum as a float32 scalar.")
    if not torch.isfinite(total):
        fail(f"{where}: the loss of {NUM_LABELS} labels is {float(total)}.")
    total.backward()
    gradient = outputs.grad
    if gradient is None or not gradient.abs().sum() > 0 or not gradient.isfinite().all():
        fail(f"{where}: no finite gradient reaches the outputs, so nothing would be learned.")
    with torch.no_grad():
        _check_counts(where, loss, outputs, labels, counts)
        if not getattr(loss, "compares", False):
            _check_sum(where, loss, outputs, labels, counts)
        good = _right_outputs(kind, labels)
        right, wrong = (float(loss(each, labels, torch.ones_like(counts))) for each in (good, -good))
        if not right < wrong:
            fail(f"{where}: right outputs have the loss {right:.4g}, their opposites {wrong:.4g}.")


def _check_counts(where: str, loss: Any, outputs: "Tensor", labels: "Tensor", counts: "Tensor") -> None:
    """Check that labels which do not count change nothing, and that a batch may have no label that counts."""
    import torch

    other = torch.where(counts, labels, labels.flip(0))
    seen = counts if counts.dim() == outputs.dim() else counts[:, None]
    if not torch.allclose(loss(outputs, labels, counts), loss(torch.where(seen, outputs, outputs + 1), other, counts)):
        fail(f"{where}: labels that do not count change the loss. Sum over those of `counts` alone.")
    if loss(outputs, labels, torch.zeros_like(counts)) != 0:
        fail(f"{where}: without a label that counts it is not 0. Return the sum, not a mean.")


def _check_sum(where: str, loss: Any, outputs: "Tensor", labels: "Tensor", counts: "Tensor") -> None:
    import torch

    half = NUM_LABELS // 2
    parts = [loss(outputs[place], labels[place], counts[place]) for place in (slice(None, half), slice(half, None))]
    whole = loss(outputs, labels, counts)
    if not torch.allclose(sum(parts), whole, rtol=1e-4):
        fail(
            f"{where}: {NUM_LABELS} labels have the loss {float(whole):.6g}, their halves together "
            f"{float(sum(parts)):.6g}. Return the sum over the labels, not a mean: the core divides by the number of "
            "labels of the global batch. A loss that compares sequences says so with `compares = True`."
        )


def _made_up(kind: str) -> "tuple[Tensor, Tensor, Tensor]":
    """Return outputs, labels and what counts, as the core gives them."""
    import torch

    torch.manual_seed(0)
    of_classes = KINDS[kind].of_classes
    width = CLASSES if of_classes else TARGETS if kind == MULTILABEL else 1
    outputs = torch.randn(NUM_LABELS, width)
    if of_classes:
        labels = torch.arange(NUM_LABELS) % CLASSES
    elif kind == MULTILABEL:
        labels = (torch.randn(NUM_LABELS, width) > 0).float()
    else:
        labels = torch.randn(NUM_LABELS, width)
    return outputs, labels, (torch.arange(labels.numel()) % 5 > 0).view_as(labels)


def _right_outputs(kind: str, labels: "Tensor") -> "Tensor":
    import torch.nn.functional as F

    if KINDS[kind].of_classes:
        return 4.0 * F.one_hot(labels, CLASSES).float() - 2.0
    return 4.0 * labels - 2.0 if kind == MULTILABEL else labels.clone()
