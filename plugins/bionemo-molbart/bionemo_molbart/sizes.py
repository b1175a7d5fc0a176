"""The sizes and switches of the family, whose fields are the keys of its models. Imports no torch.

No `from __future__ import annotations` here: the configuration reads these annotations at run time.
"""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Optional

from bionemo_core.ranges import Count, Dropout, Natural, NotNegative, Number, Range, SequenceLength, Share

# name: layers, hidden, heads of v1's configs
MEGAMOLBART_SIZES = {
    "megamolbart": (6, 512, 8),
    "megamolbart_xsmall": (2, 256, 4),
    "megamolbart_small": (6, 512, 8),
    "megamolbart_base": (3, 768, 12),
    "megamolbart_large": (8, 1024, 16),
}
# v1 gives `base` 12 heads, which do not divide 512; its other models of that width have 8.
MOLMIM_SIZES = {
    "molmim": (6, 512, 8),
    "molmim_70m": (6, 512, 8),
    "molmim_xsmall": (2, 256, 4),
    "molmim_small": (6, 512, 8),
    "molmim_base": (3, 512, 8),
    "molmim_large": (8, 1024, 16),
}

Latents = Annotated[int, Range(least=1, most=65_536)]
SelfAttentions = Annotated[int, Range(least=0, most=1_024)]


@dataclass(frozen=True)
class Shape:
    """Sizes and switches of one family member; the decoder is like the encoder where it has no value of its own."""

    num_layers: Count = 6  # transformer layers of the encoder
    hidden_size: Count = 512  # width of the hidden states
    num_attention_heads: Count = 8  # attention heads of each layer
    ffn_hidden_size: Optional[Count] = None  # width inside the MLP; null: four times hidden_size
    seq_length: SequenceLength = 512  # the longest molecule in tokens, BOS and EOS included
    activation: str = "gelu"  # activation of the MLP: gelu, geglu, swiglu, reglu and others
    bias_activation_fusion: bool = True  # tanh gelu, as v1's fused kernel computes it; false: erf gelu
    hidden_dropout: Dropout = 0.1  # dropout of hidden states
    attention_dropout: Dropout = 0.1  # dropout of attention probabilities
    layernorm_epsilon: NotNegative = 1e-5  # epsilon of the norms
    init_method_std: NotNegative = 0.02  # standard deviation of the initial weights
    normalization: str = "layernorm"  # layernorm, rmsnorm and others
    bias: bool = True  # biases of linear layers
    transformer_block_type: str = "pre_ln"  # pre_ln, post_ln, normformer
    position_embedding_type: str = "learned_absolute"  # learned_absolute, relative, rope
    share_token_embeddings: bool = True  # encoder and decoder share one table of token embeddings
    share_decoder_tokens_head_embeddings: bool = False  # the head's weight is the table of token embeddings
    tokens_head_bias: bool = False  # a bias in the head
    num_decoder_layers: Optional[Count] = None  # transformer layers of the decoder; null: num_layers
    decoder_num_attention_heads: Optional[Count] = None  # attention heads of the decoder; null: num_attention_heads
    decoder_ffn_hidden_size: Optional[Count] = None  # width inside the decoder's MLP; null: as in the encoder
    decoder_activation: Optional[str] = None  # activation of the decoder's MLP; null: activation
    decoder_bias_activation_fusion: Optional[bool] = None  # tanh gelu in the decoder; null: bias_activation_fusion
    decoder_hidden_dropout: Optional[Dropout] = None  # dropout of the decoder's hidden states; null: hidden_dropout
    decoder_attention_dropout: Optional[Dropout] = None  # dropout of the decoder's attention; null: attention_dropout
    decoder_layernorm_epsilon: Optional[NotNegative] = None  # epsilon of the decoder's norms; null: layernorm_epsilon

    @property
    def mlp_activation(self) -> str:
        """The activation of the MLP as the core names it."""
        return "gelu_tanh" if self.activation == "gelu" and self.bias_activation_fusion else self.activation

    @property
    def decoder(self) -> "Shape":
        """The shape of the decoder: its own values, and those of the encoder where it has none."""
        own: dict[str, Any] = {
            "num_layers": self.num_decoder_layers,
            "num_attention_heads": self.decoder_num_attention_heads,
            "ffn_hidden_size": self.decoder_ffn_hidden_size,
            "activation": self.decoder_activation,
            "bias_activation_fusion": self.decoder_bias_activation_fusion,
            "hidden_dropout": self.decoder_hidden_dropout,
            "attention_dropout": self.decoder_attention_dropout,
            "layernorm_epsilon": self.decoder_layernorm_epsilon,
        }
        return replace(self, **{name: value for name, value in own.items() if value is not None})


