"""The kit's training checks on plugins whose model has one fault; they build networks, so torch is needed."""

from dataclasses import replace

import pytest
from small_plugin import MakeSubject, finds

from bionemo_core.testing import Subject, capabilities, training

LAST_LINE = "        return loss"
SILENT = "metrics = property(lambda self: {}, lambda self, value: None)"
MODULE_CALL = "return Module(network, objective, seq_length=seq_length)"
MODULE = "class Module(LanguageModule):\n    pass"


def model_of(subject: Subject):
    return subject, subject.component("model", "bag")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (LAST_LINE, f"{LAST_LINE} * 0 + loss.detach()", ["does not fall", "gradients"]),
        (LAST_LINE, f"{LAST_LINE} * float('nan')", ["training failed with NonFiniteError"]),
        (LAST_LINE, "        raise KeyError('gone')", ["training failed with KeyError", "gone"]),
        (MODULE, MODULE.replace("pass", SILENT), ["no reduced_train_loss was logged", "self.log"]),
    ],
    ids=["nothing to learn from", "not finite", "raises", "says nothing"],
)
def test_a_model_that_does_not_train(small_plugin: MakeSubject, old: str, new: str, message: list[str]):
    with finds("model 'bag'", *message):
        training.check_trains(*model_of(small_plugin(old, new, where="network.py")))


def test_a_model_too_large_for_a_test(small_plugin: MakeSubject):
    with finds("million parameters", "`small = {...}`", "width, dropout, seq_length"):
        training.check_trains(*model_of(small_plugin(small={"width": 1_000_000_000})))


def test_a_factory_that_refuses_its_values(small_plugin: MakeSubject):
    with finds("model 'bag'", "failed with RuntimeError"):
        training.check_trains(*model_of(small_plugin(small={"width": -3})))


def test_a_state_that_no_checkpoint_holds(small_plugin: MakeSubject):
    counted = f"        self.steps += self.training\n{LAST_LINE} * (1 + 0.001 * self.steps)"
    with finds("declares 'exact_resume', but the loss of step 9 is", "after resuming from step 8", "no counter"):
        training.check_resumes(*model_of(small_plugin(LAST_LINE, counted, where="network.py")))


def test_the_same_state_is_no_fault_where_exactness_is_not_declared(small_plugin: MakeSubject):
    counted = f"        self.steps += self.training\n{LAST_LINE} * (1 + 0.001 * self.steps)"
    subject = small_plugin(LAST_LINE, counted, where="network.py")
    declared = subject.component("model", "bag")
    undeclared = replace(declared, component=replace(declared.component, capabilities=frozenset()))
    training.check_resumes(subject, undeclared)


def test_a_model_that_cannot_read_its_checkpoint(small_plugin: MakeSubject):
    hook = MODULE.replace("pass", "def on_load_checkpoint(self, checkpoint):\n        checkpoint['mine']")
    with finds("model 'bag': resuming from step 8 failed with KeyError", "mine"):
        training.check_resumes(*model_of(small_plugin(MODULE, hook, where="network.py")))


def test_positions_that_run_on_through_a_pack(small_plugin: MakeSubject):
    wrong = "torch.arange(batch.tokens.shape[1])"
    with finds("declares 'packing', but sequence 2 of 3 has the loss", "in a pack", "batch.position_ids"):
        capabilities.check_packing(*model_of(small_plugin("batch.position_ids", wrong, where="network.py")))


def test_sequences_that_see_each_other(small_plugin: MakeSubject):
    leak = "hidden = hidden + hidden.mean(1, keepdim=True)\n        logits ="
    with finds("declares 'packing', but sequence 1 of 3 has the loss", "in a pack"):
        capabilities.check_packing(*model_of(small_plugin("logits =", leak, where="network.py")))


def test_packing_that_cannot_be_compared(small_plugin: MakeSubject):
    bare = f"module = {MODULE_CALL.removeprefix('return ')}\n    del module.network\n    return module"
    with finds("declares 'packing', but has no `network`"):
        capabilities.check_packing(*model_of(small_plugin(MODULE_CALL, bare, where="network.py")))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("input_types = {}", ["input_types is {}"]),
        ("output_types = {'loss': 'float32'}", ["output_types['loss'] is 'float32'", "TensorType"]),
        ("input_types = property(lambda self: self.nothing)", ["it lacks input_types"]),
    ],
)
def test_a_model_without_types(small_plugin: MakeSubject, body: str, message: list[str]):
    subject = small_plugin(MODULE, MODULE.replace("pass", body), where="network.py")
    with finds("model 'bag'", *message):
        capabilities.check_types(*model_of(subject))


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("network", "its factory returned an object of the class Bag. It must return a LightningModule"),
        ("object()", "returns object, expected a pytorch_lightning.LightningModule"),
    ],
)
def test_a_model_that_is_no_lightning_module(small_plugin: MakeSubject, returned: str, words: str):
    with finds(words):
        capabilities.check_types(*model_of(small_plugin(MODULE_CALL, f"return {returned}", where="network.py")))


@pytest.mark.slow
def test_ranks_that_learn_something_else(small_plugin: MakeSubject):
    wrong = f"{LAST_LINE} * (1 + 0.01 * (torch.distributed.get_world_size() - 1))"
    with finds("declares 'tensor_parallel', but the loss of step 1 is", "on 2"):
        capabilities.check_tensor_parallel(*model_of(small_plugin(LAST_LINE, wrong, where="network.py")))


@pytest.mark.slow
def test_a_rank_that_fails(small_plugin: MakeSubject):
    wrong = f"        if torch.distributed.get_rank():\n            raise ValueError('rank one is unwell')\n{LAST_LINE}"
    with finds(
        "declares 'tensor_parallel': training on 2 ranks failed", "rank 1 exited with status", "rank one is unwell"
    ):
        capabilities.check_tensor_parallel(*model_of(small_plugin(LAST_LINE, wrong, where="network.py")))


@pytest.mark.slow
def test_a_network_that_names_no_stages(small_plugin: MakeSubject):
    declared = small_plugin('"tensor_parallel", "exact_resume"', '"pipeline_parallel", "exact_resume"')
    with finds("declares 'pipeline_parallel': training on 2 ranks failed", "cannot be split into stages"):
        capabilities.check_pipeline_parallel(*model_of(declared))
