"""The kit's checks of networks on a plugin whose network, weights or objective has one fault."""

from dataclasses import replace

import pytest
from small_plugin import MakeSubject, finds

from bionemo_core.testing import Subject, networks

SUM = "loss = losses[batch.loss_mask.flatten()].sum()"


def model_of(subject: Subject):
    return subject, subject.component("model", "bag")


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("loss = losses[batch.loss_mask.flatten()].mean()", ["over tokens", "Return the sum", "not a mean"]),
        ("loss = losses[batch.loss_mask.flatten()].sum() / batch.num_sequences", ["over tokens", "Return the sum"]),
        ("loss = losses.sum()", ["over tokens", "batch.loss_mask"]),
        ("loss = (losses * (losses / losses.max()))[batch.loss_mask.flatten()].sum()", ["must not depend"]),
    ],
    ids=["mean of tokens", "mean of sequences", "without the mask", "a row that knows the others"],
)
def test_a_loss_that_is_no_sum(small_plugin: MakeSubject, new: str, message: list[str]):
    with finds("model 'bag': a batch of 3 sequences has the loss", *message):
        networks.check_loss_is_a_sum(*model_of(small_plugin(SUM, new, where="network.py")))


def test_a_sequence_loss_that_counts_rows_of_padding(small_plugin: MakeSubject):
    """With static shapes, rows that are only filling follow the sequences."""
    new = f"{SUM}\n        loss = Losses(loss, hidden.square().sum((1, 2)).sum())"
    imports = (
        "from bionemo_core.training.module",
        "from bionemo_core.training.losses import Losses\nfrom bionemo_core.training.module",
    )
    with finds("model 'bag': a batch of 3 sequences has the loss", "over sequences", "batch.num_sequences"):
        networks.check_loss_is_a_sum(*model_of(small_plugin(SUM, new, *imports, where="network.py")))


LEAKS = {
    "mean over rows": (
        "hidden = self.tokens",
        "hidden = self.tokens(batch.tokens).mean(0, keepdim=True) + self.tokens",
    ),
    "padding": ("own & batch.padding_mask[:, None, :]", "own"),
    "layout": ("return torch.tanh(hidden).transpose(0, 1)", "return torch.tanh(hidden)"),
}


@pytest.mark.parametrize("fault", LEAKS)
def test_states_that_depend_on_other_rows(small_plugin: MakeSubject, fault: str):
    """Packing is not declared, so the sequences have rows of their own."""
    subject = small_plugin(*LEAKS[fault], where="network.py")
    registered = subject.component("model", "bag")
    undeclared = undeclare(registered, "packing")
    with finds("model 'bag': padded with 5 others, the hidden states of sequence", "take no statistics over rows"):
        networks.check_states(subject, undeclared)


def test_states_that_depend_on_the_pack(small_plugin: MakeSubject):
    subject = small_plugin(
        "own = batch.segment_ids[:, :, None] ==", "own = 0 * batch.segment_ids[:, :, None] == 0 *", where="network.py"
    )
    with finds("model 'bag': packed with 5 others", "must not declare 'packing'"):
        networks.check_states(*model_of(subject))
    networks.check_states(subject, undeclare(subject.component("model", "bag"), "packing"))


def test_embedding_without_states(small_plugin: MakeSubject):
    subject = small_plugin("hidden_states", "states_of", where="network.py")
    with finds("declares 'embedding', but its network has neither"):
        networks.check_states(*model_of(subject))
    networks.check_states(subject, undeclare(subject.component("model", "bag"), "embedding"))


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("torch.seed()", ["built twice with context.seed=1", "tokens.weight", "torch.seed()"]),
        ("pass", ["built twice with context.seed=1", "torch.manual_seed(context.seed)"]),
        ("torch.manual_seed(1234)", ["the same for context.seed=1 and 2"]),
    ],
    ids=["torch.seed", "none", "its own"],
)
def test_weights_that_do_not_come_from_the_seed(small_plugin: MakeSubject, new: str, message: list[str]):
    with finds("model 'bag'", *message):
        networks.check_seed(*model_of(small_plugin("torch.manual_seed(context.seed)", new, where="network.py")))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("ids = np.random.permutation(ids)", ["another example of record 0", "`draw`"]),
        ("ids[:] = ids[::-1]", ["changes the ids that it gets"]),
    ],
    ids=["global generator", "in place"],
)
def test_an_objective_that_is_not_pure(small_plugin: MakeSubject, body: str, message: list[str]):
    own = (
        "import numpy as np\n\n\nclass Masking(MaskedLanguageObjective):\n    def example(self, ids, draw):\n"
        f"        {body}\n        return super().example(ids, draw)\n\n\ndef build("
    )
    subject = small_plugin(
        "def build(", own, "objective = MaskedLanguageObjective(", "objective = Masking(", where="network.py"
    )
    with finds(*message):
        networks.check_objective(*model_of(subject))


@pytest.mark.parametrize(
    ("old", "new", "piece"),
    [
        ("mask_id=tokenizer.mask_id", "mask_id=tokenizer.unk_id", "'<unk>' (id 0)"),
        ("special_ids=tokenizer.special_ids", "special_ids=()", "(id "),
    ],
    ids=["unknown for mask", "nothing is special"],
)
def test_an_objective_that_replaces_tokens_by_special_ones(small_plugin: MakeSubject, old: str, new: str, piece: str):
    with finds("its objective replaces tokens by", piece, "a special token that is not the mask"):
        networks.check_objective(*model_of(small_plugin(old, new, where="network.py")))


def undeclare(registered, capability: str):
    component = registered.component
    return replace(registered, component=replace(component, capabilities=component.capabilities - {capability}))
