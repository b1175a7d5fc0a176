"""v1's metrics of a validation, with networks whose answers are known."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_molmim_latents import MOLECULES, SMALL, batch

from bionemo_core.data.batches.batch import Seq2SeqBatch
from bionemo_core.errors import ConfigError
from bionemo_core.parallel.groups import start_groups
from bionemo_core.protocols import BuildContext
from bionemo_molbart import presets
from bionemo_molbart.probe import MoleculeProbe
from bionemo_molbart.tokenizer import molbart_tokenizer

TOKENIZER = molbart_tokenizer()


class Parrot(torch.nn.Module):
    """Writes what it is told to write for each source, whatever it is fed."""

    def __init__(self, answers: dict[str, str]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.answers = answers
        self.encoded = 0

    def encode(self, source: Any) -> Any:
        self.encoded += source.num_sequences
        lengths = source.padding_mask.sum(1).tolist()
        texts = [TOKENIZER.decode(row[:n].tolist()) for row, n in zip(source.tokens, lengths, strict=True)]
        ids = [[*TOKENIZER.encode(self.answers[text]).tolist(), TOKENIZER.eos_id] for text in texts]
        return SimpleNamespace(states=torch.zeros(1, len(texts), 4), ids=ids)

    def start(self, memory: Any, max_length: int) -> Any:
        return State(memory.ids)

    def step(self, tokens: torch.Tensor, state: Any) -> torch.Tensor:
        logits = torch.zeros(len(state.ids), TOKENIZER.vocab_size)
        for row, ids in enumerate(state.ids):
            logits[row, ids[state.length] if state.length < len(ids) else TOKENIZER.eos_id] = 1.0
        state.length += 1
        return logits


class State:
    def __init__(self, ids: list[list[int]], length: int = 0) -> None:
        self.ids, self.length = ids, length

    def select(self, rows: torch.Tensor) -> "State":
        return State([self.ids[row] for row in rows.tolist()], self.length)


def measured(network: torch.nn.Module, *batches: Seq2SeqBatch, num_molecules: int = 256) -> dict[str, float]:
    probe = MoleculeProbe(TOKENIZER, 64, num_molecules)
    for micro_batch in batches:
        probe.update(network, micro_batch)
    return probe.compute(start_groups())


@pytest.mark.parametrize("packing", [True, False])
def test_a_network_that_is_right(packing: bool) -> None:
    parrot = Parrot({molecule: molecule for molecule in MOLECULES})
    expected = {"character_accuracy": 1.0, "molecular_accuracy": 1.0, "percent_invalid": 0.0}
    assert measured(parrot, batch(packing)) == expected


def test_counts_by_hand() -> None:
    answers = {
        "CCO": "OCC",  # another spelling of the same molecule: 2 of 4 tokens, the end token included
        "c1ccccc1O": "c1ccccc1",  # another molecule, and the end token goes on: 9 of 10
        "CC(=O)Oc1ccccc1C(=O)O": "CC(=O)Oc1ccccc1C(=O)O",  # 22 of 22
        "CN(C)C": "CN(C",  # no molecule: 5 of 7
        "C1CCCCC1": "",  # nothing but end tokens: 1 of 9
    }
    tokens = sum(len(TOKENIZER.encode(molecule)) + 1 for molecule in MOLECULES)
    got = measured(Parrot(answers), batch())
    assert tokens == 4 + 10 + 22 + 7 + 9
    assert got["character_accuracy"] == pytest.approx((2 + 9 + 22 + 5 + 1) / tokens)
    assert got["molecular_accuracy"] == pytest.approx(2 / 5)
    assert got["percent_invalid"] == pytest.approx(2 / 5)


def test_only_so_many_molecules_are_decoded() -> None:
    parrot = Parrot({molecule: molecule for molecule in MOLECULES})
    measured(parrot, batch(), batch(), batch(), num_molecules=7)
    assert parrot.encoded == 7


def test_a_copy_that_keeps_ranks_in_step_runs_and_does_not_count() -> None:
    parrot = Parrot(dict.fromkeys(MOLECULES, "C"))
    real = batch(packing=False)
    copy = Seq2SeqBatch(uncounted(real.source), uncounted(real.target))
    assert measured(parrot, copy) == {}
    assert parrot.encoded == 1
    right = Parrot({molecule: molecule for molecule in MOLECULES})
    assert measured(right, copy, real)["molecular_accuracy"] == 1.0
    assert right.encoded == len(MOLECULES)


def uncounted(side: Any) -> Any:
    return type(side)(**{**vars(side), "num_sequences": 0, "num_tokens": 0, "num_loss_tokens": 0})


@pytest.mark.parametrize("factory", [presets.megamolbart, presets.molmim])
def test_real_networks_are_measured(factory: Any) -> None:
    module = factory(**SMALL, val_molecules=4, tokenizer=TOKENIZER, context=BuildContext())
    (probe,) = module.probes
    probe.update(module.network.eval(), batch())
    shares = probe.compute(start_groups())
    assert set(shares) == {"character_accuracy", "molecular_accuracy", "percent_invalid"}
    assert all(0 <= share <= 1 for share in shares.values())
    probe.reset()
    assert probe.compute(start_groups()) == {}


def test_switched_off_or_out_of_range() -> None:
    assert presets.molmim(**SMALL, val_molecules=0, tokenizer=TOKENIZER, context=BuildContext()).probes == ()
    with pytest.raises(ConfigError, match=r"model\.val_molecules: -1"):
        presets.molmim(**SMALL, val_molecules=-1, tokenizer=TOKENIZER, context=BuildContext())
