"""The Python interface: one list of public functions, settings as they are typed, and a cheap import."""

import subprocess
import sys

import pytest

import bionemo_core
from bionemo_core import api
from bionemo_core.errors import ConfigError

FROZEN = {"build", "convert", "embed", "evaluate", "finetune", "open_model", "predict", "sample", "score", "train"}
"""Changing this set changes what users may rely on: a name that goes needs a release that warns."""


FOR_PLUGINS = {"PLUGIN_API", "Component", "PublishedWeights", "TaskSpec", "TrainingHooks", "__version__"}
FOR_PLUGINS |= {"configure", "hookimpl", "run_training"}


def test_the_public_functions():
    assert set(api.__all__) == FROZEN
    assert set(bionemo_core.__all__) - FOR_PLUGINS == FROZEN
    assert all(getattr(bionemo_core, name) is getattr(api, name) for name in FROZEN)
    assert set(dir(bionemo_core)) >= FROZEN
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = bionemo_core.nonsense


@pytest.mark.processes
def test_import_loads_neither_torch_nor_hydra():
    code = (
        "import sys, bionemo_core; print(sorted({'torch', 'hydra', 'pytorch_lightning', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("settings", "typed"),
    [
        (("a.b=1",), ["a.b=1"]),
        (({"a.b": 1, "c": None}, "d=x"), ["a.b=1", "c=null", "d=x"]),
        (({"a": True, "b": False},), ["a=true", "b=false"]),
        (({"a": ["x", 2, None]},), ["a=[x,2,null]"]),
        (({"a": {"b": 1, "c": {"d": 2}}},), ["a.b=1", "a.c={d:2}"]),
        (({"a.b": {"c d": [0.5]}},), ["a.b={'c d':[0.5]}"]),
        (({"a": ["x,y (z)", "it's"], "b": "x, y"},), ["a=['x,y (z)','it\\'s']", "b=x, y"]),
        (({"a": ["{data: csv}", "[1]"]},), ["a=[{data: csv},[1]]"]),
        (({"a": "\t", "b": ""},), ["a='\t'", "b="]),
    ],
)
def test_settings_are_those_of_the_command(settings, typed):
    assert api._typed("train", settings) == ["task=train", *typed]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((), "must specify 'model'"),
        (({"model": "esm1nv_tiny", "trainer.max_steps": "many"},), r"trainer\.max_steps: got many, expected"),
    ],
)
def test_what_hydra_refuses_is_an_error_of_the_project(settings, message):
    with pytest.raises(ConfigError, match=message):
        bionemo_core.train(*settings)


def test_a_wrong_setting_is_an_error_of_the_project():
    with pytest.raises(ConfigError, match=r"trainer\.max_steps"):
        bionemo_core.train("model=esm1nv_tiny", {"trainer.max_stepz": 3})
