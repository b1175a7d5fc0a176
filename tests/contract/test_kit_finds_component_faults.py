"""The kit's checks of connectors, heads and callbacks on a plugin that has one fault."""

import pytest
from small_plugin import MakeSubject, finds, their_outputs

from bionemo_core.testing import Subject, callbacks, connectors, heads

# Connectors.


def check_connector(subject: Subject):
    model = subject.component("model", "bag")
    connectors.check_connector(subject, subject.component("connector", "bag_folder"), [model], their_outputs)


SWAPPED = (
    *('Key("query", "attention.query")', 'Key("key", "attention.query")'),
    *('Key("key", "attention.key")', 'Key("query", "attention.key")'),
)


def test_query_and_key_swapped_both_ways(small_plugin: MakeSubject):
    """Written and read back, nothing has changed; only the foreign implementation shows it."""
    with finds("connector 'bag_folder', model 'bag': the hiddens", "differ by", "query and key swapped"):
        check_connector(small_plugin(*SWAPPED, where="connector.py"))


def test_query_and_key_swapped_one_way(small_plugin: MakeSubject):
    tensors = "found.tensors"
    pair = f'{tensors}["query.weight"], {tensors}["key.weight"]'
    swap = f'{pair} = {tensors}["key.weight"], {tensors}["query.weight"]'
    read = 'return Reading("bag"'
    with finds("connector 'bag_folder', model 'bag': tensor 'key.weight' has other values"):
        check_connector(small_plugin(read, f"{swap}\n        {read}", where="connector.py"))


REFUSAL = """from bionemo_core.errors import ConfigError


def raise_if(model):
    raise ConfigError('no')


TABLE ="""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('params["dropout"] = config.number("hidden_dropout_prob")', "pass", []),
        ('config.number("hidden_dropout_prob")', "0.1", ["with dropout=0.05: the parameter dropout=0.05 is 0.1"]),
        ('        Key("output", "head"),\n', "", ["failed with ArtefactError", "output"]),
        ("tensors = TABLE", 'tensors = {"extra": model.tensors["key.bias"]} | TABLE', ["no counterpart for 'extra'"]),
        ('config.values.get("model_type") == "bag"', "True", ["recognises an empty configuration"]),
        ('config.values.get("model_type") == "bag"', 'config.values.get("type") == "bag"', ["`recognises` is false"]),
        ('config.size("max_position_embeddings")', "64", ["with seq_length=32: the parameter seq_length=32 is 64"]),
        ('format = "huggingface"', 'format = "onnx"', ["format is 'onnx'", "nemo, huggingface"]),
        ('frozenset({"bag"})', 'frozenset({"bog"})', ["models is ['bog']"]),
        ("    def recognises", "    def knows", ["lacks a member of interop.Connector"]),
        ('"letters", found', "None, found", ["no tokenizer for the vocabulary"]),
        ('values["hidden_dropout_prob"] = params["dropout"]', 'values[1] = params["dropout"]', ["changes in JSON"]),
        ("        params = model.params\n", "        raise_if(model)\n", ["refuses the model", "`parameters = "]),
    ],
    ids=[
        "no effect in use", "constant", "tensor without a name", "stranger", "claims all", "knows nothing",
        "whole number", "format", "models", "member", "tokenizer", "keys", "refuses",
    ],
)  # fmt: skip
def test_a_connector_with_a_fault(small_plugin: MakeSubject, old: str, new: str, message: list[str]):
    subject = small_plugin(old, new, "TABLE =", REFUSAL, where="connector.py")
    if not message:
        check_connector(subject)  # a parameter that the reading leaves out, and that changes no output
        return
    with finds("connector 'bag_folder'", *message):
        check_connector(subject)


def test_a_connector_that_names_another_alphabet(small_plugin: MakeSubject):
    """It has as many letters, so that only their order shows it."""
    reversed_letters = """def reversed_letters():
    from .alphabet import Letters

    tokenizer = Letters()
    special, letters = tokenizer.pieces[:5], tokenizer.pieces[5:]
    return type(tokenizer).__base__((*special, *reversed(letters)), unk_id=0, bos_id=1, eos_id=2, pad_id=3, mask_id=4)


def peptides("""
    offered = 'yield Component("letters", configure(letters), "twenty residues")'
    another = '    yield Component("reversed", configure(reversed_letters), "from the last to the first")'
    subject = small_plugin(
        *("def peptides(", reversed_letters, offered, f"{offered}\n{another}"),
        also={"connector.py": ('"letters", found', '"reversed", found')},
    )
    with finds("`read` names the tokenizer 'reversed'", "id 5 is 'Y', not 'A'", "read every text wrongly"):
        check_connector(subject)


COSINE = """class Cosine(Bag):
    def hidden_states(self, batch):
        return torch.cos(super().hidden_states(batch))


"""


def test_a_switch_that_the_format_loses(small_plugin: MakeSubject):
    """It changes what the model computes, and the model that is read back has the default."""
    subject = small_plugin(
        *("    width: int = 32,\n", "    width: int = 32,\n    cosine: bool = False,\n"),
        *("return build(width", "return build(cosine, width"),
        also={
            "network.py": (
                *("def build(width", "def build(cosine, width"),
                *("network = Bag(", "network = (Cosine if cosine else Bag)("),
                *("class Module", f"{COSINE}class Module"),
            )
        },
    )
    with finds("with cosine=True: the model has the loss", "must be in the foreign configuration"):
        check_connector(subject)


