"""What this plugin offers. Light to import: networks are imported when one is built."""

from collections.abc import Iterator, Mapping
from typing import Any

from bionemo_core import Component, PublishedWeights, configure, hookimpl
from bionemo_t5 import presets

BIONEMO_PLUGIN_API = 1

_CAPABILITIES = frozenset({"packing", "tensor_parallel", "exact_resume", "embedding", "decoding"})

_Recipe = Mapping[str, str | Mapping[str, Any]]

# v1's recipe: the base_config.yaml of ProtT5nv, whose warm-up is 0.01 of max_steps.
_PROTT5NV_RECIPE: _Recipe = {
    "tokenizer": "prott5nv",
    "data": "sample",
    "optim": {"base": "adamw", "lr": 1e-4, "weight_decay": 0.01, "betas": [0.9, 0.999]},
    "scheduler": {"base": "inverse_square_root", "warmup_steps": 10_000, "min_lr": 0.0},
    "trainer": {"max_steps": 1_000_000, "val_check_interval": 2_000},
    "batch": {"micro_batch_size": 1},
}
_TINY_RECIPE: _Recipe = {
    "tokenizer": "prott5nv",
    "data": "sample",
    "optim": {"base": "adamw", "lr": 1e-3, "weight_decay": 0.01, "betas": [0.9, 0.999]},
    "scheduler": {"base": "inverse_square_root", "warmup_steps": 100, "min_lr": 0.0},
    "trainer": {"max_steps": 5_000, "val_check_interval": 250},
}


@hookimpl
def bionemo_tokenizers() -> Iterator[Component]:
    """Offer the alphabet of ProtT5nv with its sentinels."""
    yield Component("prott5nv", configure(presets.prott5nv_alphabet), "30 pieces of ProtT5nv and 96 sentinels (v1 ids)")
    yield Component("prott5", configure(presets.prott5_alphabet), "28 pieces of ProtT5 and 100 sentinels")


@hookimpl
def bionemo_models() -> Iterator[Component]:
    """Offer the family, smallest first."""
    # Wide and shallow: on a CPU few large products are quicker than many small ones.
    tiny = presets.prott5nv.refine(num_layers=2, hidden_size=192, num_attention_heads=4, ffn_hidden_size=640)
    yield _model("prott5nv_tiny", tiny, "ProtT5nv for a laptop, 2M: 2+2 layers, 192 hidden", _TINY_RECIPE)
    yield _model("prott5nv", presets.prott5nv, "ProtT5nv, 199M: 12+12 layers, 768 hidden", _PROTT5NV_RECIPE)
    yield _model(
        "prott5_xl",
        presets.t5,
        "the T5 of ProtT5-XL, 2.8B: 24+24 layers, 1024 hidden",
        {**_PROTT5NV_RECIPE, "tokenizer": "prott5"},
        PublishedWeights(
            "Rostlab/prot_t5_xl_uniref50", "ProtT5", "BFD, then UniRef50", "predict masked residues with a decoder"
        ),
    )


@hookimpl
def bionemo_connectors() -> Iterator[Component]:
    """Offer the connectors of the family's models."""
    yield Component("prott5nv_nemo", configure(presets.prott5nv_nemo), "ProtT5nv as a v1 .nemo archive")
    yield Component("t5_huggingface", configure(presets.t5_huggingface), "T5 and ProtT5 as Hugging Face folders")


def _model(
    name: str, config: object, summary: str, recipe: _Recipe, weights: PublishedWeights | None = None
) -> Component:
    return Component(name, config, summary, defaults=recipe, capabilities=_CAPABILITIES, weights=weights)
