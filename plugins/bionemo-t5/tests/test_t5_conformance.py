"""The conformance kit over this plugin, with one model of each kind made tiny."""

from typing import ClassVar

from bionemo_core.testing import PluginConformance


class TestT5(PluginConformance):
    plugin = "bionemo-t5"
    models = ("prott5nv_tiny", "prott5_xl")  # `prott5nv` is the tiny one with other sizes
    small: ClassVar[dict[str, int]] = {
        "num_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "ffn_hidden_size": 128,
        "kv_channels": 24,
        "seq_length": 128,
        "seq_length_dec": 64,
    }
