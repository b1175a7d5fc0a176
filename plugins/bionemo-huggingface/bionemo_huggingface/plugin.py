"""What this plugin offers. Light to import: transformers is imported when a model is built or read."""

from collections.abc import Iterator, Mapping
from typing import Any

from bionemo_core import Component, configure, hookimpl
from bionemo_huggingface import presets

BIONEMO_PLUGIN_API = 1

_RECIPE: Mapping[str, str | Mapping[str, Any]] = {
    "tokenizer": "huggingface_letters",
    "data": "sample",
    "optim": {"base": "adamw", "lr": 4e-4, "weight_decay": 0.01, "betas": [0.9, 0.98]},
    "scheduler": {"base": "cosine", "warmup_steps": 100, "constant_steps": 0, "min_lr": 4e-5},
}


@hookimpl
def bionemo_tokenizers() -> Iterator[Component]:
    """Offer the vocabularies of folders."""
    yield Component("huggingface_letters", configure(presets.letters), "one token a letter, as in ProtBert")
    yield Component("huggingface_pieces", configure(presets.pieces), "tokens of several letters: a tokenizer.json")


@hookimpl
def bionemo_models() -> Iterator[Component]:
    """Offer the encoders of transformers; without a folder, a small BERT of proteins."""
    summary = "any encoder of transformers: BERT, RoBERTa, RoFormer, ESM, ModernBERT, T5 and others"
    capabilities = frozenset({"embedding", "exact_resume"})
    yield Component(
        "huggingface_encoder", configure(presets.encoder), summary, defaults=_RECIPE, capabilities=capabilities
    )


@hookimpl
def bionemo_connectors() -> Iterator[Component]:
    """Offer the way from folders and back."""
    yield Component("huggingface_encoder", configure(presets.connector), "Hugging Face folders of an encoder")
