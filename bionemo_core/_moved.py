"""Public modules and names that have moved since 0.1: their old imports work until 0.3 and warn."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

TYPE_CHECKING = False  # type checkers know this name; this module is imported before anything else, and is quick
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MOVED_MODULES = {
    "bionemo_core.checkpoint.foreign.connector": "bionemo_core.interop.connector",
    "bionemo_core.checkpoint.foreign.keys": "bionemo_core.interop.keys",
    "bionemo_core.checkpoint.foreign.nemo_models": "bionemo_core.interop.nemo_models",
    "bionemo_core.checkpoint.foreign.nemo_seq2seq": "bionemo_core.interop.nemo_seq2seq",
    "bionemo_core.checkpoint.foreign.settings": "bionemo_core.interop.foreign_config",
    "bionemo_core.checkpoint.foreign.vocabulary": "bionemo_core.interop.sentencepiece_model",
    "bionemo_core.checkpoint.load_report": "bionemo_core.interop.load_report",
    "bionemo_core.checkpoint.stored": "bionemo_core.interop.stored",
    "bionemo_core.data.batch": "bionemo_core.data.batches.batch",
    "bionemo_core.data.draw": "bionemo_core.data.batches.rng",
    "bionemo_core.data.masking": "bionemo_core.data.batches.masking",
    "bionemo_core.data.order": "bionemo_core.data.batches.order",
    "bionemo_core.data.prepare": "bionemo_core.data.store.prepare",
    "bionemo_core.data.rows": "bionemo_core.data.batches.rows",
    "bionemo_core.data.rules": "bionemo_core.data.store.residue_filter",
    "bionemo_core.data.splitting": "bionemo_core.data.splits.options",
    "bionemo_core.data.text_rules": "bionemo_core.data.store.text_filter",
    "bionemo_core.inference.streams": "bionemo_core.inference.philox",
    "bionemo_core.nn.finetune_heads": "bionemo_core.finetuning.network",
    "bionemo_core.nn.recordable": "bionemo_core.nn.cuda_graph_safe",
}
"""Old and new names of the modules that `docs/plugins.md` showed or that plugins may import."""

_EMPTY_PACKAGES = frozenset({"bionemo_core.checkpoint.foreign"})
"""Removed packages, which held only moved modules."""

RENAMED = {
    "bionemo_core.data.batches.rng": {"Draw": "RecordRng"},
    "bionemo_core.data.batches.rows": {
        "lay": "collate",
        "lay_pairs": "collate_pairs",
        "one_of_few": "round_up_segments",
    },
    "bionemo_core.data.splits.options": {"Splitting": "SplitOptions"},
    "bionemo_core.data.store.residue_filter": {
        "RecordRules": "RecordFilter",
        "ResidueRules": "ResidueFilter",
        "Verdict": "FilterResult",
    },
    "bionemo_core.data.store.text_filter": {
        "TextRules": "TextFilter",
        "canonical_texts": "clean_texts",
        "rules_for": "filter_for",
    },
    "bionemo_core.inference.philox": {"Streams": "RowRng"},
    "bionemo_core.interop.foreign_config": {"Settings": "ForeignConfig"},
    "bionemo_core.interop.load_report": {"some": "preview_names"},
    "bionemo_core.interop.nemo_seq2seq": {"written_config": "archive_config"},
    "bionemo_core.interop.sentencepiece_model": {"Piece": "VocabularyPiece"},
    "bionemo_core.interop.stored": {"HeldTensors": "InMemoryTensors", "block_of": "slice_block"},
    "bionemo_core.nn.cuda_graph_safe": {"is_recordable": "is_cuda_graph_safe", "recordable": "cuda_graph_safe"},
}
"""New names, by module and old name, of what was renamed in moved modules."""

RENAMED_IN_PLACE = {
    "bionemo_core.testing": {"Settings": "KitSettings"},
    "bionemo_core.testing.subject": {"Settings": "KitSettings"},
}
"""New names, by module and old name, of what was renamed in modules that have not moved."""


class _MovedModule(ModuleType):
    """A module under its old name, with the attributes of the new one."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"Moved to `{MOVED_MODULES[name]}`.")

    def __getattr__(self, name: str) -> Any:
        target = MOVED_MODULES[self.__name__]
        return getattr(import_module(target), RENAMED.get(target, {}).get(name, name))


class _MovedModuleFinder:
    """A finder of modules under their old names; it is used only if no other finder finds one."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in MOVED_MODULES and name not in _EMPTY_PACKAGES:
            return None
        # It has the methods of a `Loader`; that class is in a module which takes longer to import than all of this.
        return ModuleSpec(name, self, is_package=name in _EMPTY_PACKAGES)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return _MovedModule(spec.name) if spec.name in MOVED_MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name in _EMPTY_PACKAGES:
            return
        warnings.warn(
            f"{name} has moved to {MOVED_MODULES[name]}; the old name will stop working in bionemo-run 0.3.",
            FutureWarning,
            stacklevel=2,
        )


def find_renamed(module: str, name: str) -> Any:
    """Return what had this name in a module of `RENAMED_IN_PLACE`, with a warning; for the module's `__getattr__`.

    Raises:
        AttributeError: the module never had that name.
    """
    new = RENAMED_IN_PLACE[module].get(name)
    if new is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(
        f"{module}.{name} is now called {new}; the old name will stop working in bionemo-run 0.3.",
        FutureWarning,
        stacklevel=3,
    )
    return getattr(import_module(module), new)


def install() -> None:
    """Make the old names importable; further calls do nothing."""
    if not any(isinstance(one, _MovedModuleFinder) for one in sys.meta_path):
        sys.meta_path.append(_MovedModuleFinder())
