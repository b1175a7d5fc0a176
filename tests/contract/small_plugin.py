"""The source of a small plugin that passes the kit; tests replace parts of its text to add faults."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from bionemo_core.testing import ConformanceError, Subject

MakeSubject = Callable[..., Subject]

HOOKS = """
from bionemo_core import Component, configure, hookimpl
from bionemo_core.protocols import BuildContext, Tokenizer

BIONEMO_PLUGIN_API = 1


def letters():
    from .alphabet import Letters

    return Letters()


def peptides(size: int = 128, *, tokenizer: Tokenizer):
    from .records import splits

    return splits(size)


def bag(
    width: int = 32,
    dropout: float = 0.1,
    seq_length: int = 64,
    *,
    tokenizer: Tokenizer,
    context: BuildContext,
):
    from .network import build

    return build(width, dropout, seq_length, tokenizer, context)


@hookimpl
def bionemo_tokenizers():
    yield Component("letters", configure(letters), "twenty residues")


@hookimpl
def bionemo_datasets():
    yield Component("peptides", configure(peptides), "made-up peptides")


@hookimpl
def bionemo_models():
    yield Component(
        "bag",
        configure(bag),
        "guesses each token from what is left of it",
        defaults={"tokenizer": "letters", "data": "peptides"},
        capabilities=frozenset({"packing", "tensor_parallel", "exact_resume"}),
    )
"""

ALPHABET = """
from bionemo_core.data.tokenizer import CharacterTokenizer


class Letters(CharacterTokenizer):
    def __init__(self):
        special = ("<unk>", "<s>", "</s>", "<pad>", "<mask>")
        super().__init__((*special, *"ACDEFGHIKLMNPQRSTVWY"), unk_id=0, bos_id=1, eos_id=2, pad_id=3, mask_id=4)
"""

RECORDS = """
import numpy as np

from bionemo_core.protocols import DataSplits


class Peptides:
    def __init__(self, first, size):
        random = np.random.default_rng(first)
        letters = list("AAAAAACDEFGHIKLLLLLLMNPQRSTVWY")
        self.texts = ["".join(random.choice(letters, random.integers(10, 40))) for _ in range(size)]
        self.lengths = np.array([len(text) for text in self.texts], dtype=np.int32)

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, index):
        return self.texts[index]


def splits(size):
    return DataSplits(Peptides(0, size), val=Peptides(1, 8), fingerprint=f"peptides of {size}")
"""

NETWORK = """
import torch
from torch.nn import functional as F

from bionemo_core.data.batches.masking import MaskedLanguageObjective
from bionemo_core.training.module import LanguageModule


class Bag(torch.nn.Module):
    def __init__(self, width, dropout, seq_length, vocab_size):
        super().__init__()
        self.tokens = torch.nn.Embedding(vocab_size, width)
        self.positions = torch.nn.Embedding(seq_length, width)
        self.dropout = torch.nn.Dropout(dropout)
        self.output = torch.nn.Linear(width, vocab_size)
        self.steps = 0

    def forward(self, batch):
        hidden = self.tokens(batch.tokens) + self.positions(batch.position_ids)
        logits = self.output(self.dropout(torch.tanh(hidden)))
        losses = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="none")
        loss = losses[batch.loss_mask.flatten()].sum()
        return loss


class Module(LanguageModule):
    pass


def build(width, dropout, seq_length, tokenizer, context):
    torch.manual_seed(context.seed)
    network = Bag(width, dropout, seq_length, tokenizer.vocab_size)
    objective = MaskedLanguageObjective(
        mask_id=tokenizer.mask_id, special_ids=tokenizer.special_ids, vocab_size=tokenizer.vocab_size
    )
    return Module(network, objective, seq_length=seq_length)
"""

FILES = {"__init__.py": HOOKS, "alphabet.py": ALPHABET, "records.py": RECORDS, "network.py": NETWORK}


def finds(*words: str) -> AbstractContextManager[Any]:
    """Expect a failure whose message has these words in this order."""
    return pytest.raises(ConformanceError, match="(?s)" + ".*".join(re.escape(word) for word in words))