@dataclass(frozen=True)
class LatentOptions:
    """MolMIM's latent space and its loss, under v1's names."""

    hidden_steps: Latents = 1  # latents of a molecule
    num_self_attention_per_cross_attention: SelfAttentions = 1  # self attentions after each cross attention
    hidden_transform: str = "sampled_var_cond_gaussian"  # also cond_gaussian, interp_var_cond_gaussian
    min_logvar: Number = -6.0  # lower bound of a latent's log variance
    max_logvar: Number = 0.0  # upper bound of a latent's log variance
    hidden_loss: str = "a_mim"  # the latent loss: a_mim, vae
    hidden_aggregation_method: str = "mean"  # how a molecule's latent loss is reduced over the hidden size: mean, sum
    loss_weight: NotNegative = 1.0  # weight of the latent loss
    loss_weight_ramp_steps: Natural = 1000  # steps over which loss_weight rises from 0
    tokens_loss_weight: NotNegative = 1.0  # weight of the token loss

    def weight_at(self, step: int) -> float:
        """Return the weight of the latent loss at an optimizer step from 0: a straight ramp, then constant."""
        return self.loss_weight * (min(1.0, step / self.loss_weight_ramp_steps) if self.loss_weight_ramp_steps else 1.0)


@dataclass(frozen=True)
class SpellingOptions:
    """Which spelling of a molecule the encoder reads and the decoder writes; v1's flags, if given, override `mode`."""

    mode: str = "equivariant"  # spellings to read and write: canonicalized, equivariant, invariant, independent
    canonicalize_target_smile: Optional[bool] = None  # canonicalise each record as it is loaded
    canonicalize_encoder_input: Optional[bool] = None  # the encoder reads the canonical spelling
    canonicalize_decoder_output: Optional[bool] = None  # the decoder writes the canonical spelling
    encoder_augment: Optional[bool] = None  # the encoder reads a random spelling
    decoder_independent_augment: Optional[bool] = None  # the decoder writes another random spelling
    augmentation_prob: Share = 1.0  # probability of a random spelling; else both sides get the molecule as stored


@dataclass(frozen=True)
class MaskingOptions:
    """Which tokens the encoder does not see, and what is decoded at a validation."""

    encoder_mask: bool = True  # mask spans of what the encoder reads
    mask_prob: Share = 0.1  # share of the tokens in masked spans
    span_lambda: NotNegative = 3.0  # mean length of a span (Poisson)
    val_molecules: Natural = 256  # molecules to decode per validation, over all ranks; 0: no metrics of decoding


OF_OBJECTIVE = (*(one.name for one in fields(SpellingOptions)), "encoder_mask", "mask_prob", "span_lambda")
"""The keys that only the objective of molecules reads."""
AS_PAIRS = {
    "mode": "canonicalized",
    "canonicalize_target_smile": True,
    "canonicalize_encoder_input": True,
    "canonicalize_decoder_output": True,
    "encoder_augment": False,
    "decoder_independent_augment": False,
    "encoder_mask": False,
    "mask_prob": 0,
}
"""Of these keys, what says that canonical molecules are read and written as they stand, which pairs do anyway."""
