"""Connectors: what a plugin supplies to read its models from a foreign format and to write them to it.

The core reads and writes the files. A connector gets plain values and tensors and opens no file: it says which models
it recognises, and it translates their names and sizes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from bionemo_core.errors import ArtefactError
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.stored import AbsentParts, Carried
from bionemo_core.protocols import Tokenizer


@dataclass(frozen=True)
class ForeignModel:
    """A model as a foreign format holds it."""

    config: ForeignConfig
    tensors: Mapping[str, Tensor]
    files: Mapping[str, bytes] = field(default_factory=dict)
    """The files of its tokenizer, by the names that the configuration uses."""

    @property
    def where(self) -> str:
        """The name of its source, for messages."""
        return self.config.where


@dataclass(frozen=True)
class Reading:
    """A foreign model, translated to this framework's names."""

    model: str
    """The name of a model of the connector's own plugin."""
    params: Mapping[str, Any]
    """The parameters of that model that the source determines."""
    tokenizer: str | None
    """The name of a tokenizer of the plugin; None if the plugin has none for this vocabulary."""
    tensors: Mapping[str, Tensor]
    tokenizer_params: Mapping[str, Any] = field(default_factory=dict)
    unexpected: tuple[str, ...] = ()
    """Foreign tensors that have no counterpart in this framework."""
    notes: tuple[str, ...] = ()
    carried: Carried = field(default_factory=Carried)
    vocab_size: int | None = None
    """The used rows of its word tables if `tokenizer` is None: such a model can only initialise another."""
    absent: AbsentParts = field(default_factory=AbsentParts)
    """Parts of the model that the source does not have by its kind; `tensors` lacks them."""
    half_precision_notes: tuple[str, ...] = ()
    """Remarks that apply only where the model computes in 16 bit."""


@dataclass(frozen=True)
class OurModel:
    """A model of this framework that is to be written to a foreign format."""

    name: str
    params: Mapping[str, Any]
    """All parameters of the model."""
    tokenizer: Tokenizer
    tensors: Mapping[str, Tensor]
    """The parameters and persistent buffers of the network."""
    carried: Carried = field(default_factory=Carried)
    """The parts kept from the source, if the model was read from the same format."""


@runtime_checkable
class Connector(Protocol):
    """A translator between one foreign format and one family of models; built from its own parameters only.

    One with an attribute `fallback` that is true is asked only about models that no other connector recognises; the
    user can choose it for any model with `connector=NAME`.
    """

    format: str
    """The foreign format: nemo or huggingface."""
    models: frozenset[str]
    """The names of the models that it can write."""

    def recognises(self, config: ForeignConfig) -> bool:
        """Return whether `read` supports a model with this configuration; must be cheap and raise nothing."""
        ...

    def read(self, source: ForeignModel) -> Reading:
        """Translate a foreign model to this framework's names.

        Raises:
            ArtefactError: it computes something that the plugin's model does not, or its vocabulary differs.
        """
        ...

    def write(self, model: OurModel) -> ForeignModel:
        """Translate a model to the names of the foreign format.

        Raises:
            ConfigError: the format cannot express it.
        """
        ...


def absent_by_kind(source: ForeignModel, whole: str, theirs: str, ours: tuple[str, ...], what: str) -> AbsentParts:
    """Return the parts that a Hugging Face folder lacks because its class is another than that of the whole model.

    Args:
        source: the folder; its configuration names its class under `architectures`.
        whole: the class that has these parts. A folder of this class without them is damaged, so nothing is returned.
        theirs: how the names of their tensors begin; nothing is returned if there is one.
        ours: how the names of the parts' tensors begin in this framework.
        what: the parts in words.
    """
    named = source.config.values.get("architectures")
    kind = str(named[0])[:80] if isinstance(named, list) and named else ""
    if kind == whole or any(name.startswith(theirs) for name in source.tensors):
        return AbsentParts()
    return AbsentParts(
        ours, f"{kind or source.where} has no {what}: it embeds and can be fine-tuned, but has no perplexity"
    )


def check_pieces(found: Sequence[str], wanted: Sequence[str], where: str) -> None:
    """Check that a vocabulary is the plugin's own, piece by piece.

    Raises:
        ArtefactError: it differs; the message names the first difference.
    """
    if list(found) == list(wanted):
        return
    for i, (got, expected) in enumerate(zip(found, wanted, strict=False)):
        if got != expected:
            raise ArtefactError(
                f"{where}: piece {i} is {got[:40]!r}, expected {expected!r}: this is not the plugin's vocabulary."
            )
    raise ArtefactError(f"{where}: {len(found)} pieces, expected {len(wanted)}: this is not the plugin's vocabulary.")