# Heads.


def check_head(subject: Subject):
    heads.check_head(subject, subject.component("head", "answer"))


ONLY_RESIDUES = """if not per_residue:
            from bionemo_core.errors import ConfigError

            raise ConfigError("answers for every residue")
        return Head("""


LINEAR = "self.linear(self.dropout(states))"
HEAD_FAULTS = {
    "no fault": ("return self.linear(", "return self.linear.requires_grad_(True)(", None),
    "one kind only": ("return Head(", ONLY_RESIDUES, None),
    "shape": (
        "residues.states if self.per_residue else residues.mean()",
        "residues.states",
        ["per_residue=False", "[32, 3], expected [4, 3]"],
    ),
    "batch": (LINEAR, "self.linear(states - states.mean(0))", ["if other sequences are in the batch"]),
    "dropout": (
        "self.dropout(states)",
        "torch.nn.functional.dropout(states, 0.1)",
        ["outputs change when it is called again", "training only"],
    ),
    "seed": (
        "super().__init__()\n        self.per",
        "super().__init__()\n        torch.seed()\n        self.per",
        ["torch.manual_seed(0)", "linear.weight differs"],
    ),
    "detached": (LINEAR, "self.linear(states.detach())", ["no gradient reaches the states"]),
    "idle": (
        "self.per_residue = per_residue",
        "self.per_residue = per_residue\n        self.spare = torch.nn.Linear(2, 2)",
        ["no gradient reaches spare.weight, spare.bias"],
    ),
    "hidden state": (LINEAR, "self.linear(states) + self.shift", ["same state_dict", "its outputs differ"]),
    "one output": (LINEAR, "self.linear(states).squeeze(-1)", ["outputs=1", "returns [4], expected [4, 1]"]),
    "in place": (
        LINEAR,
        "self.linear(residues.states.mul_(2) if self.per_residue and not self.training else states)",
        ["changes the states in place"],
    ),
    "type": (LINEAR, "self.linear(states).double()", ["its outputs are torch.float64, expected torch.float32"]),
    "no module": ("return Head(hidden_size, outputs, per_residue, self.dropout)", "return 3", ["build returns int"]),
    "no build": ("    def build(", "    def make(", ["returns Answer, expected settings with a method"]),
    "raises": ("return Head(", "return hidden_size.nothing(", ["build(24, 3, False) failed with AttributeError"]),
}


@pytest.mark.parametrize(("old", "new", "message"), HEAD_FAULTS.values(), ids=HEAD_FAULTS)
def test_a_head_with_a_fault(small_plugin: MakeSubject, old: str, new: str, message: list[str] | None):
    shift = ("self.linear = torch", "self.shift = torch.randn(outputs)\n        self.linear = torch")
    subject = small_plugin(old, new, *shift, where="extras.py")
    if message is None:
        check_head(subject)
        return
    with finds("head 'answer'", *message):
        check_head(subject)


# Callbacks.


def check_callback(subject: Subject, *, with_model: bool = True):
    model = subject.component("model", "bag") if with_model else None
    callbacks.check_callback(subject, subject.component("callbacks", "slower"), model)


COUNT = 'return {"batches": self.batches}'
STEP = "        self.batches += 1\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (COUNT, 'return {"batches": 0}', ["the loss of step 10 is", "after resuming from step 8", "in state_dict"]),
        (STEP, f"{STEP}        pl_module.eval()\n", ["from batch 2 on, the model is not in training mode"]),
        (STEP, "        raise KeyError('gone')\n", ["training failed with KeyError", "gone"]),
        ('state_dict["batches"]', 'state_dict["steps"]', ["load_state_dict(state_dict()) failed with KeyError"]),
        ("class Slower(Callback)", "class Slower", ["returns Slower, expected a pytorch_lightning.Callback"]),
        ("1 - 1e-3 *", "float('nan') *", ["NonFiniteError"]),
    ],
    ids=["forgets", "evaluates", "raises", "state", "kind", "not finite"],
)
def test_a_callback_with_a_fault(small_plugin: MakeSubject, old: str, new: str, message: list[str]):
    with finds("callbacks 'slower'", *message):
        check_callback(small_plugin(old, new, where="extras.py"))


def hook(name: str) -> str:
    """Source that adds a hook that fails."""
    return (
        f"{STEP}\n    def {name}(self, trainer, pl_module):\n        raise KeyError('gone')\n\n    def unused(self):\n"
    )


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("        raise KeyError('gone')\n", ["training with it failed with KeyError", "gone"]),
        (f"{STEP}        pl_module.eval()\n", ["from batch 2 on, the model is not in training mode"]),
        (hook("on_validation_end"), ["training with it failed with KeyError"]),
        (hook("on_test_start"), ["training with it failed with KeyError"]),
        (f"{STEP}        self.state_dict = None\n", ["after training: load_state_dict(state_dict()) failed"]),
    ],
    ids=["raises", "evaluates", "validation", "test", "state"],
)
def test_a_callback_of_a_plugin_without_models(small_plugin: MakeSubject, new: str, message: list[str]):
    with finds("callbacks 'slower'", *message):
        check_callback(small_plugin(STEP, new, where="extras.py"), with_model=False)
