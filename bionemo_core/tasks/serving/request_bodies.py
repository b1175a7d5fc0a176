"""The bodies of requests. They hold texts and numbers; none of them names a file.

No `from __future__ import annotations` here: pydantic reads these annotations at run time.
"""

from typing import Annotated, Any, Literal, Optional

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bionemo_core.plugins.did_you_mean import did_you_mean

# Of a long list only the first error is kept (fail_fast): those of a million items would take far more memory than it.
Numbers = Annotated[list[float], Field(fail_fast=True)]
Positions = Annotated[list[Numbers], Field(fail_fast=True)]
Pair = Annotated[list[str], Field(min_length=2, max_length=2, fail_fast=True)]
Encoding = Literal["json", "base64"]
Output = Literal["embeddings", "hiddens", "logits", "log_likelihoods", "contacts"]
OnInvalid = Literal["error", "unk"]
MOST_RADIUS = 1e6
"""Noise far beyond any latent; with more, the values of the network would overflow."""
_ENCODING = "arrays as nested lists, or as base64 of little-endian float32"
_ON_INVALID = "a letter outside the alphabet: error, or unk to keep it"


class RequestBody(BaseModel):
    """What every request has: unknown fields and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def check_names(cls, content: Any) -> Any:
        """Check that all fields are known; the first that is not is named.

        Raises:
            ValueError: one is not; pydantic reports it.
        """
        names = content if isinstance(content, dict) else ()
        if unknown := next((str(name) for name in names if name not in cls.model_fields), None):
            close = did_you_mean(unknown[:60], cls.model_fields)
            raise ValueError(f"there is no field {unknown[:60]!r}.{close} Known: {', '.join(cls.model_fields)}")
        return content


class EmbedBody(RequestBody):
    """Sequences to embed; the fields have the meaning of the keys of `task=embed`."""

    sequences: list[str] = Field(min_length=1, fail_fast=True, description="residues, or texts such as SMILES")
    outputs: list[Output] = Field(default=["embeddings"], min_length=1, fail_fast=True, max_length=5)
    layers: Optional[list[int]] = Field(
        default=None, min_length=1, fail_fast=True, description="0 is the input, -1 the last layer"
    )
    pooling: Literal["mean", "max", "cls"] = "mean"
    on_long: Literal["error", "truncate", "window"] = "error"
    window_overlap: Optional[int] = Field(default=None, ge=0)
    on_invalid: OnInvalid = Field(default="error", description=_ON_INVALID)
    canonicalize: bool = Field(default=True, description="read texts in their canonical form, if they have one")
    encoding: Encoding = Field(default="json", description=_ENCODING)


class ScoreBody(RequestBody):
    """Variants of a wild type, or whole sequences, to score as `task=predict` does."""

    wild_type: Optional[str] = Field(default=None, min_length=1, description="the protein that the variants change")
    variants: Optional[list[str]] = Field(
        default=None, min_length=1, fail_fast=True, description="such as A24G:K30R or p.Lys24del"
    )
    sequences: Optional[list[str]] = Field(
        default=None, min_length=1, fail_fast=True, description="for pseudo-log-likelihoods in nats"
    )
    scoring: Optional[str] = Field(default=None, description="the strategy; null: one that suits all the variants")
    first_position: int = Field(default=1, description="number of the first residue in the numbering of the variants")
    on_long: Literal["error", "window"] = "error"


class PredictBody(RequestBody):
    """Sequences, or pairs of them, to predict for with a fine-tuned model; one of both fields is given."""

    sequences: Optional[list[str]] = Field(default=None, min_length=1, fail_fast=True)
    pairs: Optional[list[Pair]] = Field(
        default=None,
        min_length=1,
        fail_fast=True,
        description="two sequences each, for a model that was fine-tuned on pairs",
    )
    on_long: Literal["error", "truncate"] = "error"
    on_invalid: OnInvalid = Field(default="error", description=_ON_INVALID)
    canonicalize: bool = True
    encoding: Encoding = Field(default="json", description=_ENCODING)


class DecodingBody(RequestBody):
    """How texts are decoded; the fields are keys of `task=sample`, and null is the default of the method."""

    sampling_method: str = "greedy-perturbate"
    num_samples: int = Field(default=1, ge=1)
    seed: int = Field(default=1234, ge=0, lt=2**63)
    top_k: Optional[int] = Field(default=None, ge=0)
    top_p: Optional[float] = Field(default=None, ge=0, le=1)
    temperature: Optional[float] = Field(default=None, gt=0)
    beam_size: Optional[int] = Field(default=None, ge=1)
    keep_only_best_tokens: Optional[bool] = None
    beam_alpha: Optional[float] = Field(default=None, ge=0)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the method that are set."""
        names = ("top_k", "top_p", "temperature", "beam_size", "keep_only_best_tokens", "beam_alpha")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class SampleBody(DecodingBody):
    """Texts to sample near; without them, samples come from the prior of the model."""

    texts: Optional[list[str]] = Field(default=None, min_length=1, fail_fast=True)
    scaled_radius: float = Field(default=1.0, ge=0, le=MOST_RADIUS)


class InterpolateBody(DecodingBody):
    """Two texts, between which texts are sampled."""

    first: str
    second: str
    num_interpolations: int = Field(default=11, ge=1)
    scaled_radius: float = Field(default=0.0, ge=0, le=MOST_RADIUS)


class EncodeBody(RequestBody):
    """Texts whose hidden states are wanted, as `decode` takes them."""

    texts: list[str] = Field(min_length=1, fail_fast=True)
    encoding: Encoding = Field(default="json", description=_ENCODING)


class DecodeBody(RequestBody):
    """Hidden states to decode to texts, [texts][positions][hidden]; texts may differ in their positions."""

    hiddens: Annotated[list[Annotated[list[Numbers], Field(fail_fast=True)]], Field(fail_fast=True)] = Field(
        min_length=1
    )


class DrawBody(RequestBody):
    """Texts to draw, each above its caption."""

    texts: list[str] = Field(min_length=1, fail_fast=True)
    captions: Optional[list[str]] = Field(
        default=None, fail_fast=True, description="as many as texts; null: their numbers"
    )
