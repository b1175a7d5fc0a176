"""What this plugin offers. Light to import: networks are imported when one is built."""

from collections.abc import Iterator, Mapping
from typing import Any

from bionemo_core import Component, PublishedWeights, configure, hookimpl
from bionemo_esm import presets
from bionemo_esm.sizes import ESM2_SIZES, ESMC_SIZES

BIONEMO_PLUGIN_API = 1

_CAPABILITIES = frozenset({"packing", "tensor_parallel", "pipeline_parallel", "exact_resume", "embedding"})

_Recipe = Mapping[str, str | Mapping[str, Any]]

# Recipes of v1: the base_config.yaml of ESM-1nv and of ESM-2nv.
_ESM1NV_RECIPE: _Recipe = {
    "tokenizer": "esm1nv",
    "data": "sample",
    "optim": {"base": "adamw", "lr": 2e-4, "weight_decay": 0.01, "betas": [0.9, 0.98]},
    "scheduler": {"base": "cosine", "warmup_steps": 500, "constant_steps": 50_000, "min_lr": 2e-5},
}
_TINY_RECIPE: _Recipe = {
    "tokenizer": "esm1nv",
    "data": "sample",
    "optim": {"base": "adamw", "lr": 6e-4, "weight_decay": 0.01, "betas": [0.9, 0.98]},
    "scheduler": {"base": "cosine", "warmup_steps": 100, "constant_steps": 0, "min_lr": 2e-5},
    "trainer": {"max_steps": 5_000, "val_check_interval": 250},
}
_ESM2_RECIPE: _Recipe = {
    "tokenizer": "esm2",
    "data": "sample",
    "optim": {"base": "adamw", "lr": 4e-4, "weight_decay": 0.01, "betas": [0.9, 0.98]},
    "scheduler": {"base": "warmup_anneal_hold", "warmup_steps": 2000, "min_lr": 4e-5},
    "trainer": {"max_steps": 500_000},
    "batch": {"micro_batch_size": 2},
}
_ESMC_RECIPE: _Recipe = {**_ESM2_RECIPE, "tokenizer": "esmc"}


@hookimpl
def bionemo_tokenizers() -> Iterator[Component]:
    """Offer the alphabets of ESM-1nv, of ESM-1b and ESM-2, and of ESM C."""
    yield Component("esm1nv", configure(presets.esm1nv_alphabet), "30 pieces of ESM-1nv and ProtT5nv (v1 ids)")
    yield Component("esm2", configure(presets.esm2_alphabet), "33 tokens of ESM-1b and ESM-2")
    yield Component("esmc", configure(presets.esmc_alphabet), "64 tokens of ESM C, 31 of them unused")


@hookimpl
def bionemo_models() -> Iterator[Component]:
    """Offer the family, smallest first within a kind."""
    # Wide and shallow: on a CPU few large products are quicker than many small ones.
    tiny = presets.esm1nv.refine(num_layers=3, hidden_size=192, num_attention_heads=4, ffn_hidden_size=640)
    yield _model("esm1nv", presets.esm1nv, "ESM-1nv, 44M: 6 layers, 768 hidden", _ESM1NV_RECIPE)
    yield _model("esm1nv_tiny", tiny, "ESM-1nv for a laptop, 1.3M: 3 layers, 192 hidden", _TINY_RECIPE)
    for name, (layers, hidden, heads) in ESM2_SIZES.items():
        config = presets.esm2.refine(num_layers=layers, hidden_size=hidden, num_attention_heads=heads)
        weights = _weights(f"facebook/esm2_t{layers}_{name.removeprefix('esm2_').upper()}_UR50D", "ESM-2", "MIT")
        yield _model(name, config, f"ESM-2, {layers} layers, {hidden} hidden", _ESM2_RECIPE, weights=weights)
    weights = _weights("facebook/esm1b_t33_650M_UR50S", "ESM-1b", "MIT", data="UniRef50 of March 2018")
    yield _model("esm1b", presets.esm1b, "ESM-1b, 650M: 33 layers, 1280 hidden", _ESM2_RECIPE, weights=weights)
    small = presets.esmc.refine(num_layers=3, hidden_size=192, num_attention_heads=3)
    whole = _CAPABILITIES - {"tensor_parallel"}
    yield _model("esmc_tiny", small, "ESM C for a laptop, 1.4M: 3 layers, 192 hidden", _ESMC_RECIPE, whole)
    for name, (layers, hidden, heads) in ESMC_SIZES.items():
        config = presets.esmc.refine(num_layers=layers, hidden_size=hidden, num_attention_heads=heads)
        data = "UniRef, MGnify and JGI"
        weights = _weights(f"biohub/ESMC-{name.removeprefix('esmc_').upper()}", "ESM C", data=data)
        yield _model(name, config, f"ESM C, {layers} layers, {hidden} hidden", _ESMC_RECIPE, whole, weights)


@hookimpl
def bionemo_connectors() -> Iterator[Component]:
    """Offer the connectors of the family's models."""
    yield Component("esm1nv_nemo", configure(presets.esm1nv_nemo), "ESM-1nv as a v1 .nemo archive")
    yield Component("esm_huggingface", configure(presets.esm_huggingface), "ESM-2 and ESM-1b as Hugging Face folders")
    yield Component("esmc_huggingface", configure(presets.esmc_huggingface), "ESM C as Hugging Face folders")


def _weights(
    address: str, family: str, license_: str = "", data: str = "UniRef50 and UniRef90 of September 2021"
) -> PublishedWeights:
    return PublishedWeights(address, family, data, "predict masked residues", license_)


def _model(
    name: str,
    config: object,
    summary: str,
    recipe: _Recipe,
    capabilities: frozenset[str] = _CAPABILITIES,
    weights: PublishedWeights | None = None,
) -> Component:
    return Component(name, config, summary, defaults=recipe, capabilities=capabilities, weights=weights)
