"""A factory's parameters are its keys; a parameter with a frozen dataclass becomes its fields."""

import dataclasses
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError

from bionemo_core.errors import ConfigError
from bionemo_core.plugins import Component, RegisteredComponent, configure
from bionemo_core.plugins.configure import NO_VALUE, structured_config
from bionemo_core.plugins.help_text import key_help_of


@dataclass(frozen=True)
class Shape:
    """Sizes."""

    num_layers: int  # blocks, one after the other
    hidden_size: int = 320
    rotary: bool = False
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])

    def __post_init__(self) -> None:
        if self.num_layers < 1:
            raise ConfigError(f"model.num_layers is {self.num_layers}, expected 1 or more.")


@dataclass(frozen=True)
class Masking:
    """What is hidden."""

    masked: float = 0.15  # share of the tokens
    seed: int | None = None


def network(shape: Shape, name: str, masking: Masking, extra: Optional[str] = None, *, tokenizer, context):
    """Give back what was passed.

    Args:
        name: what it is called.
    """
    return shape, name, masking, extra, tokenizer, context


def registered(config: Any) -> RegisteredComponent:
    return RegisteredComponent("model", Component("network", config), "bionemo-test", "1.0")


def test_fields_of_dataclasses_are_keys_in_the_place_of_their_parameter():
    config = configure(network, num_layers=6)
    names = ["num_layers", "hidden_size", "rotary", "betas", "name", "masked", "seed", "extra"]
    assert [key.name for key in config.keys] == names
    assert [key.default for key in config.keys] == [6, 320, False, [0.9, 0.99], NO_VALUE, 0.15, None, None]
    assert [key.type for key in config.keys][5:] == [float, int | None, Optional[str]]


def test_the_factory_is_given_the_dataclasses():
    one = registered(configure(network, num_layers=6))
    parameters = one.complete({"name": "x", "hidden_size": 8, "seed": 3})
    shape, name, masking, extra, tokenizer, context = one.factory(**parameters, tokenizer="t", context="c")
    assert shape == Shape(6, 8)
    assert (name, masking, extra, tokenizer, context) == ("x", Masking(seed=3), None, "t", "c")


def test_what_the_core_passes_is_in_the_signature_and_no_key():
    flat = signature(configure(network, num_layers=6).factory).parameters
    assert {"tokenizer", "context", "num_layers"} <= set(flat)
    assert "shape" not in flat


def test_a_fixed_field_is_no_key_and_has_its_value():
    one = registered(configure(network, num_layers=6, rotary=True, name="n", fixed=("rotary", "name")))
    assert {"rotary", "name"}.isdisjoint(key.name for key in one.keys)
    with pytest.raises(ConfigError, match="no parameter 'rotary'"):
        one.complete({"rotary": False})
    shape, name, *_ = one.factory(**one.complete({}), tokenizer=None, context=None)
    assert (shape.rotary, name) == (True, "n")


def test_fixed_without_a_value_is_refused():
    with pytest.raises(ConfigError, match="'num_layers' is fixed and has no value"):
        configure(network, fixed=("num_layers",))


def test_one_name_for_two_keys_is_refused_with_both_places():
    def twice(shape: Shape, hidden_size: int = 3):
        return shape, hidden_size

    with pytest.raises(ConfigError, match=r"'hidden_size' comes from both 'shape' and 'hidden_size'"):
        configure(twice)


def test_a_dataclass_that_may_change_is_an_ordinary_annotation():
    @dataclass
    class Loose:
        a: int = 1

    def make(loose: Loose, more: Any = None):
        return loose, more

    assert [key.name for key in configure(make).keys] == ["loose", "more"]


def test_a_dataclass_is_a_factory_and_may_hold_others():
    @dataclass(frozen=True)
    class Task:
        masking: Masking
        output: str = "here"

    one = registered(configure(Task, masked=0.2))
    assert [key.name for key in one.keys] == ["masked", "seed", "output"]
    assert one.factory(**one.complete({"output": "there"})) == Task(Masking(0.2), "there")


@pytest.mark.parametrize(("names", "defaults"), [(("nothing",), {}), ((), {"nothing": 1})])
def test_names_that_are_not_parameters_are_refused(names, defaults):
    with pytest.raises(ConfigError, match=r"there is no parameter 'nothing'\. It has: num_layers"):
        configure(network, fixed=names, **defaults)


