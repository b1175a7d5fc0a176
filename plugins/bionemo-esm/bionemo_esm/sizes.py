"""The sizes and switches of the family, whose fields are the keys of its models. Imports no torch.

No `from __future__ import annotations` here: the configuration reads these annotations at run time.
"""

from dataclasses import dataclass
from typing import Annotated, Optional

from bionemo_core.ranges import Count, Dropout, NotNegative, Range, SequenceLength, Share

# name: layers, hidden, heads (Lin et al. 2023, table S1)
ESM2_SIZES = {
    "esm2_8m": (6, 320, 20),
    "esm2_35m": (12, 480, 20),
    "esm2_150m": (30, 640, 20),
    "esm2_650m": (33, 1280, 20),
    "esm2_3b": (36, 2560, 40),
    "esm2_15b": (48, 5120, 40),
}

# name: layers, hidden, heads (EvolutionaryScale 2024); heads are 64 wide
ESMC_SIZES = {
    "esmc_300m": (30, 960, 15),
    "esmc_600m": (36, 1152, 18),
    "esmc_6b": (80, 2560, 40),
}

Offset = Annotated[int, Range(least=0, most=1_000_000)]


@dataclass(frozen=True)
class EsmShape:
    """Sizes and switches of one family member."""

    num_layers: Count = 6  # transformer layers
    hidden_size: Count = 320  # width of the hidden states
    num_attention_heads: Count = 20  # attention heads of each layer
    ffn_hidden_size: Optional[Count] = None  # width inside the MLP; null: four times hidden_size
    seq_length: SequenceLength = 1024  # the longest sequence in tokens, BOS and EOS included
    activation: str = "gelu"  # activation of the MLP: gelu, geglu, swiglu, reglu and others
    bias_gelu_fusion: bool = False  # tanh gelu, as v1's fused kernel computes it; false: erf gelu
    rotary: bool = False
    position_offset: Offset = 0
    embedding_norm: bool = False  # a norm on the embeddings, before the first layer
    token_dropout: bool = False  # scale embeddings by the share of masked tokens, as ESM-2 does
    tied_head: bool = True  # the head uses the word embeddings as its weight; false: a weight of its own
    hidden_dropout: Dropout = 0.0  # dropout of hidden states
    attention_dropout: Dropout = 0.0  # dropout of attention probabilities
    layernorm_epsilon: NotNegative = 1e-5  # epsilon of the layer norms
    init_method_std: NotNegative = 0.02  # standard deviation of the initial weights

    @property
    def mlp_activation(self) -> str:
        """The activation of the MLP as the core names it."""
        return "gelu_tanh" if self.activation == "gelu" and self.bias_gelu_fusion else self.activation


@dataclass(frozen=True)
class EsmcShape:
    """Sizes and switches of an ESM C."""

    num_layers: Count = 30  # transformer layers
    hidden_size: Count = 960  # width of the hidden states
    num_attention_heads: Count = 15  # attention heads of each layer
    ffn_hidden_size: Optional[Count] = None  # width inside the MLP; null: 8/3 of hidden_size, up to a multiple of 256
    seq_length: SequenceLength = 2048  # the longest sequence in tokens, BOS and EOS included
    hidden_dropout: Dropout = 0.0  # dropout of hidden states
    attention_dropout: Dropout = 0.0  # dropout of attention probabilities
    layernorm_epsilon: NotNegative = 1e-5  # epsilon of the layer norms
    init_method_std: NotNegative = 0.02  # standard deviation of the initial weights

    @property
    def mlp_width(self) -> int:
        """The width inside the MLP."""
        return self.ffn_hidden_size or -(-8 * self.hidden_size // (3 * 256)) * 256

    @property
    def residual_divisor(self) -> float:
        """The divisor of each attention's and MLP's output before the residual sum: 1 at 36 layers, as in ESM3."""
        return float((self.num_layers / 36) ** 0.5)


@dataclass(frozen=True)
class Masking:
    """Shares of the masked-language objective, as v1 names them."""

    modify_percent: Share = 0.15  # share of the tokens to predict
    mask_percent: Share = 0.8  # share of the predicted tokens that become the mask token
    perturb_percent: Share = 0.1  # share of the predicted tokens that become another token
    identity_percent: Share = 0.1  # share of the predicted tokens that stay as they are
