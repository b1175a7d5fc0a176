"""Mixed precision on one data-parallel rank: 16-bit copies replace the weights while the network computes.

FSDP2 does the same and more, but costs some milliseconds of host time in every step. Small networks do not hide that
time: for 330 parameters it is about as long as the GPU's work. Here each step copies all weights once and all
gradients once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial, wraps
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable


class HalfWeights:
    """The 16-bit copies of a network's floating-point parameters.

    Between `gather` and `release` the network's modules hold the copies, in `dtype`. Otherwise they hold the
    parameters themselves, which the optimizer and the checkpoints use. A shared parameter stays shared. The network's
    forward pass gathers, and the end of a backward pass releases; after a forward pass alone the caller must release.
    While they are `held`, because another forward pass waits for its backward pass, the copies are not made again.
    The object is stored as the network's `_half_weights`. A deep copy of the network, made between steps, has 16-bit
    copies of its own.

    Args:
        network: the network that owns the parameters.
        dtype: of the copies.
        methods: names of methods that compute and must gather, as forward does. Names that are no methods of the
            network are ignored.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, methods: tuple[str, ...] = ()) -> None:
        self._network, self._dtype = network, dtype
        network._half_weights = self  # type: ignore[assignment]  # torch declares attributes as modules or tensors
        self._full: list[Tensor] = []
        self._half: list[Tensor] = []
        self._versions: list[int] = []
        self._slots: list[tuple[dict[str, Any], str, int]] = []
        self._kept_gradients: list[Tensor] = []
        """The tensors that gradients are put into, by number; none: a new one each time."""
        self._release_queued = False
        self.gathered = False
        self.held = False
        """Whether the copies stay after a backward pass, whose gradients are still added to the parameters'."""
        self.on_gradient: Callable[[Tensor, Tensor], None] | None = None
        """Called with a parameter and its copy when a backward pass has made the copy's gradient; it may take that."""
        network.register_forward_pre_hook(_gather)
        for name in methods:
            method = getattr(network, name, None)
            if isinstance(method, MethodType):
                setattr(network, name, MethodType(_gather_before(method.__func__), network))

    def __deepcopy__(self, memo: dict[int, Any]) -> HalfWeights:
        """Return the half weights of the copied network, which makes its 16-bit copies in its first step.

        Raises:
            RuntimeError: the modules hold 16-bit copies now; in the deep copy nothing would restore the parameters.
        """
        if self.gathered:
            raise RuntimeError(
                "a network can be deep-copied only between steps, and this one holds its 16-bit weights. Call "
                "bionemo_core.parallel.sharding.reshard(network) first."
            )
        copied = copy.copy(self)
        memo[id(self)] = copied
        copied._network = copy.deepcopy(self._network, memo)
        copied._full, copied._half, copied._versions, copied._slots, copied._kept_gradients = [], [], [], [], []
        copied.on_gradient = None
        return copied

    # Not in inference mode: copies that are made during validation are used in training later.
    @torch.inference_mode(False)
    @torch.no_grad()
    def gather(self) -> None:
        """Put 16-bit copies of the parameters' present values into the modules."""
        if self.gathered:
            return
        if not self._full or self._full[0].device != self._half[0].device:
            self._copy_all()
        # A fused optimizer step does not raise a tensor's version, so every trained parameter is copied again.
        stale = [
            number
            for number, full in enumerate(self._full)
            if full.requires_grad or full._version != self._versions[number]
        ]
        if stale:
            torch._foreach_copy_([self._half[n] for n in stale], [self._full[n] for n in stale])
            for number in stale:
                self._versions[number] = self._full[number]._version
        for parameters, name, number in self._slots:
            parameters[name] = self._half[number]
        self.gathered = True

    @torch.inference_mode(False)
    @torch.no_grad()
    def release(self) -> None:
        """Put the parameters back into the modules, and add the gradients of the copies to theirs."""
        self.held = False
        if not self.gathered:
            return
        for parameters, name, number in self._slots:
            parameters[name] = self._full[number]
        self.gathered = False
        self._add_gradients()

    @torch.inference_mode(False)
    @torch.no_grad()
    def keep_gradients(self) -> None:
        """From now on put the gradients of every step into the same tensors, where a CUDA graph finds them."""
        if not self._kept_gradients:
            present = [full.grad for full in self._full]
            self._kept_gradients = [
                torch.empty_like(full) if gradient is None else gradient
                for full, gradient in zip(self._full, present, strict=True)
            ]

    def _add_gradients(self) -> None:
        new: list[tuple[Tensor, Tensor]] = []
        for number, (full, half) in enumerate(zip(self._full, self._half, strict=True)):
            if half.grad is None:
                continue
            if full.grad is None:
                full.grad = self._kept_gradients[number] if self._kept_gradients else torch.empty_like(full)
                new.append((full.grad, half.grad))
            else:
                full.grad.add_(half.grad)
            half.grad = None
        if new:
            torch._foreach_copy_([target for target, _ in new], [source for _, source in new])

    def _copy_all(self) -> None:
        self._full, self._half, self._versions, self._slots, self._kept_gradients = [], [], [], [], []
        numbers: dict[int, int] = {}
        for module in self._network.modules():
            for name, parameter in module._parameters.items():
                if parameter is None or not parameter.is_floating_point():
                    continue
                number = numbers.setdefault(id(parameter), len(numbers))
                if number == len(self._full):
                    half = nn.Parameter(torch.empty_like(parameter, dtype=self._dtype), parameter.requires_grad)
                    vars(half).update(vars(parameter))
                    if parameter.requires_grad:
                        half.register_post_accumulate_grad_hook(partial(self._after_gradient, parameter))
                    self._full.append(parameter)
                    self._half.append(half)
                    self._versions.append(-1)
                self._slots.append((module._parameters, name, number))

    def _after_gradient(self, full: Tensor, half: Tensor) -> None:
        if self.on_gradient is not None:
            self.on_gradient(full, half)
        if not self._release_queued:
            self._release_queued = True
            Variable._execution_engine.queue_callback(self._end_backward)  # type: ignore[attr-defined]  # as FSDP2 does

    @torch.inference_mode(False)
    @torch.no_grad()
    def _end_backward(self) -> None:
        self._release_queued = False
        if self.held:
            self._add_gradients()
        else:
            self.release()


def _gather(network: nn.Module, _: object) -> None:
    half: HalfWeights = network._half_weights  # type: ignore[assignment]
    half.gather()


_gather.cuda_graph_safe = True  # type: ignore[attr-defined]  # see bionemo_core/nn/cuda_graph_safe.py


def _gather_before(method: Any) -> Any:
    @wraps(method)
    def wrapper(network: nn.Module, *args: Any, **options: Any) -> Any:
        _gather(network, None)
        return method(network, *args, **options)

    return wrapper