def test_an_annotation_of_a_group_that_does_not_resolve_is_refused():
    @dataclass(frozen=True)
    class Broken:
        a: "Nowhere" = None  # noqa: F821

    def make(broken: Broken):
        return broken

    with pytest.raises(ConfigError, match="annotation of Broken does not resolve"):
        configure(make)


def test_a_range_is_checked_where_the_dataclass_is_built():
    one = registered(configure(network, num_layers=6, name="x"))
    with pytest.raises(ConfigError, match="num_layers is 0"):
        one.factory(**one.complete({"num_layers": 0}), tokenizer=None, context=None)


def test_help_takes_docstrings_and_the_comments_of_fields():
    explained = key_help_of(registered(configure(network, num_layers=6)))
    assert explained == {
        "num_layers": "blocks, one after the other",
        "masked": "share of the tokens",
        "name": "what it is called.",
    }


def test_lists_are_copied_for_each():
    config = configure(network, num_layers=6, name="x", fixed=("betas",))
    first = config.factory(num_layers=1, name="x", tokenizer=None, context=None)[0]
    first.betas.append(7.0)
    assert config.factory(num_layers=1, name="x", tokenizer=None, context=None)[0].betas == [0.9, 0.99]


# hydra-zen 0.17 takes both for Any, and then accepts every value.
@pytest.mark.parametrize(("kind", "default", "wrong"), [(int | None, None, "a word"), (float | str, "a", [1])])
def test_unions_are_checked(kind, default, wrong):
    def make(value: kind = default):
        return value

    config = OmegaConf.structured(configure(make).structured())
    with pytest.raises(ValidationError):
        config.value = wrong


def test_keys_that_hydra_zen_has_arguments_of_are_keys():
    def make(bases: int = 1, config_name: str = "a", hydra_defaults: int = 2, zen_dataclass: int = 3):
        return bases

    config = OmegaConf.structured(configure(make).structured())
    assert dict(config) == {"bases": 1, "config_name": "a", "hydra_defaults": 2, "zen_dataclass": 3}


def test_a_structured_config_is_hydra_zens():
    config = structured_config("some-name", configure(network).keys)
    assert dataclasses.is_dataclass(config)
    assert config.__name__ == "some_name"


@given(
    num_layers=st.integers(1, 1000),
    masked=st.floats(0, 1),
    seed=st.none() | st.integers(0, 2**31),
    betas=st.lists(st.floats(0, 1), max_size=3),
    extra=st.none() | st.text(st.characters(codec="ascii", exclude_characters="$\\"), max_size=9).filter("???".__ne__),
)
def test_values_come_through_config_and_plain_values_unchanged(num_layers, masked, seed, betas, extra):
    given_values = {"num_layers": num_layers, "masked": masked, "seed": seed, "betas": betas, "extra": extra}
    one = registered(configure(network, name="x"))
    config = OmegaConf.structured(one.component.config.structured())
    plain = OmegaConf.to_container(OmegaConf.merge(config, given_values))
    shape, _, masking, got, *_ = one.factory(**one.complete(plain), tokenizer=None, context=None)
    assert (shape, masking, got) == (Shape(num_layers, betas=betas), Masking(masked, seed), extra)


def test_a_key_that_may_not_be_null():
    one = registered(configure(network, num_layers=6, name="x", seed=1, not_null=("seed",)))
    assert {key.name: key.type for key in one.keys}["seed"] is int
    with pytest.raises(ConfigError, match="'None' for field of type 'int'"):
        one.complete({"seed": None})


def test_a_size_refines_a_preset():
    preset = configure(network, num_layers=6, name="x", rotary=True, fixed=("rotary",))
    one = registered(preset.refine(num_layers=2))
    shape = one.factory(**one.complete({}), tokenizer=None, context=None)[0]
    assert (shape.num_layers, shape.rotary) == (2, True)
    assert "rotary" not in {key.name for key in one.keys}
    with pytest.raises(ConfigError, match="no parameter 'layers'"):
        preset.refine(layers=3)


def test_a_preset_may_be_called():
    preset = configure(network, num_layers=6, fixed=("rotary",))
    shape, name, *_ = preset(4, name="y", tokenizer=None, context=None)
    assert (shape.num_layers, shape.hidden_size, name) == (4, 320, "y")
