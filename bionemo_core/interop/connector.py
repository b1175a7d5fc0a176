"""What a plugin supplies so that its models come in from a foreign format and go out again.

The core reads and writes the formats themselves; a connector is handed plain values and tensors and opens
no file. It says which models it recognises, and how their names and sizes are ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from bionemo_core.errors import ArtefactError
from bionemo_core.interop.foreign_config import ForeignConfig
from bionemo_core.interop.stored import Carried
from bionemo_core.protocols import Tokenizer

FORMATS = ("nemo", "huggingface")


@dataclass(frozen=True)
class ForeignModel:
    """A model as a foreign format holds it."""

    config: ForeignConfig
    tensors: Mapping[str, Tensor]
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files of its tokenizer, by the names that the configuration uses."""

    @property
    def where(self) -> str:
        """Where it came from, for messages."""
        return self.config.where


@dataclass(frozen=True)
class Reading:
    """A foreign model in our terms."""

    model: str
    """The name of a model of the connector's own plugin."""
    params: Mapping[str, Any]
    """Its parameters as far as the source decides them."""
    tokenizer: str | None
    """The name of a tokenizer of the plugin; None for a vocabulary that is none of its own."""
    tensors: Mapping[str, Tensor]
    tokenizer_params: Mapping[str, Any] = field(default_factory=dict)
    unexpected: tuple[str, ...] = ()
    """Foreign tensors that have no name with us."""
    notes: tuple[str, ...] = ()
    carried: Carried = field(default_factory=Carried)
    vocab_size: int | None = None
    """Rows of its word tables in use, where it has no tokenizer of ours: such a model can only seed another."""


@dataclass(frozen=True)
class OurModel:
    """A model of ours, on its way out."""

    name: str
    params: Mapping[str, Any]
    """All of them."""
    tokenizer: Tokenizer
    tensors: Mapping[str, Tensor]
    """Parameters and persistent buffers of the network."""
    carried: Carried = field(default_factory=Carried)
    """What came with it, if it once came from the same format."""


@runtime_checkable
class Connector(Protocol):
    """Between one foreign format and one family of models; built without arguments but its own parameters."""

    format: str
    """nemo or huggingface."""
    models: frozenset[str]
    """The names of the models that it can write."""

    def recognises(self, config: ForeignConfig) -> bool:
        """Whether a model of this configuration is one that `read` understands; cheap, raises nothing."""
        ...

    def read(self, source: ForeignModel) -> Reading:
        """The model in our terms.

        Raises:
            ArtefactError: it computes something that ours does not, or its tokenizer is another.
        """
        ...

    def write(self, model: OurModel) -> ForeignModel:
        """The model in the foreign format's terms.

        Raises:
            ConfigError: the format cannot express it.
        """
        ...


def check_pieces(found: Sequence[str], wanted: Sequence[str], where: str) -> None:
    """Accepts a vocabulary that is ours, piece by piece.

    Raises:
        ArtefactError: it is another; names the first difference.
    """
    if list(found) == list(wanted):
        return
    for i, (got, expected) in enumerate(zip(found, wanted, strict=False)):
        if got != expected:
            raise ArtefactError(
                f"{where}: piece {i} is {got[:40]!r}, expected {expected!r}: another vocabulary than ours."
            )
    raise ArtefactError(f"{where}: {len(found)} pieces, expected {len(wanted)}: another vocabulary than ours.")
