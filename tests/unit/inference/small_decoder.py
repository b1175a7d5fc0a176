"""A small recurrent decoder with random weights, which has only what decoding needs."""

from dataclasses import dataclass

import torch
from torch import Tensor

VOCABULARY = 12


class Special:
    pad_id, bos_id, eos_id = 0, 1, 2


@dataclass
class SmallMemory:
    states: Tensor  # [length, rows, hidden]


class SmallState:
    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden

    def select(self, rows: Tensor) -> "SmallState":
        return SmallState(self.hidden[rows])


class SmallDecoder:
    """A recurrent network; a greater `end_bias` makes sequences end sooner."""

    def __init__(
        self, seed: int = 0, vocabulary: int = VOCABULARY, hidden: int = 16, dtype=torch.float64, end_bias: float = 0.0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int, scale: float = 1.0) -> Tensor:
            return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype)

        self.embedding = random(vocabulary, hidden)
        self.recurrent = random(hidden, hidden, scale=hidden**-0.5)
        self.output = random(hidden, vocabulary)
        self.bias = random(vocabulary, scale=0.3)
        self.bias[Special.eos_id] += end_bias
        self.steps = 0
        self.row_steps = 0

    def start(self, memory: SmallMemory, max_length: int) -> SmallState:
        return SmallState(memory.states.mean(dim=0))

    def step(self, tokens: Tensor, state: SmallState) -> Tensor:
        self.steps += 1
        self.row_steps += len(tokens)
        state.hidden = torch.tanh(state.hidden @ self.recurrent + self.embedding[tokens])
        return state.hidden @ self.output + self.bias


def memories(rows: int, seed: int = 1, hidden: int = 16, dtype=torch.float64) -> SmallMemory:
    generator = torch.Generator().manual_seed(seed)
    return SmallMemory(torch.randn(3, rows, hidden, generator=generator, dtype=torch.float64).to(dtype))


def rows_of(memory: SmallMemory, rows: slice) -> SmallMemory:
    return SmallMemory(memory.states[:, rows])
