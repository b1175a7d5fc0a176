"""The conformance kit over this plugin, with one model of each kind made tiny."""

from typing import Any, ClassVar

from bionemo_core.testing import PluginConformance


class TestT5(PluginConformance):
    plugin = "bionemo-t5"
    models = ("prott5nv_tiny", "prott5_xl")  # `prott5nv` is the tiny one with other sizes
    small: ClassVar[dict[str, int]] = {
        "num_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "ffn_hidden_size": 128,
        "seq_length": 128,
        "seq_length_dec": 64,
    }
    # Heads of a width of their own; a v1 archive cannot have them.
    parameters: ClassVar[dict[str, dict[str, Any]]] = {"model/prott5_xl": {"kv_channels": 24}}
