"""Archives read in and written out: the configuration is the source's own, but for what was asked to change."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bionemo_core import cli
from bionemo_core.builtin import load_registry
from bionemo_core.interop.connector import Connector, ForeignModel, OurModel
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.nemo import read_nemo, write_nemo
from bionemo_core.interop.source_config import keep_config, write_with_source_config
from bionemo_core.interop.stored import Carried
from bionemo_core.models.locate import complete_choice, list_connectors

HERE = Path(__file__).parent
FAMILIES = ("esm1nv_tiny", "prott5nv_tiny", "megamolbart_xsmall", "molmim_xsmall")
STORED = {family: HERE / "v0.1.0" / family / "archive.nemo" for family in FAMILIES}
REAL = Path(os.environ.get("BIONEMO_REALDATA", "")) / "nemo_v1"
RECORDED = {str(path.relative_to(REAL)): path for path in sorted(REAL.rglob("*.nemo"))} if REAL.is_dir() else {}
LAYOUT = {"tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 1}


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def differences(got: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    ours, theirs = dict(leaves(got)), dict(leaves(expected))
    missing = "(missing)"
    pairs = {key: (ours.get(key, missing), theirs.get(key, missing)) for key in ours | theirs}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1] or type(pair[0]) is not type(pair[1])}


@pytest.mark.parametrize("way", ["at once", "by an artefact"])
@pytest.mark.parametrize("name", [*STORED, *RECORDED])
def test_an_archive_that_was_read_is_written_with_its_own_configuration(
    name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIONEMO_HOME", str(tmp_path / "home"))
    path = source = (STORED | RECORDED)[name]
    if way == "by an artefact":
        assert cli.main(["task=convert", f"restore_from_path={path}", f"task.output={tmp_path}/artefact"]) == 0
        source = tmp_path / "artefact"
    assert cli.main(["task=convert", f"restore_from_path={source}", f"task.output={tmp_path}/again.nemo"]) == 0
    before, after = read_nemo(path), read_nemo(tmp_path / "again.nemo")
    found = differences(after.config.values, before.config.values)
    # Shards of several ranks are merged, and the archive says so.
    merged = {key: pair for key, pair in found.items() if key.rpartition(".")[2] in LAYOUT and pair[0] == 1 < pair[1]}
    assert found == merged
    assert after.files == before.files


@lru_cache
def opened(family: str) -> tuple[ForeignModel, Connector, OurModel]:
    """The stored archive of a family, its connector, and the model that it holds."""
    registry, source = load_registry(), read_nemo(STORED[family])
    recognised = [pair for pair in list_connectors("nemo", registry, None) if pair[1].recognises(source.config)]
    ((registered, connector),) = recognised
    reading = connector.read(source)
    choice = complete_choice("model", reading.model, reading.params, registered.distribution, registry)
    tokenizer = registry.build(
        complete_choice("tokenizer", reading.tokenizer, reading.tokenizer_params, registered.distribution, registry)
    )
    model = OurModel(choice.name, choice.params, tokenizer, reading.tensors, reading.carried)
    return source, connector, model


plain = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-1, 1) | st.text("abc/._", max_size=5)
names = st.sampled_from(["optim", "sched", "lr", "data", "path", "encoder", "fusion", "apply_query_key_layer_scaling"])
sections = st.recursive(plain, lambda inner: st.dictionaries(names, inner, max_size=3) | st.lists(inner, max_size=2))


@settings(max_examples=25)
@given(
    st.sampled_from(FAMILIES), st.dictionaries(names.map("own_{}".format), sections, max_size=4), sections, st.data()
)
def test_whatever_else_a_configuration_says_comes_back(
    family: str, own: dict[str, Any], in_data: Any, data: st.DataObject
) -> None:
    source, connector, model = opened(family)
    config = {**source.config.values, **own, "apply_query_key_layer_scaling": data.draw(st.booleans())}
    config["precision"] = data.draw(st.sampled_from([16, "bf16-mixed", "32-true"]))
    config["data"] = {**config["data"], "own": in_data}
    share = next((key for key in ("mask_prob", "masked_lm_prob", "modify_percent") if key in config["data"]), "own")
    config["data"][share] = data.draw(st.floats(0.0, 1.0))
    read = replace(source, config=ForeignConfig(config, "here"))
    reading = connector.read(read)
    params = {**model.params, **reading.params}
    again = replace(model, params=params, carried=keep_config(reading.carried, read.config))
    assert differences(write_with_source_config(connector, again).config.values, config) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_was_changed_since_differs(family: str) -> None:
    source, connector, model = opened(family)
    config = {**source.config.values, "optim": {"lr": 1.0}, "precision": 16}
    read = replace(source, config=ForeignConfig(config, "here"))
    carried = keep_config(connector.read(read).carried, read.config)
    changed = replace(model, params={**model.params, "hidden_dropout": 0.25}, carried=carried)
    found = differences(write_with_source_config(connector, changed).config.values, config)
    assert {key.rpartition(".")[2] for key in found} == {"hidden_dropout"}
    assert {pair[0] for pair in found.values()} == {0.25}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_came_from_elsewhere_has_a_configuration_of_its_own(family: str) -> None:
    _, connector, model = opened(family)
    alone = replace(model, carried=Carried())
    assert write_with_source_config(connector, alone).config.values == connector.write(alone).config.values


def test_an_archive_of_several_names_keeps_them(tmp_path: Path) -> None:
    """The tokenizer's files keep the names and the bytes of the source."""
    source, connector, model = opened("molmim_xsmall")
    section = {**source.config.values["tokenizer"], "model": "own.model", "vocab_file": "own.vocab"}
    old = source.config.values["tokenizer"]
    files = {"own.model": source.files[old["model"]], "own.vocab": source.files[old["vocab_file"]]}
    named = ForeignModel(ForeignConfig({**source.config.values, "tokenizer": section}, "here"), source.tensors, files)
    carried = keep_config(connector.read(named).carried, named.config)
    write_nemo(tmp_path / "own.nemo", write_with_source_config(connector, replace(model, carried=carried)))
    again = read_nemo(tmp_path / "own.nemo")
    assert again.files == files and again.config.values["tokenizer"] == section
