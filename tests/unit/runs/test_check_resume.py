"""What a resume may change of its data: where files are and how they are read, if the records are the same."""

from types import SimpleNamespace

import pytest

from bionemo_core.builtin import load_registry
from bionemo_core.cli.run import compose
from bionemo_core.config.schema import RunSpec
from bionemo_core.config.spec import make_spec
from bionemo_core.errors import ConfigError
from bionemo_core.runs.resume import check_resume

pytest.importorskip("bionemo_esm")


def spec_of(*data: str) -> RunSpec:
    registry = load_registry()
    return make_spec(compose(["model=esm1nv_tiny", "data=csv", *data], registry), registry)


def check(before: RunSpec, after: RunSpec, then: str = "same", now: str = "same") -> None:
    check_resume(before, after, SimpleNamespace(facts={"data_fingerprint": then}), SimpleNamespace(fingerprint=now))


def test_files_may_move_if_the_records_are_the_same():
    before, after = spec_of("data.path=a/x.csv"), spec_of("data.path=b/x.csv", "data.column=sequence")
    check(before, after)
    for then, now in (("other", "same"), ("", "")):
        with pytest.raises(ConfigError, match=r"data\.path: a/x\.csv -> b/x\.csv; data\.column: None -> sequence"):
            check(before, after, then, now)


def test_what_decides_on_records_or_splits_may_not_change():
    before, after = spec_of("data.path=a/x.csv"), spec_of("data.path=b/x.csv", "data.split_seed=1")
    with pytest.raises(ConfigError, match=r"other settings: data\.split_seed: 0 -> 1\. Give"):
        check(before, after)
    with pytest.raises(ConfigError, match="the data changed since the checkpoint"):
        check(before, before, now="other")
