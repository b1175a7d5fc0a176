"""The names that plugins may rely on, frozen: one that goes must warn for a minor version first, see docs/plugins.md.

`public_names.txt` has a line for each module. A name is added there with the first page or template that shows it; it
is taken out only when `bionemo_core/_moved.py` has carried it through a minor version.
"""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

from bionemo_core.plugins import CAPABILITIES, PLUGIN_API
from bionemo_core.plugins.hookspecs import GROUP_OF_HOOK, PluginHooks

PROJECT = Path(__file__).resolve().parents[3]
FROZEN = {
    module: names.split()
    for module, _, names in (
        line.partition(": ") for line in Path(__file__).with_name("public_names.txt").read_text().splitlines()
    )
}
WHOLE = ("bionemo_core", "bionemo_core.errors", "bionemo_core.protocols", "bionemo_core.ranges", "bionemo_core.testing")
"""Modules that are public with everything in them."""

HOOKS = {
    "bionemo_tokenizers": "tokenizer",
    "bionemo_datasets": "data",
    "bionemo_models": "model",
    "bionemo_connectors": "connector",
    "bionemo_callbacks": "callbacks",
    "bionemo_heads": "head",
    "bionemo_schedulers": "scheduler",
    "bionemo_loggers": "logger",
    "bionemo_oracles": "oracle",
    "bionemo_readers": "reader",
    "bionemo_optimizers": "optim",
    "bionemo_losses": "loss",
    "bionemo_augmentations": "augmentation",
    "bionemo_tasks": "task",
}


@pytest.mark.parametrize("module", FROZEN)
def test_every_frozen_name_is_there(module: str):
    found = importlib.import_module(module)
    assert not [name for name in FROZEN[module] if not hasattr(found, name)]


@pytest.mark.parametrize("module", WHOLE)
def test_a_wholly_public_module_has_no_other_name(module: str):
    found = importlib.import_module(module)
    if hasattr(found, "__all__"):
        names = set(found.__all__)
    else:
        tree = ast.parse(inspect.getsource(found))
        defined = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
        targets = [
            one for node in assigned for one in (node.targets if isinstance(node, ast.Assign) else [node.target])
        ]
        names = {name for name in [*defined, *(one.id for one in targets)] if not name.startswith("_")}
    assert sorted(names) == FROZEN[module]


def test_hooks_and_capabilities_are_frozen():
    assert {name: GROUP_OF_HOOK[name] for name in dir(PluginHooks) if name in GROUP_OF_HOOK} == HOOKS
    assert {"packing", "tensor_parallel", "exact_resume", "embedding", "decoding"} <= CAPABILITIES
    assert PLUGIN_API == 1


def imports_of(text: str) -> list[tuple[str, str]]:
    found = re.findall(r"^ *from (bionemo_core[\w.]*) import ([\w, ]+)$", text, re.MULTILINE)
    return [(module, name) for module, names in found for name in names.split(", ")]


def test_what_pages_and_templates_import_is_frozen():
    pages = [PROJECT / "docs" / name for name in ("plugins.md", "plugin_hooks.md", "data.md")]
    templates = (PROJECT / "bionemo_core/cli/skeleton").rglob("*.txt")
    used = {pair for path in (*pages, *templates) for pair in imports_of(path.read_text())}
    assert len(used) > 20
    assert sorted(used - {(module, name) for module, names in FROZEN.items() for name in names}) == []
