"""A dataset class and a `DataLoader` of your own; tokenizer, objective and network come from the framework.

python examples/own_dataloader.py [SETTING ...]
"""

import sys

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import bionemo_core
from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.masking import MaskedLanguageObjective
from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.training.losses import Losses
from bionemo_core.training.module import LanguageModule


class Peptides(Dataset[tuple[int, str]]):
    """Three peptides, each repeated up to four times."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[int, str]:
        return index, ("MKTAYIAKQR", "GSHMLEDPVA", "AVLLDEKQRS")[index % 3] * (1 + index % 4)


def main(*settings: str) -> list[float]:
    """Train for two passes over the peptides, print the loss of each batch, and return the losses."""
    parts = bionemo_core.build("model=esm1nv_tiny", *settings)
    tokenizer, module, history = parts.tokenizer, parts.module, []
    assert isinstance(module, LanguageModule)
    objective = module.objective
    assert isinstance(objective, MaskedLanguageObjective)

    def make_batch(records: list[tuple[int, str]]) -> TokenBatch:
        shape = RowShape(module.seq_length, len(records), tokenizer.pad_id, packing=False)
        examples = []
        for index, text in records:
            ids = np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id], np.int32)
            examples.append(objective.example(ids, RecordRng(parts.spec.seed, data_pass, index, "masking")))
        return TokenBatch.of(collate(examples, len(records), shape))

    loader = DataLoader(Peptides(), batch_size=8, shuffle=True, collate_fn=make_batch)
    optimizer = torch.optim.AdamW(parts.network.train().parameters(), lr=3e-3)
    for data_pass in range(2):
        for batch in loader:
            loss = Losses.of(parts.network(batch)).tokens / batch.num_loss_tokens
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
            print(f"pass {data_pass}: {history[-1]:.4f} nats per masked residue")
    return history


if __name__ == "__main__":
    main(*sys.argv[1:])
