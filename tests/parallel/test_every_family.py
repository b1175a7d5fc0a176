"""Every family on two data-parallel ranks against one: with dropout 0 all its losses are the same.

What a model draws besides dropout follows from (seed, pass over the data, record), so that neither the rank, the micro
batch nor the pack that a record lands in may change a loss.
"""

import csv
from pathlib import Path

import pytest
from runs import Home, finish_ranks

STEPS = 4
TOLERANCE = 1e-5
"""Relative; one micro batch of four packs sums in another order than two of two."""
TINY = ("model.num_layers=1", "model.hidden_size=32", "model.num_attention_heads=2", "model.ffn_hidden_size=64")
NO_DROPOUT = ("model.hidden_dropout=0", "model.attention_dropout=0")
COMMON = (
    *TINY,
    *NO_DROPOUT,
    "~batch.seq_length",
    "scheduler=constant",
    "~scheduler.warmup_steps",
    "batch.global_batch_size=4",
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=2",
    "checkpoint.every_n_steps=4",
)
MOLMIM = ("model=molmim_xsmall", "model.loss_weight_ramp_steps=0")
MODELS = {
    "prott5nv": ("model=prott5nv_tiny",),
    # Fewer molecules than a rank sees, so that the ranks have to agree on which ones count.
    "megamolbart": ("model=megamolbart_xsmall", "model.val_molecules=5"),
    "molmim": MOLMIM,
    "molmim-interpolated": (*MOLMIM, "model.hidden_transform=interp_var_cond_gaussian", "model.hidden_steps=2"),
}
LAYOUTS = {
    "one": ("batch.micro_batch_size=4",),
    "two": ("trainer.devices=2", "batch.micro_batch_size=2"),
}
PLUGINS = "bionemo-esm,bionemo-t5,bionemo-molbart"


def losses(folder: Path) -> list[dict[str, float]]:
    """Every loss, metric of molecules and gradient norm of each step."""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    named = [key for key in rows[0] if key.startswith(("reduced_train_", "val_")) or key == "grad_norm"]
    return [{key: float(row[key]) for key in named if row[key]} for row in rows]


@pytest.mark.parametrize("model", MODELS)
def test_two_data_ranks_reach_the_losses_of_one(home: Home, model: str) -> None:
    found = {
        layout: losses(
            finish_ranks(
                home, f"name={model}-{layout}", *COMMON, *MODELS[model], *words, BIONEMO_LOAD_PLUGINS=PLUGINS
            ).folder
        )
        for layout, words in LAYOUTS.items()
    }
    assert len(found["one"]) == STEPS
    assert any(key.startswith("val_") for key in found["one"][1])
    if model.startswith("molmim"):
        assert found["one"][0]["reduced_train_hiddens_loss"] != 0
    for step, (got, expected) in enumerate(zip(found["two"], found["one"], strict=True)):
        assert got == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE), step
