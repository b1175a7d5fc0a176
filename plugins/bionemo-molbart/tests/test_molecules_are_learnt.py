"""A tiny model of each kind learns a few molecules by heart, and the validation says so."""

from typing import Any

import numpy as np
import pytest
import torch

from bionemo_core.data.batches.loader import LoaderSettings, eval_loader, train_loader
from bionemo_core.parallel.groups import start_groups
from bionemo_core.protocols import BuildContext
from bionemo_core.training.losses import Losses
from bionemo_molbart import presets
from bionemo_molbart.tokenizer import molbart_tokenizer

TOKENIZER = molbart_tokenizer()
MOLECULES = ["CCO", "c1ccccc1", "CC(=O)O", "CN", "[Cl-].[Na+]", "FC(F)F", "C1CC1", "CCS"]
SMALL = {"num_layers": 1, "hidden_size": 64, "num_attention_heads": 4, "seq_length": 64}
STILL = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
STEPS = 400


class Records:
    lengths = np.array([len(TOKENIZER.encode(one)) for one in MOLECULES], dtype=np.int32)

    def __len__(self) -> int:
        return len(MOLECULES)

    def __getitem__(self, index: int) -> str:
        return MOLECULES[index]


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (presets.megamolbart, {"mode": "invariant", "encoder_mask": False}),
        (presets.molmim, {"loss_weight_ramp_steps": 100, "max_logvar": -4.0}),
        (presets.molmim, {"hidden_transform": "cond_gaussian", "hidden_loss": "vae", "loss_weight": 0.01}),
    ],
)
def test_learnt_by_heart(factory: Any, options: dict[str, Any]) -> None:
    module = factory(**SMALL, **STILL, **options, tokenizer=TOKENIZER, context=BuildContext(seed=2))
    network, size = module.network.train(), {"seq_length": 64, "micro_batch_size": 1, "global_batch_size": 1}
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.0)
    # With a constant rate, whether the last steps left all molecules right would depend on the type of CPU.
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=STEPS)
    for step in train_loader(
        Records(), TOKENIZER, module.objective, LoaderSettings(pack_window=8, **size), last_step=STEPS
    ):
        (batch,) = step.micro_batches
        if hasattr(network, "set_step"):
            network.set_step(step.step)
        torch.manual_seed(step.step)
        losses = Losses.of(network(batch))
        optimizer.zero_grad()
        (losses.tokens / batch.num_loss_tokens + losses.sequences / batch.num_sequences).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        falling.step()
    (probe,) = module.probes
    for step in eval_loader(Records(), TOKENIZER, module.objective, LoaderSettings(**size)):
        probe.update(network.eval(), step.micro_batches[0])
    assert probe.compute(start_groups()) == {
        "character_accuracy": 1.0,
        "molecular_accuracy": 1.0,
        "percent_invalid": 0.0,
    }
