"""One faulty plugin is named with the reason, and the other plugins still work."""

import dataclasses
import sys
from typing import Optional

import pytest
from omegaconf import OmegaConf

from bionemo_core.config.schema import Choice
from bionemo_core.errors import ConfigError
from bionemo_core.plugins import PluginRecord, Registry, Status
from bionemo_core.plugins.configure import default_field
from bionemo_core.plugins.type_checks import plainly_fits

GOOD = """
def network(width: int = 8, rate: float | None = None, name: str = "x", *, tokenizer, context):
    return {"width": width, "rate": rate, "tokenizer": tokenizer, "context": context}

@hookimpl
def bionemo_models():
    yield Component("goodnet", configure(network), "a network", capabilities=frozenset({"packing"}))
"""


def record_of(registry: Registry, distribution: str) -> PluginRecord:
    return next(record for record in registry.records if record.distribution == distribution)


def model_plugin(name: str, *, options: str = "", factory: str = "def make(a: int = 1): return a") -> str:
    return f"""
{factory}

@hookimpl
def bionemo_models():
    yield Component({name!r}, configure(make), "made for a test"{options})
"""


def test_a_good_plugin_is_found_and_its_component_built(install, load):
    install("good-plugin", GOOD, version="2.1", requires="bionemo-run>=0.2,<0.3")
    registry = load()
    assert record_of(registry, "good-plugin").status is Status.OK
    found = registry.get("model", "goodnet")
    assert (found.distribution, found.version, found.qualified_name) == ("good-plugin", "2.1", "good-plugin/goodnet")
    built = registry.build(
        Choice("model", "goodnet", {"width": 3}, "good-plugin", "2.1"), tokenizer="T", context="C", more=1
    )
    assert built == {"width": 3, "rate": None, "tokenizer": "T", "context": "C"}


def test_a_built_model_says_what_its_plugin_declares(install, load):
    install(
        "good-plugin",
        GOOD.replace("return {", "return Bag({").replace('"context": context}', '"context": context})')
        + """
class Bag(dict):
    pass
""",
    )
    built = load().build(Choice("model", "goodnet", {}), tokenizer="T", context="C")
    assert built.capabilities == {"packing"}


