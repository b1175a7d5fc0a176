"""Checks of an optimizer: what a step changes, by which rate, and that a checkpoint holds its state."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bionemo_core.errors import CheckpointError
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.protocols import OptimizerSettings
from bionemo_core.testing.runs import alone_in_process, kept_generators
from bionemo_core.testing.subject import Subject, explain_failures, fail

if TYPE_CHECKING:
    from torch import Tensor, nn

STEPS = 4
SHAPE = (6, 4)


def check_optimizer(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that an optimizer can be driven by a schedule, skipped, divided over ranks and resumed.

    Raises:
        ConformanceError: it cannot; the message says what goes wrong.
    """
    where = f"optim {registered.name!r}"
    settings = subject.build(registered)
    if not isinstance(settings, OptimizerSettings) or not isinstance(getattr(settings, "lr", None), float):
        fail(
            f"{where}: its factory returns {type(settings).__name__}, expected settings with a number `lr` and a "
            "method build(named_parameters) that returns a torch.optim.Optimizer."
        )
    with alone_in_process(), kept_generators(), explain_failures(f"{where}: training with it"):
        _check_steps(where, settings)
        _check_parts(where, settings)
        try:
            _check_resume(where, settings, subject)
        except CheckpointError as error:
            fail(f"{where}: {error}")


def _check_steps(where: str, settings: Any) -> None:
    """Check what a step changes, and what it leaves alone."""
    import torch

    network = _network()
    optimizer = settings.build(network.named_parameters())
    if not isinstance(optimizer, torch.optim.Optimizer):
        fail(f"{where}: build returns {type(optimizer).__name__}, expected a torch.optim.Optimizer.")
    inside = {id(one) for group in optimizer.param_groups for one in group["params"]}
    missing = [name for name, one in network.named_parameters() if one.requires_grad and id(one) not in inside]
    if missing:
        fail(f"{where}: {', '.join(missing)} are in no parameter group, so they would not be trained.")
    before = _copies(network)
    _step(network, optimizer, 0, rate=0.0)
    if moved := _changed(network, before):
        fail(f"{where}: with lr=0 in its parameter groups a step changes {', '.join(moved)}. Take the rate from there.")
    _step(network, optimizer, 1, rate=settings.lr)
    changed = _changed(network, before)
    if others := [name for name in changed if name.startswith(("idle", "frozen"))]:
        fail(f"{where}: a step changes {', '.join(others)}, which have no gradient. Leave these alone.")
    if len(changed) < 2:
        fail(f"{where}: a step with lr={settings.lr} changes only {', '.join(changed) or 'nothing'}.")
    before = _copies(network)
    optimizer.zero_grad(set_to_none=True)
    optimizer.step()
    if moved := _changed(network, before):
        fail(f"{where}: a step without gradients, as after a 16-bit overflow, changes {', '.join(moved)}.")


def _check_parts(where: str, settings: Any) -> None:
    """Check that each half of a parameter is updated as in the whole, as on a rank that has only this half."""
    import torch

    if getattr(settings, "whole_parameters", False):
        return
    torch.manual_seed(1)
    start, gradients = torch.randn(SHAPE), torch.randn(STEPS, *SHAPE)
    (whole,) = _trained(settings, [start], [gradients])
    halves = _trained(settings, list(start.chunk(2)), list(gradients.chunk(2, dim=1)))
    if not torch.allclose(whole, torch.cat(halves), atol=1e-6, rtol=1e-4):
        fail(
            f"{where}: half of a parameter changes otherwise than as part of the whole, so the result would "
            "depend on how ranks share parameters. Change each element by itself, or set `whole_parameters = True`."
        )


def _check_resume(where: str, settings: Any, subject: Subject) -> None:
    """Check that an optimizer goes on from its checkpoint as if nothing had happened."""
    import torch

    from bionemo_core.checkpoint.load import open_checkpoint
    from bionemo_core.checkpoint.save import save
    from bionemo_core.parallel.groups import start_groups
    from bionemo_core.parallel.layout import ParameterLayout
    from bionemo_core.parallel.optimizer_state import (
        NUMBERS,
        TENSORS,
        load_optimizer,
        optimizer_parts,
        other_numbers,
        tensor_names,
        update_count,
    )
    from bionemo_core.parallel.optimizer_state import (
        STEPS as UPDATES,
    )

    groups, network, other = start_groups(), _network(), _network()
    straight, resumed = (settings.build(one.named_parameters()) for one in (network, other))
    for step in range(STEPS):
        _step(network, straight, step, rate=settings.lr)
    layouts = {name: ParameterLayout(tuple(one.shape), 0, 1) for name, one in network.named_parameters()}
    state = {UPDATES: update_count(straight), TENSORS: tensor_names(network, straight)}
    state[NUMBERS] = other_numbers(network, straight)
    folder = subject.folder / f"optim-{len(list(subject.folder.glob('optim-*')))}"
    saved = save(folder, STEPS, list(optimizer_parts(network, layouts, groups, straight)), state)
    with open_checkpoint(saved) as reader:
        load_optimizer(other, layouts, groups, resumed, reader)
    other.load_state_dict(network.state_dict())
    for model, optimizer in ((network, straight), (other, resumed)):
        for step in range(STEPS, 2 * STEPS):
            _step(model, optimizer, step, rate=settings.lr)
    for (name, one), two in zip(network.named_parameters(), other.parameters(), strict=True):
        if not torch.equal(one, two):
            fail(
                f"{where}: after a resume {name} differs from an undisturbed run. Keep all state in "
                "`optimizer.state[parameter]`, as numbers and tensors of the parameter's shape."
            )


def _network() -> "nn.ModuleDict":
    import torch
    from torch import nn

    torch.manual_seed(0)
    network = nn.ModuleDict({"used": nn.Linear(4, 6), "idle": nn.Linear(4, 6), "frozen": nn.Linear(4, 6)})
    network["frozen"].requires_grad_(False)
    return network


def _step(network: "nn.ModuleDict", optimizer: Any, step: int, *, rate: float) -> None:
    import torch

    optimizer.zero_grad(set_to_none=True)
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    (network["used"](inputs) - 1).square().mean().backward()
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def _trained(settings: Any, starts: "Sequence[Tensor]", gradients: "Sequence[Tensor]") -> "list[Tensor]":
    """Return parameters after a step for each row of their gradients."""
    from torch import nn

    parameters = [nn.Parameter(start.clone()) for start in starts]
    optimizer = settings.build([(f"part{number}", one) for number, one in enumerate(parameters)])
    for step in range(STEPS):
        for parameter, own in zip(parameters, gradients, strict=True):
            parameter.grad = own[step].clone()
        for group in optimizer.param_groups:
            group["lr"] = settings.lr
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def _copies(network: "nn.Module") -> "dict[str, Tensor]":
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def _changed(network: "nn.Module", before: "dict[str, Tensor]") -> list[str]:
    return [name for name, parameter in network.named_parameters() if not parameter.equal(before[name])]
