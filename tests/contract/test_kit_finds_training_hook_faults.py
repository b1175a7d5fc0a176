"""The kit's checks of what a plugin adds to a training: optimizers, losses and others, each with one fault."""

from collections.abc import Callable
from typing import Any

import pytest
from small_plugin import HOOKS, finds

from bionemo_core.testing import configs, datasets, networks
from bionemo_core.testing.optional import augmentations, losses, optimizers, tasks


def judge(check: Callable[..., None], subject: Any, group: str, name: str, message: list[str] | None) -> None:
    """Run a check, which must find the fault that the message describes, or none."""
    component = subject.component(group, name)
    if message is None:
        check(subject, component)
        return
    with finds(f"{group} {name!r}", *message):
        check(subject, component)


RATE = 'alpha=-group["lr"])'
DECAY = '1 - group["lr"] * settings.weight_decay'
WITH_GRADIENT = " if one.grad is not None"
STATE = 'self.state[parameter].setdefault("average", torch.zeros_like(parameter))'
SIGN = "1 - settings.blend).sign_()"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((RATE, RATE), None),
        ((RATE, "alpha=-1e-3)"), ["with lr=0 in its parameter groups a step changes used.weight"]),
        (
            (
                WITH_GRADIENT,
                "",
                "parameter.grad,",
                "torch.zeros_like(parameter) if parameter.grad is None else parameter.grad,",
            ),
            ["idle.weight", "have no gradient"],
        ),
        ((RATE, "alpha=0.0)", DECAY, "1.0"), ["changes only nothing"]),
        ((SIGN, SIGN + "\n                        update.mul_(parameter.grad.norm())"), ["half of a parameter"]),
        ((STATE, "vars(self).setdefault(id(parameter), torch.zeros_like(parameter))"), ["after a resume", "used."]),
        (
            (STATE, STATE + '\n                        self.state[parameter]["rows"] = parameter.sum(-1, True)'),
            ["keeps 'rows'"],
        ),
        (("if one.requires_grad]", "if one.requires_grad and one.dim() > 1]"), ["used.bias", "in no parameter group"]),
        (("return LionOptimizer(", "return list("), ["training with it failed with TypeError"]),
        (
            ("    lr: NotNegative", "    rate: NotNegative", "self.lr}", "self.rate}"),
            ["expected settings with a number `lr`"],
        ),
    ],
    ids=["none", "rate", "no gradient", "idle", "norm", "hidden state", "shape", "left out", "raises", "no lr"],
)
def test_an_optimizer_with_a_fault(extras, changes: tuple[str, ...], message: list[str] | None):
    judge(optimizers.check_optimizer, extras("lion.py", *changes), "optim", "lion", message)


def test_an_optimizer_that_needs_whole_parameters_says_so(extras):
    norm = (SIGN, SIGN + "\n                        update.mul_(parameter.grad.norm())")
    declared = ("    def build(", "    whole_parameters = True\n\n    def build(")
    judge(optimizers.check_optimizer, extras("lion.py", *norm, *declared), "optim", "lion", None)


SUM = ".where(counts, 0.0).sum()"
KINDS = 'kinds = ("sequence_regression", "token_regression")'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((SUM, SUM), None),
        ((SUM, SUM.replace("sum()", "mean()")), ["Return the sum over the labels, not a mean"]),
        ((SUM, SUM.replace("sum()", "sum() / counts.sum()")), ["without a label that counts it is not 0"]),
        ((SUM, ".sum()"), ["labels that do not count change the loss"]),
        ((SUM, SUM.replace("sum()", "sum(0)")), ["torch.float32 of shape [1]"]),
        ((SUM, SUM + ".detach()"), ["does not require grad"]),
        ((SUM, SUM + ".neg()"), ["right outputs have the loss"]),
        ((KINDS, 'kinds = ("sequences",)'), ["its `kinds` are ('sequences',), expected some of"]),
        ((KINDS, 'kinds = ("sequence_classification",)'), ["with sequence_classification", "failed with"]),
    ],
    ids=["none", "mean", "no label", "ignores", "shape", "detached", "sign", "kinds", "classes"],
)
def test_a_loss_with_a_fault(extras, changes: tuple[str, ...], message: list[str] | None):
    judge(losses.check_loss, extras("huber.py", *changes), "loss", "huber", message)


CHANGE = "record.translate(COMPLEMENT)[::-1] if draw.uniform(1)[0] < share else record"


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (CHANGE, None),
        ("record", ["it changes none of 32 records"]),
        (f'({CHANGE}) + b"AC"', ["tokens of", "`longest(length)`"]),
        (CHANGE.replace("draw.uniform(1)[0]", "__import__('random').random()"), ["for the same draw"]),
        (f'({CHANGE}).replace(b"A", b"U")', ["letters that the tokenizer does not know"]),
        (f"str({CHANGE})", ["expected bytes"]),
    ],
    ids=["none", "nothing", "longer", "random", "alphabet", "text"],
)
def test_an_augmentation_with_a_fault(extras, new: str, message: list[str] | None):
    subject = extras("strands.py", CHANGE, new)
    judge(augmentations.check_augmentation, subject, "augmentation", "strands", message)


