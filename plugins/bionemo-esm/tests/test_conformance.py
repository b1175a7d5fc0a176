"""The conformance kit over this plugin, with one model of each kind made tiny."""

from typing import ClassVar

from bionemo_core.testing import PluginConformance


class TestEsm(PluginConformance):
    plugin = "bionemo-esm"
    models = ("esm1nv", "esm1nv_tiny", "esm2_8m", "esm1b", "esmc_tiny")
    small: ClassVar[dict[str, int]] = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
