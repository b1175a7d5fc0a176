"""A training loop of your own: data, batches and network come from the framework, the rest is plain PyTorch.

python examples/own_loop.py [SETTING ...]
"""

import sys

import torch

import bionemo_core
from bionemo_core.training.losses import Losses


def main(*settings: str) -> list[float]:
    """Train with SGD, print the loss of each step, and return the losses."""
    parts = bionemo_core.build("model=esm1nv_tiny", "batch.micro_batch_size=4", "trainer.max_steps=10", *settings)
    network = parts.network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    history = []
    for step in parts.train:
        optimizer.zero_grad()
        total = 0.0
        for batch in step.micro_batches:
            loss = Losses.of(network(batch)).tokens / step.num_loss_tokens
            loss.backward()
            total += loss.item()
        optimizer.step()
        history.append(total)
        print(f"step {step.step + 1}: {total:.4f} nats per masked residue")
    return history


if __name__ == "__main__":
    main(*sys.argv[1:])
