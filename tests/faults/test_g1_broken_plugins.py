"""G1: a broken plugin hurts only itself: it is named with its reason, and the others train."""

import os
from pathlib import Path

import pytest
from runs import Home

from bionemo_core.testing import make_plugin

pytestmark = pytest.mark.faults

OFFER = """
from bionemo_core import Component, configure, hookimpl
BIONEMO_PLUGIN_API = 1
def make(width: int = 4, *, tokenizer, context): ...
@hookimpl
def bionemo_models():
    yield Component({name!r}, configure(make), "a model")
"""
KINDS = {
    "no_import": ("import a_package_that_is_not_there", "a_package_that_is_not_there"),
    "exits": ("raise SystemExit(3)", "SystemExit"),
    "syntax": ("def (:", "SyntaxError"),
    "other_api": (OFFER.format(name="x").replace("API = 1", "API = 99"), "99"),
    "misspelt": (OFFER.format(name="x").replace("bionemo_models", "bionemo_model"), "bionemo_models"),
    "same_name": (OFFER.format(name="esm1nv"), "bionemo-esm"),
    "no_component": (OFFER.format(name="x").replace("yield Component(", "yield ("), "Component"),
    "hook_raises": (OFFER.format(name="x").replace("    yield", "    1 / 0\n    yield"), "ZeroDivisionError"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    for name, (code, _) in KINDS.items():
        make_plugin(folder, name, code)
    return folder


def environment(site: Path) -> dict[str, str]:
    names = ["bionemo-esm", *(f"bionemo-{name.replace('_', '-')}" for name in KINDS)]
    return {"PYTHONPATH": os.fspath(site), "BIONEMO_LOAD_PLUGINS": ",".join(names)}


def test_g1_each_is_named_with_its_reason(home: Home, site: Path) -> None:
    listed = home.command("plugins", **environment(site))
    for name, (_, reason) in KINDS.items():
        distribution = f"bionemo-{name.replace('_', '-')}"
        at = listed.find(f"\n{distribution} ")
        assert at >= 0, f"{distribution} is not named\n{listed}"
        assert reason in listed[at : at + 600], f"{distribution}: no {reason!r}\n{listed}"


def test_g1_the_others_train(home: Home, site: Path) -> None:
    run = home.finish("name=among-broken", "trainer.max_steps=2", **environment(site))
    assert run.last_step() == 2


def test_g1_a_disputed_name_keeps_working_when_qualified(home: Home, site: Path) -> None:
    small = ("model.num_layers=1", "model.num_attention_heads=4", "trainer.max_steps=1")
    plain = home.finish("name=disputed", "model=esm1nv", *small, status=2, **environment(site))
    assert "bionemo-esm/esm1nv" in plain.output() and "bionemo-same-name/esm1nv" in plain.output()
    home.finish("name=qualified", "model=bionemo-esm/esm1nv", *small, **environment(site))
