"""The sizes and switches of the family, whose fields are the keys of its models. Imports no torch.

No `from __future__ import annotations` here: the configuration reads these annotations at run time.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Optional

from bionemo_core.ranges import Count, Dropout, NotNegative, Positive, Range, SequenceLength, Share

HeadWidth = Annotated[int, Range(least=1, most=65_536)]
Sentinels = Annotated[int, Range(least=1, most=100_000)]
TargetLength = Annotated[int, Range(least=1, most=1_000_000)]
Buckets = Annotated[int, Range(least=4, most=65_536)]
"""Half of them is for each direction, and half of these for single distances."""


@dataclass(frozen=True)
class T5Shape:
    """Sizes and switches of one family member; the decoder is like the encoder where it has no value of its own."""

    num_layers: Count = 12  # transformer layers of the encoder
    hidden_size: Count = 768  # width of the hidden states
    num_attention_heads: Count = 12  # attention heads of each layer
    ffn_hidden_size: Optional[Count] = None  # width inside the MLP; null: four times hidden_size
    kv_channels: Optional[HeadWidth] = None  # width of a head; null: hidden_size / num_attention_heads
    softmax_scale: Optional[Positive] = None
    seq_length: SequenceLength = 512  # the longest source in tokens
    seq_length_dec: TargetLength = 256  # the longest target in tokens
    position_embedding_type: str = "learned_absolute"  # learned_absolute, relative, rope
    relative_attention_num_buckets: Buckets = 32  # buckets of the relative position bias
    relative_attention_max_distance: Count = 128  # distances from this one on share a bucket
    transformer_block_type: str = "pre_ln"  # pre_ln, post_ln, normformer
    normalization: str = "layernorm"  # layernorm, rmsnorm and others
    activation: str = "gelu"  # activation of the MLP: gelu, relu, geglu, geglu_tanh, swiglu, reglu and others
    bias_activation_fusion: bool = False  # tanh gelu, as v1's fused kernel computes it; false: erf gelu
    bias: bool = True  # biases of linear layers
    hidden_dropout: Dropout = 0.1  # dropout of hidden states
    attention_dropout: Dropout = 0.1  # dropout of attention probabilities
    layernorm_epsilon: NotNegative = 1e-5  # epsilon of the norms
    init_method_std: NotNegative = 0.015  # standard deviation of the initial weights
    share_token_embeddings: bool = True  # encoder and decoder share one table of token embeddings
    share_decoder_tokens_head_embeddings: bool = True  # the head's weight is the table of token embeddings
    tokens_head_bias: bool = True  # a bias in the head
    num_decoder_layers: Optional[Count] = None  # transformer layers of the decoder; null: num_layers
    decoder_num_attention_heads: Optional[Count] = None  # attention heads of the decoder; null: num_attention_heads
    decoder_ffn_hidden_size: Optional[Count] = None  # width inside the decoder's MLP; null: as in the encoder
    decoder_activation: Optional[str] = None  # activation of the decoder's MLP; null: activation
    decoder_bias_activation_fusion: Optional[bool] = None  # tanh gelu in the decoder; null: bias_activation_fusion
    decoder_hidden_dropout: Optional[Dropout] = None  # dropout of the decoder's hidden states; null: hidden_dropout
    decoder_attention_dropout: Optional[Dropout] = None  # dropout of the decoder's attention; null: attention_dropout
    decoder_layernorm_epsilon: Optional[NotNegative] = None  # epsilon of the decoder's norms; null: layernorm_epsilon
    scale_tied_head: bool = False

    @property
    def mlp_activation(self) -> str:
        """The activation of the MLP as the core names it."""
        return "gelu_tanh" if self.activation == "gelu" and self.bias_activation_fusion else self.activation

    @property
    def decoder(self) -> "T5Shape":
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
class Spans:
    """The span corruption, as v1 names it."""

    masked_lm_prob: Share = 0.15  # share of the tokens in spans
    max_ngram_size: Count = 1  # the longest span in tokens
    mean_ngram_size: Optional[Positive] = None  # mean length of a span; null: v1's distribution up to max_ngram_size
    geometric_dist: bool = True  # span lengths follow a geometric distribution, else a uniform one
