"""Checks of a head for fine-tuning: one answer for each residue or sequence, from its own states alone."""

from typing import TYPE_CHECKING, Any

from bionemo_core.errors import ConfigError
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.testing.networks import largest_difference
from bionemo_core.testing.runs import alone_in_process, kept_generators
from bionemo_core.testing.subject import Subject, explain_failures, fail, failure_of

if TYPE_CHECKING:
    from torch import Tensor

    from bionemo_core.nn.residue_states import ResidueStates

HIDDEN, OUTPUTS = 24, 3
LENGTHS = (5, 1, 17, 9)
TOLERANCE = 1e-5


def check_head(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a head answers for every sequence or residue, is trained, saved, and repeats itself.

    Raises:
        ConformanceError: it does not; the message says for which kind of answer.
    """
    where = f"head {registered.name!r}"
    settings = subject.build(registered)
    if not hasattr(settings, "build"):
        fail(
            f"{where}: its factory returns {type(settings).__name__}, expected settings with a method "
            "build(hidden_size, outputs, per_residue) that returns a torch.nn.Module."
        )
    supported = 0
    with alone_in_process(), kept_generators():
        for per_residue in (False, True):
            try:
                settings.build(HIDDEN, OUTPUTS, per_residue)
            except ConfigError:
                continue  # a head for one kind of answer says so
            except Exception as error:
                raise failure_of(f"{where}: build({HIDDEN}, {OUTPUTS}, {per_residue})", error) from error
            supported += 1
            with explain_failures(f"{where} with per_residue={per_residue}"):
                _check_kind(f"{where} with per_residue={per_residue}", settings, per_residue)
    if not supported:
        fail(f"{where}: build raises ConfigError with per_residue=False and with True. Support one of them.")


def _check_kind(where: str, settings: Any, per_residue: bool) -> None:
    import torch

    torch.manual_seed(0)
    head = settings.build(HIDDEN, OUTPUTS, per_residue)
    if not isinstance(head, torch.nn.Module):
        fail(f"{where}: build returns {type(head).__name__}, expected a torch.nn.Module.")
    sequences = [torch.randn(length, HIDDEN) for length in LENGTHS]
    _check_gradients(where, head, sequences)
    head.eval()
    with torch.no_grad():
        together = head(_states(sequences))
        _check_shape(where, together, per_residue)
        alone = torch.cat([head(_states([states])) for states in sequences])
        if not torch.equal(together, head(_states(sequences))):
            fail(f"{where}: its outputs change when it is called again. Use dropout in training only.")
        distance = largest_difference(together.numpy(), alone.numpy())
        if not distance <= TOLERANCE:
            fail(
                f"{where}: the outputs of a sequence differ by {distance:.3f} of the largest if other sequences are in "
                "the batch. `states` holds all sequences end to end; `lengths` says where each ends."
            )
        _check_leaves_states(where, head, sequences, together)
        _check_repeats(where, settings, per_residue, head, _states(sequences))
        _check_shape(
            f"{where} and outputs=1", settings.build(HIDDEN, 1, per_residue)(_states(sequences)), per_residue, 1
        )


def _states(sequences: "list[Tensor]") -> "ResidueStates":
    import torch

    from bionemo_core.nn.residue_states import ResidueStates

    return ResidueStates(torch.cat(sequences), torch.tensor([len(states) for states in sequences]))


def _check_leaves_states(where: str, head: Any, sequences: "list[Tensor]", answers: "Tensor") -> None:
    """Check that a head changes no state in place, and answers in the type of the states."""
    states = _states(sequences)
    before = states.states.clone()
    head(states)
    if not states.states.equal(before):
        fail(f"{where}: it changes the states in place, and other callers use them too. Compute new ones.")
    if answers.dtype != before.dtype:
        fail(f"{where}: its outputs are {answers.dtype}, expected {before.dtype}, the type of the states.")


def _check_shape(where: str, answers: Any, per_residue: bool, outputs: int = OUTPUTS) -> None:
    import torch

    expected = [sum(LENGTHS) if per_residue else len(LENGTHS), outputs]
    got = list(answers.shape) if isinstance(answers, torch.Tensor) else type(answers).__name__
    if got != expected:
        fail(
            f"{where}: for {len(LENGTHS)} sequences with {sum(LENGTHS)} residues it returns {got}, expected "
            f"{expected}: a row of `outputs` numbers for each {'residue' if per_residue else 'sequence'}."
        )


def _check_gradients(where: str, head: Any, sequences: "list[Tensor]") -> None:
    """Check that a loss reaches every trainable parameter, and the encoder below."""
    states = _states([one.clone().requires_grad_(True) for one in sequences])
    states.states.retain_grad()
    head.train()
    head(states).square().sum().backward()
    idle = [name for name, parameter in head.named_parameters() if parameter.requires_grad and parameter.grad is None]
    if idle:
        fail(f"{where}: no gradient reaches {', '.join(idle)}. Use them in forward, or remove them.")
    if states.states.grad is None or not states.states.grad.abs().sum() > 0:
        fail(f"{where}: no gradient reaches the states, so task.encoder=full would not train the encoder.")


def _check_repeats(where: str, settings: Any, per_residue: bool, head: Any, states: "ResidueStates") -> None:
    """Check that the torch seed decides the first weights, and that the saved state is all that answers depend on."""
    import torch

    first = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    torch.manual_seed(0)
    again = settings.build(HIDDEN, OUTPUTS, per_residue)
    for name, tensor in again.state_dict().items():
        if not torch.equal(tensor, first[name]):
            fail(
                f"{where}: built again after torch.manual_seed(0), {name} differs. Draw weights with torch's global "
                "generator, which the core seeds, and do not call torch.seed()."
            )
    torch.manual_seed(1)
    other = settings.build(HIDDEN, OUTPUTS, per_residue).eval()
    other.load_state_dict(first)
    if not torch.equal(other(states), head(states)):
        fail(
            f"{where}: with the same state_dict its outputs differ, so a saved model would be another one. Make "
            "everything that outputs depend on a parameter or a persistent buffer."
        )