@pytest.mark.parametrize(
    ("source", "options", "status", "words"),
    [
        ("raise ImportError('no such thing')", {}, Status.BROKEN, ["ImportError", "no such thing"]),
        ("import a_package_that_is_absent", {}, Status.BROKEN, ["a_package_that_is_absent"]),
        ("raise SystemExit(3)", {}, Status.BROKEN, ["SystemExit"]),
        ("BIONEMO_PLUGIN_API = 0", {}, Status.INCOMPATIBLE, ["BIONEMO_PLUGIN_API = 0", "expected 1"]),
        ("", {"head": ""}, Status.INCOMPATIBLE, ["it has no BIONEMO_PLUGIN_API", "Its author writes"]),
        ("raise ImportError", {"requires": "bionemo-run>=5"}, Status.INCOMPATIBLE, ["bionemo-run>=5", "0.2.0"]),
        ("", {"extra_entry_point": True}, Status.REJECTED, ["2 entry points", "expected one"]),
        ("@hookimpl\ndef bionemo_model():\n    return []", {}, Status.REJECTED, ["Did you mean 'bionemo_models'"]),
        ("@hookimpl\ndef bionemo_optimisers():\n    return []", {}, Status.REJECTED, ["unknown hook"]),
        ("def bionemo_models():\n    return []", {}, Status.REJECTED, ["@hookimpl"]),
        ("@hookimpl\ndef bionemo_models(config):\n    return []", {}, Status.REJECTED, ["config"]),
        ("", {}, Status.REJECTED, ["offers no component"]),
        (model_plugin("x").replace("yield", "return"), {}, Status.BROKEN, ["Write yield in place of return"]),
        ("@hookimpl\ndef bionemo_models():\n    yield 'esm'", {}, Status.REJECTED, ["expected a Component"]),
        ("@hookimpl\ndef bionemo_models():\n    yield Component('x', None)", {}, Status.REJECTED, ["configure("]),
        ("@hookimpl\ndef bionemo_models():\n    raise ValueError('later')", {}, Status.BROKEN, ["ValueError: later"]),
        (model_plugin("bad name"), {}, Status.REJECTED, ["bad component name"]),
        (model_plugin("null"), {}, Status.REJECTED, ["bad component name"]),
        (model_plugin("x", options=", capabilities={'packin'}"), {}, Status.REJECTED, ["Did you mean 'packing'"]),
        (model_plugin("x", options=", defaults={'tokeniser': 'a'}"), {}, Status.REJECTED, ["Did you mean 'tokenizer'"]),
        (model_plugin("x", options=", defaults={'optim': {'lr': 1.0}}"), {}, Status.REJECTED, ["'base'"]),
        (
            model_plugin("x", options=", defaults={'optim': {'base': 'adamw', 'lrr': 1.0}}"),
            {}, Status.REJECTED, ["'lrr'", "Did you mean 'lr'"],
        ),
        (
            model_plugin("x", options=", defaults={'trainer': {'max_steps': 'many'}}"),
            {}, Status.REJECTED, ["trainer", "many"],
        ),
        (
            model_plugin("x", factory="def make(a: complex = 1j): return a"),
            {}, Status.REJECTED, ["its config is invalid"],
        ),
        (model_plugin("x", factory="def make(a: 'Unknown' = None): return a"), {}, Status.REJECTED, ["Unknown"]),
        (model_plugin("x", factory="def make(a: int = 'b'): return a"), {}, Status.REJECTED, ["its config is invalid"]),
        (model_plugin("x", factory="def make(**more): return more"), {}, Status.REJECTED, ["'more'"]),
    ],
)  # fmt: skip
def test_a_bad_plugin_is_named_with_its_reason_and_the_rest_still_work(install, load, source, options, status, words):
    install("good-plugin", GOOD)
    install("bad-plugin", source, **options)
    registry = load()
    record = record_of(registry, "bad-plugin")
    assert record.status is status, record.reason
    for word in words:
        assert word in record.reason
    assert registry.get("model", "goodnet")
    with pytest.raises(ConfigError, match=r"Did you mean 'goodnet'.*bad-plugin 1\.0 \(" + status):
        registry.get("model", "goodnett")


def test_a_version_mismatch_is_seen_before_import(install, load):
    module = install("bad-plugin", "", requires="bionemo-run<0.1")
    load()
    assert module not in sys.modules


@pytest.mark.parametrize(
    ("variable", "value", "loaded"),
    [
        ("BIONEMO_BLOCK_PLUGINS", "good-plugin", False),
        ("BIONEMO_BLOCK_PLUGINS", "Good_Plugin", False),
        ("BIONEMO_BLOCK_PLUGINS", "another", True),
        ("BIONEMO_LOAD_PLUGINS", "", False),
        ("BIONEMO_LOAD_PLUGINS", "another", False),
        ("BIONEMO_LOAD_PLUGINS", "another, good_plugin", True),
    ],
)
def test_the_environment_says_what_is_imported(install, load, variable, value, loaded):
    module = install("good-plugin", GOOD)
    registry = load(**{variable: value})
    assert (module in sys.modules) is loaded
    record = record_of(registry, "good-plugin")
    assert record.status is (Status.OK if loaded else Status.BLOCKED)
    assert loaded or variable in record.reason


def test_a_name_of_two_plugins_is_refused_unless_qualified(install, load):
    both = (
        model_plugin("samenet")
        + """
@hookimpl
def bionemo_tokenizers():
    yield Component("{}", configure(make))
"""
    )
    install("first-plugin", both.format("one"))
    install("second-plugin", both.format("two"), version="2.0")
    registry = load()
    with pytest.raises(ConfigError) as failure:
        registry.get("model", "samenet")
    assert "first-plugin 1.0 and second-plugin 2.0" in str(failure.value)
    assert "model=second-plugin/samenet" in str(failure.value)
    assert registry.get("model", "second-plugin/samenet").version == "2.0"
    assert registry.build(Choice("model", "samenet", {"a": 7}, "first-plugin", "1.0")) == 7
    assert record_of(registry, "first-plugin").status is Status.CONFLICTING
    assert {"one", "two"} <= set(registry.names("tokenizer"))


