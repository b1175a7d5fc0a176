"""The settings of an embedding, and which of them go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from bionemo_core.errors import ConfigError
from bionemo_core.inference.embedding.embedding_results import (
    EMBEDDINGS,
    EVERY_OUTPUT,
    HIDDENS,
    POOLINGS,
    SQUARES,
)
from bionemo_core.plugins.did_you_mean import did_you_mean


def embedding_tokens(chosen: int | None, on_gpu: bool) -> int:
    """Return the tokens of a batch that is embedded: those chosen, or as many as use the device well."""
    return chosen or (32_768 if on_gpu else 4_096)


@dataclass(frozen=True)
class EmbeddingSettings:
    """The outputs to compute, and how to compute them."""

    outputs: tuple[str, ...] = (EMBEDDINGS,)
    layers: Sequence[int] | None = None
    """Layers whose embeddings and hidden states to return: 0 is the embedding of the tokens, -1 the last layer after
    the final norm, which is what None returns. Their outputs are named by layer: `embeddings_layer20`."""
    pooling: str = "mean"
    """How an embedding is made of hidden states: mean or max over the residues, or cls, the state of the first terminal
    token; bos is another name for cls."""
    on_long: str = "error"
    """error, truncate, or window (see `inference.windows`)."""
    window_overlap: int | None = None
    """Residues that neighbouring windows share; None: half of the model's limit."""
    tokens_per_batch: int | None = None
    """Tokens that go through the network at once; a batch always has room for one sequence. None: 4,096 on a CPU, and
    32,768 on a GPU (`embedding_tokens`)."""
    text_form: str | None = None
    """How a text is fed: tokenizer or plain (`data.model_input`); None: as the model was fine-tuned, else tokenizer."""
    terminal_rows: bool = False
    """Whether the hidden states have rows for the terminal tokens as well; embeddings are means without them."""
    unknown: str = "error"
    """What to do with a letter that the tokenizer does not know: error, or unk."""
    key_prefix: str = ""
    """What the keys begin with in messages: `task.` on the command line."""
    static_shapes: bool = False
    """Give packed batches one of few shapes, so that compiled layers are compiled for few shapes."""

    @classmethod
    def named(cls, **settings: Any) -> EmbeddingSettings:
        """Make the settings of arguments that a caller in Python gives.

        Raises:
            ConfigError: there is no such setting.
        """
        known = [one.name for one in fields(cls)]
        if unknown := next((name for name in settings if name not in known), None):
            close = did_you_mean(unknown, [*known, "device"])
            raise ConfigError(f"there is no argument {unknown!r}.{close} Settings: {', '.join(known)}.")
        return cls(**settings)

    def check(self) -> EmbeddingSettings:
        """Check the settings, and return them.

        Raises:
            ConfigError: an output, the pooling or the word of `unknown` is unknown, no output is requested,
                tokens_per_batch is below 1, layers or a pooling are chosen for outputs that have none, or an overlap
                of windows without windows.
        """
        if self.window_overlap is not None and self.on_long != "window":
            key = self.key_prefix
            raise ConfigError(f"{key}window_overlap: has no effect without {key}on_long=window. Leave it out.")
        unknown = [name for name in self.outputs if name not in EVERY_OUTPUT]
        if unknown or not self.outputs:
            raise ConfigError(
                f"{self.key_prefix}outputs: got {list(self.outputs)}, expected some of {', '.join(EVERY_OUTPUT)}."
            )
        if self.tokens_per_batch is not None and self.tokens_per_batch < 1:
            raise ConfigError(f"{self.key_prefix}tokens_per_batch: got {self.tokens_per_batch}, expected 1 or more.")
        if self.unknown not in ("error", "unk"):
            raise ConfigError(f"{self.key_prefix}unknown: got {self.unknown!r}, expected error or unk.")
        self._check_pooling()
        squares = [name for name in self.outputs if name in SQUARES]
        if squares and self.on_long == "window":
            raise ConfigError(
                f"{self.key_prefix}outputs=[{squares[0]}]: residues in different windows form no pair. "
                f"Use {self.key_prefix}on_long=truncate or error."
            )
        return self if self.pooling != "bos" else replace(self, pooling="cls")

    def _check_pooling(self) -> None:
        key = self.key_prefix
        if self.pooling not in (*POOLINGS, "bos"):
            raise ConfigError(f"{key}pooling: got {self.pooling!r}, expected one of {', '.join(POOLINGS)}, bos.")
        if self.pooling != "mean" and EMBEDDINGS not in self.outputs:
            raise ConfigError(
                f"{key}pooling={self.pooling}: not used without embeddings in {key}outputs. Request "
                "them, or leave it out."
            )
        if self.pooling in ("cls", "bos") and self.on_long == "window":
            raise ConfigError(
                f"{key}pooling={self.pooling}: a protein in several windows has several first tokens. Use "
                f"{key}pooling=mean, or {key}on_long=truncate."
            )
        if self.layers is not None and not {EMBEDDINGS, HIDDENS}.intersection(self.outputs):
            raise ConfigError(
                f"{key}layers: not used without embeddings or hiddens in {key}outputs. Request them, or leave it out."
            )
        if self.layers is not None and not self.layers:
            raise ConfigError(f"{key}layers: got no layer, expected some, such as [-1,20]. Leave it out for the last.")
