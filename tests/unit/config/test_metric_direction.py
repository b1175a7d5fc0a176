"""Which checkpoints are the best follows from the name of the monitored metric, unless `checkpoint.mode` says it."""

import pytest
from pytorch_lightning import LightningModule

from bionemo_core.config.schema import Checkpoint
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.metrics import CLASS_METRICS, VALUE_METRICS
from bionemo_core.training.metric_names import check_monitor


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("val_loss", "min"),
        ("val_hiddens_loss", "min"),
        ("val_percent_invalid", "min"),
        ("val_molecular_accuracy", "max"),
        ("downstream_ss_accuracy", "max"),
        ("val_recall_at_10", "max"),
        ("val_mrr", "max"),
        *((f"val_{name}", "max") for name in (*CLASS_METRICS, *VALUE_METRICS) if name != "mse"),
        ("val_mse", "min"),
    ],
)
def test_every_metric_of_the_framework_has_a_direction(spec_of, monitor: str, mode: str) -> None:
    assert Checkpoint(monitor=monitor).better == mode
    assert spec_of("model=esm1nv", f"checkpoint.monitor={monitor}").checkpoint.better == mode


def test_a_given_mode_is_kept_and_an_unknown_metric_needs_one(spec_of) -> None:
    assert spec_of("model=esm1nv", "checkpoint.monitor=val_accuracy", "checkpoint.mode=min").checkpoint.better == "min"
    for name in ("val_share_of_helices", "val_loss_of_accuracy"):
        with pytest.raises(ConfigError, match=rf"{name} does not say whether .* Set checkpoint\.mode=max or"):
            check_monitor(Checkpoint(monitor=name), LightningModule(), [])
        assert spec_of("model=esm1nv", f"checkpoint.monitor={name}", "checkpoint.mode=max").checkpoint.better == "max"
