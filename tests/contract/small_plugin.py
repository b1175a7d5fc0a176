"""The source of a small plugin that passes the kit; tests replace parts of its text to add faults."""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

from bionemo_core.interop.connector import ForeignModel
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


def answer(dropout: float = 0.1):
    from .extras import Answer

    return Answer(dropout)


def slower(factor: float = 0.9):
    from .extras import Slower

    return Slower(factor)


def bag_folder():
    from .connector import BagFolder

    return BagFolder()


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
        capabilities=frozenset({"packing", "tensor_parallel", "exact_resume", "embedding"}),
    )


@hookimpl
def bionemo_heads():
    yield Component("answer", configure(answer), "one linear layer")


@hookimpl
def bionemo_callbacks():
    yield Component("slower", configure(slower), "makes gradients smaller with every step")


@hookimpl
def bionemo_connectors():
    yield Component("bag_folder", configure(bag_folder), "to and from folders")
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
        self.query = torch.nn.Linear(width, width)
        self.key = torch.nn.Linear(width, width)
        self.dropout = torch.nn.Dropout(dropout)
        self.output = torch.nn.Linear(width, vocab_size)
        self.steps = 0

    def hidden_states(self, batch):
        hidden = self.tokens(batch.tokens) + self.positions(batch.position_ids)
        scores = self.query(hidden) @ self.key(hidden).transpose(1, 2)
        own = batch.segment_ids[:, :, None] == batch.segment_ids[:, None, :]
        seen = own & batch.padding_mask[:, None, :]
        hidden = hidden + scores.masked_fill(~seen, -1e4).softmax(-1) @ hidden
        return torch.tanh(hidden).transpose(0, 1)

    def forward(self, batch):
        hidden = self.hidden_states(batch).transpose(0, 1)
        logits = self.output(self.dropout(hidden))
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

EXTRAS = """
import torch
from pytorch_lightning import Callback


class Head(torch.nn.Module):
    def __init__(self, hidden_size, outputs, per_residue, dropout):
        super().__init__()
        self.per_residue = per_residue
        self.dropout = torch.nn.Dropout(dropout)
        self.linear = torch.nn.Linear(hidden_size, outputs)

    def forward(self, residues):
        states = residues.states if self.per_residue else residues.mean()
        return self.linear(self.dropout(states))


class Answer:
    def __init__(self, dropout):
        self.dropout = dropout

    def build(self, hidden_size, outputs, per_residue):
        return Head(hidden_size, outputs, per_residue, self.dropout)


class Slower(Callback):
    def __init__(self, factor):
        self.factor = factor
        self.batches = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches += 1
        with torch.no_grad():
            for parameter in pl_module.parameters():
                parameter.mul_(1 - 1e-3 * self.factor**self.batches)

    def state_dict(self):
        return {"batches": self.batches}

    def load_state_dict(self, state_dict):
        self.batches = state_dict["batches"]
"""

CONNECTOR = """
from bionemo_core.interop.connector import ForeignModel, Reading
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.keys import Key, KeyTable

TABLE = KeyTable(
    [
        Key("tokens", "words", ("weight",)),
        Key("positions", "places", ("weight",)),
        Key("query", "attention.query"),
        Key("key", "attention.key"),
        Key("output", "head"),
    ]
)


class BagFolder:
    format = "huggingface"
    models = frozenset({"bag"})

    def recognises(self, config):
        return config.values.get("model_type") == "bag"

    def read(self, source):
        config = source.config
        params = {"width": config.size("hidden_size"), "seq_length": config.size("max_position_embeddings")}
        params["dropout"] = config.number("hidden_dropout_prob")
        found = TABLE.to_ours(source.tensors, source.where)
        return Reading("bag", params, "letters", found.tensors, {}, found.unexpected)

    def write(self, model):
        params = model.params
        values = {"model_type": "bag", "hidden_size": params["width"]}
        values["hidden_dropout_prob"] = params["dropout"]
        values["max_position_embeddings"] = params["seq_length"]
        tensors = TABLE.to_theirs(model.tensors, model.tokenizer.vocab_size)
        return ForeignModel(ForeignConfig(values, "a folder"), tensors)
"""

FILES = {
    "__init__.py": HOOKS,
    "alphabet.py": ALPHABET,
    "records.py": RECORDS,
    "network.py": NETWORK,
    "extras.py": EXTRAS,
    "connector.py": CONNECTOR,
}


def finds(*words: str) -> AbstractContextManager[Any]:
    """Expect a failure whose message has these words in this order."""
    return pytest.raises(ConformanceError, match="(?s)" + ".*".join(re.escape(word) for word in words))


def their_outputs(foreign: ForeignModel, source: Sequence[int], target: Sequence[int]) -> dict[str, Any]:
    """Compute the states of a folder that the plugin's connector wrote, as its owners do."""
    tensors = foreign.tensors
    hidden = tensors["words.weight"][list(source)] + tensors["places.weight"][: len(source)]
    query, key = (
        hidden @ tensors[f"attention.{name}.weight"].T + tensors[f"attention.{name}.bias"] for name in ("query", "key")
    )
    return {"hiddens": torch.tanh(hidden + (query @ key.T).softmax(-1) @ hidden).numpy()}
