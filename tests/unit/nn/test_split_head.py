"""The logits of a head whose columns lie on several ranks; of two ranks, the first has all columns of ESM's tokens."""

from types import SimpleNamespace

import torch

from bionemo_core.nn.heads import whole_logits
from bionemo_core.parallel import tensor


def test_the_columns_of_all_ranks_are_read(monkeypatch):
    def all_gather(parts, own, group):
        for rank, part in enumerate(parts):
            part.copy_(own + 10 * rank)

    monkeypatch.setattr(tensor.dist, "all_gather", all_gather)
    columns = torch.arange(6.0).view(2, 3)
    words = SimpleNamespace(word_embeddings=SimpleNamespace(weight=None))
    split = SimpleNamespace(tensor=SimpleNamespace(size=lambda: 2))
    network = SimpleNamespace(head=lambda states, weight: columns, embedding=words, groups=split)
    assert torch.equal(whole_logits(network, torch.zeros(2, 3)), torch.cat([columns, columns + 10], dim=1))
    del network.groups
    assert torch.equal(whole_logits(network, torch.zeros(2, 3)), columns)
