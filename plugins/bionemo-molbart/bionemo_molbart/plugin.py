"""What this plugin offers. Light to import: networks and RDKit are imported when something is built."""

from collections.abc import Iterator, Mapping
from typing import Any

from bionemo_core import Component, PublishedWeights, configure, hookimpl
from bionemo_molbart import presets, sources, uspto
from bionemo_molbart.sizes import MEGAMOLBART_SIZES, MOLMIM_SIZES

BIONEMO_PLUGIN_API = 1

_CAPABILITIES = frozenset({"packing", "tensor_parallel", "exact_resume", "embedding", "decoding"})

_Recipe = Mapping[str, str | Mapping[str, Any]]


def _megamolbart_recipe(hidden_size: int) -> _Recipe:
    """v1's pretrain configs: Noam, whose rate is a scale, 8,000 steps of warm-up, 32 molecules a micro batch."""
    return {
        "tokenizer": "smiles",
        "data": "sample_molecules",
        "optim": {"base": "adamw", "lr": 1.0, "weight_decay": 0.01, "betas": [0.9, 0.999]},
        "scheduler": {"base": "noam", "d_model": hidden_size, "warmup_steps": 8000, "min_lr": 1e-5},
        "trainer": {"max_steps": 2_000_000, "val_check_interval": 10_000, "limit_val_batches": 200},
        "batch": {"micro_batch_size": 32},
    }


# v1's pretrain_base; its warm-up and its constant part are 0.01 and 0.05 of max_steps.
_MOLMIM_STEPS = 425_000
_MOLMIM_RECIPE: _Recipe = {
    "tokenizer": "smiles",
    "data": "sample_molecules",
    "optim": {"base": "adamw", "lr": 5e-4, "weight_decay": 0.001, "betas": [0.9, 0.999]},
    "scheduler": {
        "base": "cosine",
        "warmup_steps": _MOLMIM_STEPS // 100,
        "constant_steps": _MOLMIM_STEPS // 20,
        "min_lr": 5e-5,
    },
    "trainer": {"max_steps": _MOLMIM_STEPS, "val_check_interval": 10_000, "limit_val_batches": 200},
    "batch": {"micro_batch_size": 32},
}

_RELEASED = {
    "megamolbart": PublishedWeights(
        "ngc://nvidia/clara/megamolbart:1.0", "MegaMolBART", "ZINC15", "restore masked and rewritten SMILES"
    ),
    "molmim_70m": PublishedWeights(
        "ngc://nvidia/clara/molmim:1.3/molmim_70m_24_3.nemo",
        "MolMIM",
        "ZINC15",
        "restore SMILES from a latent of fixed size",
    ),
}

# For a laptop; of the schedule's keys a recipe takes those that it has.
_LAPTOP: Mapping[str, Mapping[str, Any]] = {
    "trainer": {"max_steps": 10_000, "val_check_interval": 500, "limit_val_batches": 20},
    "scheduler": {"warmup_steps": 500, "constant_steps": 500},
    "batch": {"micro_batch_size": 8},
}


@hookimpl
def bionemo_tokenizers() -> Iterator[Component]:
    """Offer the SMILES tokenizer."""
    yield Component("smiles", configure(presets.smiles_vocabulary), "SMILES: 523 tokens of MegaMolBART and MolMIM")


@hookimpl
def bionemo_datasets() -> Iterator[Component]:
    """Offer molecule data."""
    yield Component("sample_molecules", configure(sources.sample_molecules), "5,000 NCI molecules that ship with RDKit")
    yield Component("smiles", configure(sources.smiles), "SMI, SD, CSV or Parquet files, or v1's folder of shards")
    yield Component("uspto50k", configure(uspto.uspto50k), "USPTO-50K, reactions by their public layout")
    yield Component("zinc15", configure(sources.zinc15), "ZINC15, from a list of its tranches (v1: Zinc15Preprocess)")


@hookimpl
def bionemo_augmentations() -> Iterator[Component]:
    """Offer random spellings."""
    yield Component("random_smiles", configure(presets.random_smiles), "molecules spelt at random in each pass")


@hookimpl
def bionemo_readers() -> Iterator[Component]:
    """Offer SD files."""
    yield Component("sdf", configure(presets.sdf), "SD files and mol files of molecules, V2000 or V3000")


@hookimpl
def bionemo_models() -> Iterator[Component]:
    """Offer the family, the released model of each kind first."""
    for name, (layers, hidden, heads) in MEGAMOLBART_SIZES.items():
        yield _model(name, "MegaMolBART", presets.megamolbart, (layers, hidden, heads), _megamolbart_recipe(hidden))
    for name, sizes in MOLMIM_SIZES.items():
        yield _model(name, "MolMIM", presets.molmim, sizes, _MOLMIM_RECIPE)


@hookimpl
def bionemo_connectors() -> Iterator[Component]:
    """Offer the connectors of the family's models."""
    yield Component("megamolbart_nemo", configure(presets.megamolbart_nemo), "MegaMolBART as a v1 .nemo archive")
    yield Component("molmim_nemo", configure(presets.molmim_nemo), "MolMIM as a v1 .nemo archive")


def _model(name: str, kind: str, preset: Any, sizes: tuple[int, int, int], recipe: _Recipe) -> Component:
    layers, hidden, heads = sizes
    config = preset.refine(num_layers=layers, hidden_size=hidden, num_attention_heads=heads)
    if name.endswith("_xsmall"):
        recipe = {group: _refined(values, _LAPTOP.get(group, {})) for group, values in recipe.items()}
    released = " as released" if name in _RELEASED else ""
    summary = f"{kind}{released}, {layers} + {layers} layers, {hidden} hidden, {heads} heads"
    weights = _RELEASED.get(name)
    return Component(name, config, summary, defaults=recipe, capabilities=_CAPABILITIES, weights=weights)


def _refined(values: str | Mapping[str, Any], changes: Mapping[str, Any]) -> str | Mapping[str, Any]:
    return values if isinstance(values, str) else {**values, **{k: v for k, v in changes.items() if k in values}}
