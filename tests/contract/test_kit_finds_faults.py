"""Each check of the kit fails on a plugin with one fault, and says what is wrong and what to do."""

from pathlib import Path

import pytest
from small_plugin import HOOKS, MakeSubject, finds, their_outputs

from bionemo_core.testing import (
    KitSettings,
    Subject,
    callbacks,
    capabilities,
    configs,
    connectors,
    datasets,
    heads,
    imports,
    installed,
    keys_read,
    make_plugin,
    networks,
    tokenizers,
    training,
)
from bionemo_core.testing.subject import ConformanceError, explain_failures

API = "BIONEMO_PLUGIN_API = 1"


def test_an_assertion_of_the_plugin_says_where_it_failed():
    said = "loss 'mine' failed with AssertionError: not so"
    with pytest.raises(ConformanceError, match=said), explain_failures("loss 'mine'"):
        raise AssertionError("not so")


def test_the_plugin_without_a_fault_passes(small_plugin: MakeSubject):
    subject = small_plugin()
    imports.check_found(subject)
    imports.check_core_requirement(subject)
    imports.check_light_import(subject)
    imports.check_names(subject)
    for component in subject.components():
        configs.check_parameters(subject, component)
        keys_read.check_keys_are_read(component)
    model = subject.component("model", "bag")
    configs.check_defaults(subject, model)
    configs.check_round_trip(subject, model)
    tokenizers.check_tokenizer(subject, subject.component("tokenizer", "letters"))
    datasets.check_dataset(subject, subject.component("data", "peptides"))
    capabilities.check_types(subject, model)
    training.check_trains(subject, model)
    training.check_resumes(subject, model)
    capabilities.check_packing(subject, model)
    networks.check_loss_is_a_sum(subject, model)
    networks.check_states(subject, model)
    networks.check_seed(subject, model)
    networks.check_objective(subject, model)
    connectors.check_connector(subject, subject.component("connector", "bag_folder"), [model], their_outputs)
    heads.check_head(subject, subject.component("head", "answer"))
    callbacks.check_callback(subject, subject.component("callbacks", "slower"), model)
    callbacks.check_callback(subject, subject.component("callbacks", "slower"), None)


# Found and loads.


def test_a_plugin_that_is_not_installed(tmp_path: Path):
    with finds("no installed plugin is called 'nobodys'", "bionemo.plugins", "pip install"):
        imports.check_found(Subject(KitSettings("nobodys"), tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (API, "import absent_package", "absent_package"),
        (API, "BIONEMO_PLUGIN_API = 99", "99"),
        ("def bionemo_models", "def bionemo_model", "bionemo_models"),
        ('{"tokenizer": "letters", "data": "peptides"}', '{"optim": {"base": "adamw", "rate": 1}}', "rate"),
    ],
    ids=["import", "api", "hook", "recipe"],
)
def test_a_plugin_that_cannot_be_used(small_plugin: MakeSubject, old: str, new: str, message: str):
    with finds("bionemo-small 1.0", message):
        imports.check_found(small_plugin(old, new))


@pytest.mark.parametrize(
    ("requires", "message"),
    [((), "does not declare that it needs bionemo-run"), (("bionemo-run>=0.2",), "admits every later core")],
    ids=["nothing", "no upper bound"],
)
def test_a_plugin_that_does_not_say_which_core_it_needs(
    small_plugin: MakeSubject, requires: tuple[str, ...], message: str
):
    with finds(message, "bionemo-run>=0.2,<0.3"):
        imports.check_core_requirement(small_plugin(requires=requires))


# Light to import.


def test_a_plugin_that_imports_torch(small_plugin: MakeSubject):
    with finds("imports torch (imported at", "small/__init__.py:5)", "body of the factory"):
        imports.check_light_import(small_plugin(API, f"import torch\n{API}"))


def test_a_plugin_that_is_slow_to_import(small_plugin: MakeSubject):
    slow = f"import time\nwhile time.process_time() < 1.5: pass\n{API}"
    with finds("s of CPU", "importtime", "import small"):
        imports.check_light_import(small_plugin(API, slow))


def test_a_plugin_that_ends_the_process(small_plugin: MakeSubject):
    with finds("importing 'small' ended the process with status 3"):
        imports.check_light_import(small_plugin(API, "import os\nos._exit(3)"))


# Names.


def test_a_name_of_the_cores(small_plugin: MakeSubject):
    with finds("data source 'sample' is the core's own", "Choose another name"):
        imports.check_names(small_plugin('"peptides", configure', '"sample", configure'))


