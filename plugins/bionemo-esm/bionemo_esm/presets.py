"""Factories of the family, one per kind; `plugin.py` gives the sizes.

No `from __future__ import annotations`, no return annotation and no torch at import: hydra-zen reads these
signatures as configurations.
"""

from typing import Optional

from bionemo_core import configure
from bionemo_core.protocols import BuildContext, Tokenizer
from bionemo_esm.sizes import EsmcShape, EsmShape, Masking


def esm1nv_alphabet(
    extra_tokens: Optional[list[str]] = None,  # further letters, such as [J]; each gets a row of the embedding
):
    """Return the tokenizer of ESM-1nv."""
    from bionemo_esm.tokenizer import esm1nv_tokenizer

    return esm1nv_tokenizer(extra_tokens)


def esm2_alphabet(
    extra_tokens: Optional[list[str]] = None,  # further letters, such as [J]; each gets a row of the embedding
):
    """Return the tokenizer of ESM-1b and ESM-2."""
    from bionemo_esm.tokenizer import esm2_tokenizer

    return esm2_tokenizer(extra_tokens)


def esmc_alphabet(
    extra_tokens: Optional[list[str]] = None,  # further letters, such as [J]; each gets a row of the embedding
):
    """Return the tokenizer of ESM C."""
    from bionemo_esm.tokenizer import esmc_tokenizer

    return esmc_tokenizer(extra_tokens)


def esm(shape: EsmShape, masking: Masking, *, tokenizer: Tokenizer, context: BuildContext):
    """Build a model of the family."""
    from bionemo_esm.model import build

    return build(shape, masking, tokenizer, context)


def esmc_model(shape: EsmcShape, masking: Masking, *, tokenizer: Tokenizer, context: BuildContext):
    """Build an ESM C."""
    from bionemo_esm.model import build_esmc

    return build_esmc(shape, masking, tokenizer, context)


esm1nv = configure(
    esm,
    hidden_size=768,
    num_attention_heads=12,
    seq_length=512,
    bias_gelu_fusion=True,
    hidden_dropout=0.1,
    attention_dropout=0.1,
    fixed=("rotary", "position_offset", "embedding_norm", "token_dropout", "tied_head"),
)
"""ESM-1nv as v1 trained it: learned positions from 0, pre-norm, tanh gelu (v1's fused kernel) in the MLP."""

_NOT_OF_ESM2 = ("bias_gelu_fusion", "rotary", "position_offset")

esm2 = configure(esm, token_dropout=True, rotary=True, fixed=_NOT_OF_ESM2)
"""ESM-2 (Lin et al. 2023): rotary positions, erf gelu, token dropout."""

esm1b = configure(
    esm,
    num_layers=33,
    hidden_size=1280,
    token_dropout=True,
    position_offset=2,
    embedding_norm=True,
    fixed=_NOT_OF_ESM2,
)
"""ESM-1b (Rives et al. 2021): learned positions from 2, a norm on the embeddings, erf gelu, token dropout."""


esmc = configure(esmc_model)
"""ESM C (EvolutionaryScale 2024): rotary positions, swiglu, norms of queries and keys, scaled residual sums."""


def esm1nv_nemo():
    """Return the connector to v1's archives."""
    from bionemo_esm.connector import Esm1nvNemo

    return Esm1nvNemo()


def esm_huggingface():
    """Return the connector to Hugging Face folders."""
    from bionemo_esm.connector import EsmHuggingFace

    return EsmHuggingFace()


def esmc_huggingface():
    """Return the connector to Hugging Face folders of ESM C."""
    from bionemo_esm.esmc_connector import EsmcHuggingFace

    return EsmcHuggingFace()
