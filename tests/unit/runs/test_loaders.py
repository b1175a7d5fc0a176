"""The loaders refuse shapes of batches that a model cannot read."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from bionemo_core.config.schema import Batch
from bionemo_core.errors import ConfigError
from bionemo_core.runs.loaders import RunLoaders


@pytest.mark.parametrize(("capabilities", "refused"), [({"exact_resume"}, True), ({"packing"}, False)])
def test_packing_is_refused_for_a_model_that_does_not_declare_it(capabilities, refused):
    """A fine-tuned model may pack if its encoder may, whatever other capabilities it has."""
    model = SimpleNamespace(seq_length=64, capabilities=capabilities)
    plan = SimpleNamespace(micro_batch_size=1, global_batch_size=1)
    groups = SimpleNamespace(data_rank=0, data_size=1)
    spec = SimpleNamespace(batch=Batch(packing=True), seed=1)
    loaders = RunLoaders(spec, plan, None, None, model, groups, on_gpu=False, static_shapes=False)
    if refused:
        with pytest.raises(ConfigError, match=r"batch\.packing=false"):
            loaders.settings()
    else:
        assert loaders.settings().packing
    unpacked = replace(loaders, spec=SimpleNamespace(batch=Batch(packing=False), seed=1))
    assert not unpacked.settings().packing