def test_a_name_of_another_plugin(small_plugin: MakeSubject, tmp_path: Path):
    subject = small_plugin()
    with installed(make_plugin(tmp_path / "other", "other", HOOKS)):
        with finds("bionemo-other", "bionemo-small", "Choose another name"):
            imports.check_names(subject)
        assert [one.distribution for one in subject.registry.records if one.usable] == ["bionemo-run", "bionemo-small"]


# Parameters.


WITH_HYDRA_ZEN = """\
from typing import TYPE_CHECKING
from hydra_zen import builds
if TYPE_CHECKING:
    from somewhere import Network
def configure(factory):
    hidden = [name for name in ("tokenizer", "context") if name in factory.__code__.co_varnames]
    return builds(factory, populate_full_signature=True, zen_exclude=hidden)
BIONEMO_PLUGIN_API = 1"""

BY_HAND = """\
from dataclasses import make_dataclass
def configure(factory):
    fields = [("_target_", str, f"{factory.__module__}.{factory.__name__}")]
    return make_dataclass("ByHand", [*fields, *FIELDS])
BIONEMO_PLUGIN_API = 1"""


def check_model_parameters(subject: Subject):
    configs.check_parameters(subject, subject.component("model", "bag"))


def test_a_parameter_without_a_type(small_plugin: MakeSubject):
    with finds("model 'bag'", "'width' has no type", "Annotate it"):
        check_model_parameters(small_plugin("width: int = 32", "width=32"))


def test_a_parameter_said_to_be_anything(small_plugin: MakeSubject):
    changes = ("width: int = 32", "width: Any = 32", API, f"from typing import Any\n{API}")
    with finds("'width' is annotated typing.Any", "became Any"):
        check_model_parameters(small_plugin(*changes))


def test_a_configuration_that_hydra_zen_made(small_plugin: MakeSubject):
    check_model_parameters(small_plugin(API, WITH_HYDRA_ZEN))


def test_types_that_hydra_zen_lost_through_a_return_annotation(small_plugin: MakeSubject):
    returned = ("    context: BuildContext,\n):", '    context: BuildContext,\n) -> "Network":')
    with finds("'width' is annotated", "became Any", "TYPE_CHECKING"):
        check_model_parameters(small_plugin(API, WITH_HYDRA_ZEN, *returned))


def test_a_key_that_the_factory_does_not_accept(small_plugin: MakeSubject):
    code = BY_HAND.replace("FIELDS", '[("depth", int, 2)]')
    with finds("a key 'depth' that the factory bag does not accept", "configure(factory)"):
        check_model_parameters(small_plugin(API, code))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        (("return Slower(factor)", "return Slower(0.9)"), "slower"),
        (("return splits(size)", "return splits(128)"), "peptides"),
    ],
    ids=["callback", "dataset"],
)
def test_a_key_that_its_factory_ignores(small_plugin: MakeSubject, changes: tuple[str, str], place: str):
    subject = small_plugin(*changes)
    name = "factor" if place == "slower" else "size"
    with finds(f"nothing reads the key {name!r}, which {place} gets"):
        for component in subject.components():
            keys_read.check_keys_are_read(component)


def test_a_key_that_is_lost_further_on(small_plugin: MakeSubject):
    """The factory passes it to `build`, which forgets it."""
    subject = small_plugin("Bag(width, dropout, seq", "Bag(width, 0.1, seq", where="network.py")
    with finds("model 'bag': nothing reads the key 'dropout', which build gets"):
        keys_read.check_keys_are_read(subject.component("model", "bag"))


def test_an_argument_that_nobody_gives(small_plugin: MakeSubject):
    with finds("needs 'vocabulary'", "tokenizer, context, run"):
        code = BY_HAND.replace("FIELDS", "[]")
        check_model_parameters(small_plugin(API, code, "width: int = 32", "vocabulary: int"))


# Defaults and round trips.


def check_model_defaults(subject: Subject):
    configs.check_defaults(subject, subject.component("model", "bag"))


def test_a_default_that_nobody_offers(small_plugin: MakeSubject):
    with finds("needs tokenizer 'esm2', which neither bionemo-small nor the core offers", "Offer it in this plugin"):
        check_model_defaults(small_plugin('"tokenizer": "letters"', '"tokenizer": "esm2"'))


def test_a_parameter_without_a_value(small_plugin: MakeSubject):
    with finds("keys need a value: model.width", "`parameters = "):
        check_model_defaults(small_plugin("    width: int = 32,\n", "    width: int,\n"))


