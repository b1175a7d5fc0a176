"""Mixed precision on one data-parallel rank: 16-bit copies of the weights stand in for them while the network computes.

FSDP2 does the same and more, at some milliseconds of the host for every step, which small networks do not hide: for 330
parameters about as long as the GPU computes. Here a step has one copy of all weights and one of all gradients.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn


class HalfWeights:
    """The 16-bit copies of a network's floating-point parameters.

    Between `gather` and `release` the network's modules hold the copies, in `dtype`; otherwise the parameters
    themselves, which the optimizer, checkpoints and everybody else know. A shared parameter stays shared.

    Args:
        network: whose parameters; its forward, and those of its `methods` that are called, gather by themselves.
        dtype: of the copies.
        methods: names of methods that compute; those that the network lacks are passed over.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, methods: tuple[str, ...] = ()) -> None:
        self._network, self._dtype = network, dtype
        self._whole: list[Tensor] = []
        self._half: list[Tensor] = []
        self._places: list[tuple[dict[str, Any], str, int]] = []
        self.gathered = False
        network.register_forward_pre_hook(lambda *_: self.gather())
        for name in methods:
            if hasattr(network, name):
                setattr(network, name, self._gathering(getattr(network, name)))

    def _gathering(self, method: Any) -> Any:
        @wraps(method)
        def gathered(*args: Any, **options: Any) -> Any:
            self.gather()
            return method(*args, **options)

        return gathered

    @torch.no_grad()
    def gather(self) -> None:
        """Have the modules hold copies of what the parameters are now."""
        if self.gathered:
            return
        if not self._whole:
            self._find()
        torch._foreach_copy_(self._half, self._whole)
        for parameters, name, number in self._places:
            parameters[name] = self._half[number]
        self.gathered = True

    @torch.no_grad()
    def release(self) -> None:
        """Have the modules hold the parameters again, with the gradients of their copies added to theirs."""
        if not self.gathered:
            return
        for parameters, name, number in self._places:
            parameters[name] = self._whole[number]
        self.gathered = False
        new: list[tuple[Tensor, Tensor]] = []
        more: list[tuple[Tensor, Tensor]] = []
        for whole, half in zip(self._whole, self._half, strict=True):
            if half.grad is None:
                continue
            if whole.grad is None:
                whole.grad = torch.empty_like(whole)
                new.append((whole.grad, half.grad))
            else:
                more.append((whole.grad, half.grad.to(whole.dtype)))
            half.grad = None
        if new:
            torch._foreach_copy_([to for to, _ in new], [what for _, what in new])
        for to, what in more:
            to.add_(what)

    def _find(self) -> None:
        numbers: dict[int, int] = {}
        for module in self._network.modules():
            for name, parameter in module._parameters.items():
                if parameter is None or not parameter.is_floating_point():
                    continue
                number = numbers.setdefault(id(parameter), len(numbers))
                if number == len(self._whole):
                    half = nn.Parameter(torch.empty_like(parameter, dtype=self._dtype), parameter.requires_grad)
                    vars(half).update(vars(parameter))
                    self._whole.append(parameter)
                    self._half.append(half)
                self._places.append((module._parameters, name, number))
