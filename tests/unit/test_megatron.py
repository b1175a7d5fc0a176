"""The one module that imports megatron-core: what its versions do differently, and what is said without it."""

import importlib.util
import logging
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
from packaging.version import Version

import bionemo_core.megatron
from bionemo_core._metadata import version
from bionemo_core.errors import ConfigError
from bionemo_core.megatron import TransformerBlock
from bionemo_core.nn.layers import block_spec, transformer_config
from bionemo_core.parallel.groups import start_groups

PROJECT = Path(__file__).resolve().parents[2]
WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
from bionemo_core.nn import encoder, perceiver, seq2seq
sys.modules["megatron.core.transformer.moe.paged_stash"].paged_stash_reset()
"""


def imported_again() -> None:
    spec = importlib.util.spec_from_file_location("again", bionemo_core.megatron.__file__)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_a_version_that_lacks_a_name_is_reported_with_those_that_have_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "megatron.core.packed_seq_params", None)
    with pytest.raises(ConfigError, match=r"megatron-core [\d.]+ cannot be imported: .*packed_seq_params.*") as caught:
        imported_again()
    dependencies = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    (wanted,) = (line for line in dependencies if line.startswith("megatron-core"))
    assert f"pip install '{wanted}'" in str(caught.value)


@pytest.mark.parametrize("block_type", ["pre_ln", "post_ln", "normformer"])
def test_layers_are_built_without_notes(block_type, caplog):
    groups = start_groups()
    with caplog.at_level(logging.INFO), warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        config = transformer_config(num_layers=1, hidden_size=8, num_attention_heads=2)
        spec = block_spec(config, block_type, causal=True, cross_groups=groups)
        TransformerBlock(config, spec, pg_collection=groups.collection)
    assert [*caplog.messages, *(str(one.message) for one in noted)] == []


@pytest.mark.skipif(Version(version("megatron-core")) < Version("0.18"), reason="earlier versions ask for no Triton")
def test_networks_are_there_without_triton_and_kernels_say_what_they_need():
    command = [sys.executable, "-W", "error::UserWarning", "-c", WITHOUT_TRITON]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "paged_stash_reset of megatron-core needs Triton: pip install triton." in done.stderr.splitlines()[-1]