ROWS = "return collate(cut, num_packs, shape)"


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (ROWS, None),
        (ROWS.replace("cut", "cut[1:]"), ["collate makes rows of"]),
        ("return cut", ["collate returns list"]),
        (
            f"cut[0].tokens[1:] = np.random.randint(9, size=len(cut[0].tokens) - 1)\n            {ROWS}",
            ["other rows of the same examples"],
        ),
        ("return 1 / 0", ["collate of its objective failed with ZeroDivisionError"]),
    ],
    ids=["none", "drops", "kind", "random", "raises"],
)
def test_a_collation_with_a_fault(extras, new: str, message: list[str] | None):
    judge(networks.check_objective, extras("even.py", ROWS, new), "model", "even", message)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("top.py", ("blocks: Count", "blocks: Count"), None),
        ("top.py", ("def train_top(spec, registry, *, ", "def train_top(spec, *, "), ["cannot be called"]),
        ("top.py", ("def train_top", "def train_bottom"), ["importing bionemo_extras.top:train_top failed"]),
        ("training.py", ('of a model only"', 'of a model only", unused=("optims",)'), ["`unused` names 'optims'"]),
        ("training.py", ('of a model only"', 'of a model only", unused_with={"a=1": ()}'), ["whose key the task"]),
        (
            "training.py",
            ("TaskSpec.of(Top, ", "Component('top', configure(Top)) or ("),
            ["expected a bionemo_core.TaskSpec"],
        ),
    ],
    ids=["none", "arguments", "absent", "unused", "unused with", "kind"],
)
def test_a_task_with_a_fault(extras, file: str, changes: tuple[str, ...], message: list[str] | None):
    if message and "TaskSpec" in message[0]:
        with finds(*message):
            extras(file, *changes).components()
        return
    judge(tasks.check_task, extras(file, *changes), "task", "train_top", message)


@pytest.mark.parametrize(
    ("address", "family", "message"),
    [
        ("owner/model", "Even", ["no connector of the plugin names it"]),
        ("model.nemo", "Even", ["the address 'model.nemo', expected owner/model, ngc:// or https://"]),
        ("owner/model", "", ["lack family, data or objective"]),
    ],
)
def test_published_weights_that_cannot_be_opened(extras, address: str, family: str, message: list[str]):
    weights = f"PublishedWeights({address!r}, {family!r}, 'genomes', 'predict masked letters')"
    subject = extras(
        "training.py", 'brings, {"packing"})', f'brings, {{"packing"}}, __import__("bionemo_core").{weights})'
    )
    judge(configs.check_published, subject, "model", "even", message)


LABELLED = """
def peptides(size: int = 128):
    from bionemo_core.data.labelled_records import LabelledRecords, LabelledSplits

    def part(name, first, count):
        rows = [(f"{name}{n}", b"ACDEFGHIKL"[: 3 + n % 7] * (1 + first + n), str(n % 5), "") for n in range(count)]
        return LabelledRecords.of(rows, "peptides")

    return LabelledSplits.from_parts(part("train", 0, size), part("val", size, 8), part("test", size + 8, 8))
"""
ROW, SEQUENCE = 'str(n % 5), ""', "* (1 + first + n)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((ROW, ROW), None),
        ((ROW, '"3", ""'), ["every label is '3'"]),
        ((ROW, 'n % 5, ""'), ["the label of record 'train0' is 0, expected text"]),
        ((ROW, 'str(n % 5), "1"'), ["and 1 mask letter"]),
        ((SEQUENCE, "* (1 + n)"), ["is in 'train' too, so its metrics would be too good"]),
        ((SEQUENCE, "* 0"), ["the sequence of record 'train0' is b'', expected bytes"]),
        ((ROW, 'str(__import__("random").random()), ""'), ["built twice, record 'train0' differs"]),
        (('"peptides")', '"peptides", ("a", "b"))'), ["has 1 label for 2 targets"]),
        (
            ("LabelledSplits.from_parts(", "__import__('bionemo_core').protocols.DataSplits("),
            ["expected LabelledSplits"],
        ),
    ],
    ids=["none", "one label", "number", "mask", "leak", "text", "random", "targets", "kind"],
)
def test_labelled_data_with_a_fault(small_plugin, changes: tuple[str, str], message: list[str] | None):
    old, new = changes
    assert old in LABELLED
    start = HOOKS[HOOKS.index("def peptides(") : HOOKS.index("def bag(")].strip()
    subject = small_plugin(start, LABELLED.replace(old, new).strip())
    judge(datasets.check_dataset, subject, "data", "peptides", message)