def test_a_value_for_a_key_without_default_where_the_messages_say(small_plugin: MakeSubject):
    """A parameter of the plugin, and one of the data that is the core's."""
    subject = small_plugin(
        *("    width: int = 32,\n", "    width: int,\n"),
        *('"data": "peptides"', '"data": "fasta"'),
        parameters={"model/bag": {"width": 8}, "data/fasta": {"path": "ten.fasta"}},
    )
    model = subject.component("model", "bag")
    configs.check_defaults(subject, model)
    spec = subject.spec(subject.compose("bag"))
    assert (spec.model.params["width"], spec.data.params["path"]) == (8, "ten.fasta")


def test_a_value_of_the_cores_data_that_is_missing(small_plugin: MakeSubject):
    subject = small_plugin('"data": "peptides"', '"data": "fasta"')
    with finds("keys need a value: data.path", "`parameters = {'GROUP/NAME': {...}}`"):
        check_model_defaults(subject)
    with finds("not to a valid run", "data.path", "`parameters = {'GROUP/NAME': {...}}`"):
        configs.check_round_trip(subject, subject.component("model", "bag"))


def test_parameters_of_a_component_that_does_not_exist(small_plugin: MakeSubject):
    with finds("`parameters` names 'model/bog'", "Did you mean 'model/bag'"):
        imports.check_found(small_plugin(parameters={"model/bog": {"width": 8}}))


def test_a_small_parameter_that_does_not_exist(small_plugin: MakeSubject):
    with finds("num_layers", "`small`"):
        check_model_defaults(small_plugin(small={"num_layers": 2}))


def test_a_model_without_a_tokenizer(small_plugin: MakeSubject):
    subject = small_plugin('"tokenizer": "letters", ', "")
    with finds("composes, but not to a valid run", "tokenizer", "`defaults`"):
        configs.check_round_trip(subject, subject.component("model", "bag"))


@pytest.mark.parametrize("others", ['"exact_resume"', '"tensor_parallel", "embedding"', ""])
def test_a_capability_that_is_not_declared_cannot_be_asked_for(small_plugin: MakeSubject, others: str):
    """Whatever else the model declares; without a request it is off."""
    subject = small_plugin('{"packing", "tensor_parallel", "exact_resume", "embedding"}', f"[{others}]")
    assert not subject.spec(subject.compose("bag")).batch.packing
    with finds("does not declare 'packing', which batch.packing=true needs", "Use batch.packing=false"):
        subject.spec(subject.compose("bag", "batch.packing=true"))


ENUMERATION = "from enum import Enum\nclass Kind(Enum):\n    SMALL = 1\n"


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("scales: dict = {1: 0.5}", "the key 1 is not allowed"),
        ("rate: float = float('nan')", "model differ"),
        ("kind: Kind = Kind.SMALL", "model differ"),
    ],
    ids=["number as a key", "not a number", "enumeration"],
)
def test_a_parameter_that_is_not_plain(small_plugin: MakeSubject, parameter: str, message: str):
    subject = small_plugin("    width: int", f"    {parameter},\n    width: int", API, f"{ENUMERATION}{API}")
    with finds("model", message):
        configs.check_round_trip(subject, subject.component("model", "bag"))


# Tokenizers.


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("vocab_size = 128", ["vocab_size is 128, but there are 25 pieces"]),
        ("bos_id = property(lambda self: 2, lambda self, value: None)", ["bos_id and eos_id are both 2"]),
        ("mask_id = property(lambda self: 0, lambda self, value: None)", ["unk_id and mask_id are both 0"]),
        ("mask_id = property(lambda self: 40, lambda self, value: None)", ["mask_id is 40", "0 to 24"]),
        ("decode = lambda self, ids: ' '.join(self.pieces[i] for i in ids)", ["is decoded as", "(ids ["]),
        ("decode = lambda self, ids: ''.join(self.pieces[i] for i in ids)", ["leaves special tokens", "<s>"]),
        ("encode = lambda self, text: [5 for _ in text]", ["encode returns list", "int32"]),
        ("encode = lambda self, text: 1 / 0", ["failed with ZeroDivisionError"]),
        (
            "def encode(self, text):\n        ids = CharacterTokenizer.encode(self, text)\n        return ids[ids > 0]",
            ["unknown character '~'", "expected unk_id 0"],
        ),
        (
            "def encode(self, text):\n        ids = CharacterTokenizer.encode(self, text)\n"
            "        return __import__('numpy').append(ids, 2).astype('int32')",
            ["special ids [2]", "adds BOS and EOS itself"],
        ),
    ],
    ids=[
        "size",
        "twins",
        "mask is unknown",
        "outside",
        "spaces",
        "special text",
        "list",
        "raises",
        "drops unknown",
        "adds EOS",
    ],
)
def test_a_tokenizer_that_breaks_the_contract(small_plugin: MakeSubject, method: str, message: list[str]):
    subject = small_plugin("    def __init__", f"    {method}\n\n    def __init__", where="alphabet.py")
    with finds("tokenizer 'letters'", *message):
        tokenizers.check_tokenizer(subject, subject.component("tokenizer", "letters"))


