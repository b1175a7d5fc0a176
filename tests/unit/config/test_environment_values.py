"""Values of environment variables reach a run's files only where paths need them, or where the user asks for it."""

import pytest

from bionemo_core.config.environment_values import ALLOWED_VARIABLE
from bionemo_core.config.spec import composed_yaml, to_json
from bionemo_core.errors import ConfigError

SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    "typed",
    [
        ["name=${oc.env:MY_TOKEN}"],
        ["name=run-${oc.env:MY_TOKEN,x}"],
        ["logger=wandb", "logger.wandb.project=${oc.env:MY_TOKEN}"],
        ["data=fasta", "data.path=[/data/${oc.env:MY_TOKEN}/a.fa]"],
        ["name=${oc.env:DATA_DIR}"],
        ["name=${oc.env:${oc.env:WHICH_DIR}}"],
    ],
)
def test_a_variable_that_is_none_of_paths_is_refused(typed, spec_of, monkeypatch):
    for name in ("MY_TOKEN", "DATA_DIR"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("WHICH_DIR", "MY_TOKEN")
    with pytest.raises(ConfigError, match=r"environment variable") as raised:
        spec_of("model=esm1nv_tiny", *typed)
    assert SECRET not in str(raised.value)


def test_paths_defaults_and_what_is_asked_for_are_taken(spec_of, monkeypatch):
    monkeypatch.setenv("DATA_DIR", "/data/set")
    monkeypatch.setenv("MY_TOKEN", "label")
    assert spec_of("model=esm1nv_tiny", "data=fasta", "data.path=${oc.env:DATA_DIR}/a.fa").data.params["path"] == (
        "/data/set/a.fa"
    )
    assert spec_of("model=esm1nv_tiny", "name=${oc.env:SURELY_UNSET,mine}").name == "mine"
    monkeypatch.setenv(ALLOWED_VARIABLE, "OTHER, MY_TOKEN")
    assert spec_of("model=esm1nv_tiny", "name=${oc.env:MY_TOKEN}").name == "label"


def test_the_composed_configuration_holds_no_values_of_variables(composed, registry, spec_of, monkeypatch):
    monkeypatch.setenv("DATA_DIR", SECRET)
    typed = ("model=esm1nv_tiny", "data=fasta", "data.path=${oc.env:DATA_DIR}/a.fa")
    text = composed_yaml(composed(*typed))
    assert SECRET not in text
    assert "${oc.env:DATA_DIR}/a.fa" in text
    assert SECRET in to_json(spec_of(*typed)), "the run itself needs the path"
