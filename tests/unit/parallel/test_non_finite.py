"""A value that is not finite is found wherever it lies in what is saved."""

import pytest
import torch

from bionemo_core.parallel.strategy import has_non_finite


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_such_value_is_found_anywhere(value: str, dtype: torch.dtype) -> None:
    for size in (1, 7, 1027):
        for place in {0, size // 2, size - 1}:
            tensor = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(dtype)
            assert not has_non_finite(tensor)
            tensor[place] = float(value)
            assert has_non_finite(tensor), (size, place)
