"""Settings of task=finetune that nothing reads beside the others are refused by name."""

from types import SimpleNamespace
from typing import Any

import pytest

from bionemo_core.errors import ConfigError
from bionemo_core.tasks.finetuning.setting_checks import check_same_model, check_settings
from bionemo_core.tasks.settings import Finetune


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lora_rank": 4, "lora_dropout": 0.3}, r"task\.lora_rank, task\.lora_dropout: not used with task\.encoder=fr"),
        ({"lora_targets": ["qkv"], "encoder": "full"}, r"task\.lora_targets: not used with task\.encoder=full"),
        ({"linear_start": False, "encoder": "full"}, r"task\.linear_start: not used with task\.encoder=full"),
        ({"linear_start": False, "head": "linear"}, r"task\.linear_start: not used with task\.head=linear"),
        ({"linear_start": False, "scale_states": False}, r"task\.linear_start: not used with task\.scale_states=false"),
        ({"standardise": False, "kind": "sequence_classification"}, r"task\.standardise: not used with task\.kind"),
        ({"standardise": False, "kind": "sequence_multilabel"}, r"task\.standardise: not used with task\.kind"),
        ({"lora_targets": ["qkv", "query"], "encoder": "lora"}, r"task\.lora_targets: got .* some of qkv, proj"),
    ],
)
def test_a_setting_without_effect_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        check_settings(Finetune(**{"kind": "sequence_regression", **settings}))


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_rank": 4, "lora_targets": ["fc1", "qkv"], "encoder": "lora"},
        {"linear_start": False, "standardise": False},
        {"linear_start": True, "head": "linear", "encoder": "frozen"},
    ],
)
def test_a_setting_with_an_effect_is_taken(settings):
    check_settings(Finetune(kind="sequence_regression", **settings))


def test_a_run_of_an_earlier_version_resumes_without_what_had_no_effect():
    def run(**params: Any) -> Any:
        return SimpleNamespace(task=SimpleNamespace(params={"kind": "sequence_regression", **params}))

    check_same_model(run(), run(lora_rank=4))
    with pytest.raises(ConfigError, match=r"task\.lora_rank: 4 -> 8"):
        check_same_model(run(encoder="lora", lora_rank=8), run(encoder="lora", lora_rank=4))