def test_no_plugin_can_take_a_name_of_the_core(install, load):
    install(
        "bold-plugin",
        model_plugin("sample").replace("bionemo_models", "bionemo_datasets"),
    )
    registry = load()
    assert registry.get("data", "sample").distribution == "bionemo-run"
    assert registry.get("data", "bold-plugin/sample").distribution == "bold-plugin"
    assert record_of(registry, "bold-plugin").status is Status.CONFLICTING


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"widht": 3}, "Did you mean 'width'"),
        ({"width": "two"}, "could not be converted to Integer"),
        ({"rate": "fast"}, "rate|fast"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(install, load, params, words):
    install("good-plugin", GOOD)
    with pytest.raises(ConfigError, match=words):
        load().build(Choice("model", "goodnet", params, "good-plugin", "1.0"), tokenizer=None, context=None)


def test_another_plugin_never_stands_in_for_the_recorded_one(install, load):
    install("good-plugin", GOOD)
    with pytest.raises(ConfigError, match="lost-plugin/goodnet"):
        load().build(Choice("model", "goodnet", {}, "lost-plugin", "1.0"))


@pytest.mark.parametrize(
    ("hook", "value", "words"),
    [
        ("bionemo_models", "None", "model x-plugin/x: its factory returned None. It must return a LightningModule"),
        ("bionemo_models", "Net()", "returned an object of the class Net. It must return a LightningModule"),
        ("bionemo_tokenizers", "Net()", "class Net. It must return a bionemo_core.protocols.Tokenizer"),
        ("bionemo_datasets", "[]", "data source x-plugin/x: .* class list. It must return .*DataSplits"),
        ("bionemo_callbacks", "None", "callback x-plugin/x: its factory returned None. It must return what it builds"),
    ],
)
def test_what_is_no_such_component_is_named(install, load, hook, value, words):
    factory = f"class Net:\n    def state_dict(self): ...\n\ndef make():\n    return {value}"
    install("x-plugin", model_plugin("x", factory=factory).replace("bionemo_models", hook))
    group = {"bionemo_models": "model", "bionemo_tokenizers": "tokenizer", "bionemo_datasets": "data"}
    with pytest.raises(ConfigError, match=words):
        load().build(Choice(group.get(hook, "callbacks"), "x", {}))


def test_a_missing_package_is_the_users_to_install(install, load):
    install("good-plugin", model_plugin("x", factory="def make():\n    import a_package_that_is_absent"))
    with pytest.raises(ConfigError, match="'a_package_that_is_absent', which is not installed"):
        load().build(Choice("model", "x", {}, "good-plugin", "1.0"))


def test_hydra_zens_own_configs_are_accepted(install, load):
    install(
        "zen-plugin",
        """
from hydra_zen import builds

def make(a: int = 1):
    return a

@hookimpl
def bionemo_callbacks():
    yield Component("made", builds(make, populate_full_signature=True))
""",
    )
    assert load().build(Choice("callbacks", "made", {"a": 5}, "zen-plugin", "1.0")) == 5


def test_the_cores_own_components_pass_the_checks_that_plugins_must_pass():
    from bionemo_core import builtin
    from bionemo_core.plugins.hookspecs import PluginHooks
    from bionemo_core.plugins.loading import collect_components

    assert len(collect_components(builtin, PluginHooks, checked=True)) >= 14


@pytest.mark.parametrize("kind", [int, float, str, bool, int | None, Optional[float], list[float], list[str]])
@pytest.mark.parametrize("value", [1, 1.5, "a", True, None, [1.0, 2], ["a"], [], "${oc.env:HOME}", {}])
def test_what_plainly_fits_is_taken_by_omegaconf_too(kind, value):
    if plainly_fits(value, kind):
        schema = dataclasses.make_dataclass("Schema", [("key", kind, default_field(value))])
        assert OmegaConf.structured(schema).key == value