@pytest.mark.parametrize(
    ("ids", "message"), [("{0, 1, 2, 3}", "mask_id 4 is not in special_ids [0, 1, 2, 3]"), ("()", "pad_id 3 is not in")]
)
def test_a_special_token_that_masking_would_touch(small_plugin: MakeSubject, ids: str, message: str):
    subject = small_plugin("mask_id=4)", f"mask_id=4)\n        self.special_ids = {ids}", where="alphabet.py")
    with finds(f"tokenizer 'letters': {message}"):
        tokenizers.check_tokenizer(subject, subject.component("tokenizer", "letters"))


CANONICAL = """
class Upper:
    noun, version = "peptide", "1"

    def __call__(self, text):
        return text.upper()

    def why_not(self, text):
        return "is no peptide"


class Letters("""


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("text.upper()", []),
        ("text.upper() + b'A'", ["canonical(b'A') is b'AA', whose own form is b'AAA'"]),
        ("text.upper().decode()", ["expected bytes or None"]),
        ("None", ["why_not has no reason"]),
        ("id(self).to_bytes(8, 'big')", ["the same everywhere"]),
    ],
    ids=["no fault", "grows", "text", "no reason", "another process"],
)
def test_a_canonical_form_that_is_not_stable(small_plugin: MakeSubject, new: str, message: list[str]):
    changes = ("class Letters(", CANONICAL.replace("text.upper()", new), "super().__init__((", INIT)
    if new == "None":
        changes = (*changes, '"is no peptide"', '""')
    subject = small_plugin(*changes, where="alphabet.py")
    letters = subject.component("tokenizer", "letters")
    if not message:
        tokenizers.check_tokenizer(subject, letters)
        return
    with finds("tokenizer 'letters'", *message):
        tokenizers.check_tokenizer(subject, letters)


INIT = "self.canonical = Upper()\n        super().__init__(("


# Datasets.


ORDER = """    def order(self, seed):
        return Forward(len(self), seed)


class Forward:
    def __init__(self, size, seed):
        self.size = size

    def locate(self, positions):
        return positions // self.size, positions % self.size


def splits("""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("positions % self.size", "positions % self.size", []),
        ("positions % self.size", "positions % self.size + 1", ["gives records 1 to 128", "expected records 0 to 127"]),
        ("positions % self.size", "np.random.permutation(positions) % self.size", ["when it is asked again"]),
        ("positions % self.size", "np.arange(len(positions)) % self.size", ["for other positions at once"]),
        ("positions // self.size", "0", ["gives the shapes () and"]),
    ],
    ids=["no fault", "beyond the end", "random", "positions", "shape"],
)
def test_an_order_that_is_not_pure(small_plugin: MakeSubject, old: str, new: str, message: list[str]):
    subject = small_plugin("def splits(", ORDER.replace(old, new), where="records.py")
    peptides = subject.component("data", "peptides")
    if not message:
        datasets.check_dataset(subject, peptides)
        return
    with finds("data 'peptides'", *message):
        datasets.check_dataset(subject, peptides)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("default_rng(first)", "default_rng()", ["record 0 differs when it is read again"]),
        ("return self.texts[index]", "return self.texts[index] + 'A'", ["`lengths` says", "the tokenizer makes"]),
        (
            "self.lengths = np.array([",
            "self.lengths = np.array([1] + [",
            ["`lengths` has the shape", "one length per record"],
        ),
        (
            'fingerprint=f"peptides of {size}"',
            "fingerprint=__import__('os').urandom(8).hex()",
            ["fingerprints differ", "without paths or times"],
        ),
        (', fingerprint=f"peptides of {size}"', "", ["no fingerprint", "resume"]),
        (
            "for _ in range(size)]",
            "for _ in range(size)]\n        self.texts = list(set(self.texts))",
            ["another process"],
        ),
        ("Peptides(0, size), val", "Peptides(0, 0), val", ["'train' is empty"]),
        ("return self.texts[index]", "return self.texts[index].split()", ["record 0 is list, expected str or bytes"]),
    ],
    ids=[
        "random",
        "other lengths",
        "a length too many",
        "other fingerprint",
        "no fingerprint",
        "order of a set",
        "empty",
        "no text",
    ],
)
def test_a_dataset_that_breaks_the_contract(small_plugin: MakeSubject, old: str, new: str, message: list[str]):
    subject = small_plugin(old, new, where="records.py")
    with finds("data 'peptides'", *message):
        datasets.check_dataset(subject, subject.component("data", "peptides"))
