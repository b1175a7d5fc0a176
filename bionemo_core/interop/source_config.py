"""The configuration of the archive that a model was read from, kept so that writing it back changes nothing else.

Most of an archive's configuration means nothing to this framework: schedules, paths of data, fusions. So the source's
own is written again, with only those values replaced that differ because the model was changed since it was read.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from bionemo_core.interop.archive import CONFIG
from bionemo_core.interop.connector import Connector, ForeignModel, OurModel
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.stored import Carried
from bionemo_core.interop.yaml_text import read_yaml

_LAYOUT = (
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "pipeline_model_parallel_split_rank",
    "virtual_pipeline_model_parallel_size",
    "make_vocab_size_divisible_by",
    "megatron_amp_O2",
)
"""Keys that describe the weights of the written archive, which are one rank's, padded as ours are."""
_SIDES = ("encoder", "decoder")
_TOKENIZER = "tokenizer"


def keep_config(carried: Carried, config: ForeignConfig) -> Carried:
    """Return the carried parts with the source's configuration among their files."""
    text = yaml.safe_dump(dict(config.values), sort_keys=False).encode()
    return replace(carried, format=carried.format or "nemo", files={**carried.files, CONFIG: text})


def write_with_source_config(connector: Connector, model: OurModel) -> ForeignModel:
    """Translate a model with the connector, and take over the configuration of the archive that it was read from.

    Raises:
        ArtefactError: the kept configuration is damaged.
        ConfigError: the format cannot express the model.
    """
    files = dict(model.carried.files)
    text = files.pop(CONFIG, None)
    model = replace(model, carried=replace(model.carried, files=files))
    now = connector.write(model)
    if text is None or model.carried.format != connector.format:
        return now
    theirs = read_yaml(text, f"the kept {CONFIG}")
    names = _their_names(now, theirs)
    now = replace(
        now,
        config=ForeignConfig(_rename(now.config.values, names), now.where),
        files={names.get(name, name): content for name, content in now.files.items()},
    )
    # What would have been written right after reading: a value that differs from it now was changed since.
    read = connector.read(replace(now, config=ForeignConfig(theirs, now.where)))
    unchanged = connector.write(replace(model, params={**model.params, **read.params}))
    merged = _merge(theirs, _rename(unchanged.config.values, names), now.config.values)
    _describe_layout(merged, now.config.values)
    used = set(merged.get(_TOKENIZER, {}).values())
    kept = {name: content for name, content in now.files.items() if name in used}
    return replace(now, config=ForeignConfig(merged, now.where), files=kept)


def _their_names(now: ForeignModel, theirs: Mapping[str, Any]) -> dict[str, str]:
    """Return the source's names of the tokenizer's files, by the names that the connector gave them."""
    ours, source = (config.get(_TOKENIZER) or {} for config in (now.config.values, theirs))
    return {name: source[key] for key, name in ours.items() if name in now.files and isinstance(source.get(key), str)}


def _rename(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    section = config.get(_TOKENIZER, {})
    return {**config, _TOKENIZER: {key: names.get(str(value), value) for key, value in section.items()}}


def _merge(theirs: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return their values, with those of `now` where it differs from `before`."""
    merged: dict[str, Any] = {}
    for key in [*theirs, *(key for key in now if key not in theirs)]:
        values = [config.get(key) for config in (theirs, before, now)]
        if all(isinstance(value, Mapping) for value in values):
            merged[key] = _merge(*values)  # type: ignore[arg-type]  # mappings, as just checked
        elif (key in before) == (key in now) and values[1] == values[2]:
            if key in theirs:
                merged[key] = theirs[key]
        elif key in now:
            merged[key] = now[key]
    return merged


def _describe_layout(merged: dict[str, Any], now: Mapping[str, Any]) -> None:
    for section in (merged, *(merged[side] for side in _SIDES if isinstance(merged.get(side), dict))):
        section.update({key: now.get(key) for key in _LAYOUT if key in section})
