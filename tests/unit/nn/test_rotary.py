"""Rotary positions rotate the two halves of a head."""

import pytest

from bionemo_core.errors import ConfigError
from bionemo_core.nn.rotary import RotaryAngles


@pytest.mark.parametrize("width", [1, 3])
def test_a_head_without_two_halves_is_refused(width: int) -> None:
    with pytest.raises(ConfigError, match=f"num_attention_heads is {width}, the width of a head.*even"):
        RotaryAngles(width)
