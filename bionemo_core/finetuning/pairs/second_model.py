"""The second model of pairs of sequences; with a frozen encoder it is no part of the fine-tuned model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.network import hidden_size_of
from bionemo_core.finetuning.pairs.side_encoder import MODEL as SECOND_ENCODER
from bionemo_core.inference.scoring_answers import reads_pairs
from bionemo_core.models.load import OpenedModel, open_model
from bionemo_core.models.named_weights import opened_fingerprint
from bionemo_core.nn.residue_states import encoder_network
from bionemo_core.parallel.weights import network_of

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry
    from bionemo_core.protocols import Tokenizer


class TokenizerPair:
    """The tokenizer of the first sequences of pairs, with that of the second ones as `second_tokenizer`."""

    def __init__(self, first: Tokenizer, second: Tokenizer) -> None:
        self.first_tokenizer, self.second_tokenizer = first, second

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["first_tokenizer"], name)


def second_facts(opened: OpenedModel) -> dict[str, Any]:
    """Return what a fine-tuned model records about its second encoder: its width and its weights."""
    size = hidden_size_of(encoder_network(network_of(opened.module)))
    return {"hidden_size": size, "weights": opened_fingerprint(opened)}


def open_second(
    path: str | OpenedModel | None,
    params: Mapping[str, Any] | None,
    registry: Registry,
    home: str,
    *,
    adapter: str | None = None,
) -> OpenedModel | None:
    """Open the model at `task.second_model`, on the CPU in float32; None if there is none.

    Args:
        path: the value of the key, or the model itself.
        params: the parameters of a fine-tuned model, which records its second encoder; None: any model will do.
        registry: where components are looked up.
        home: the folder of the downloads.
        adapter: the value of `task.adapter`, which may belong to this model too.

    Raises:
        ConfigError: the fine-tuned model needs the key, does not use it, or was trained with other weights.
    """
    expected = None if params is None else params.get("second", {})
    if params and params.get(SECOND_ENCODER):
        if path and not adapter:
            raise ConfigError(
                "task.second_model: not used by a model whose encoders were trained together; it holds both. "
                "Leave it out."
            )
        return None
    if not path:
        if expected:
            raise ConfigError(
                "task.second_model: another model read the second sequences of the pairs in training. Name it here."
            )
        return None
    if expected is not None and not expected:
        raise ConfigError("task.second_model: not used by a model whose encoder reads both sequences. Leave it out.")
    opened = path if isinstance(path, OpenedModel) else open_model(path, registry, home=home)
    if expected:
        check_second(opened, path if isinstance(path, str) else opened.report.source, expected)
    return opened


def open_second_for(
    opened: OpenedModel,
    path: str | OpenedModel | None,
    registry: Registry,
    home: str = "",
    *,
    adapter: str | None = None,
) -> OpenedModel | None:
    """Open the model of the second sequences that an opened model predicts with; see `open_second`.

    Raises:
        ConfigError: as `open_second`, or the model reads single sequences.
    """
    if reads_pairs(opened.module):
        return open_second(path, opened.spec.model.params, registry, home, adapter=adapter)
    if path:
        raise ConfigError("task.second_model: not used by a model that reads single sequences. Leave it out.")
    return None


def check_second(opened: OpenedModel, path: str, expected: Mapping[str, Any]) -> None:
    """Check that an opened model is the second one that a fine-tuned model records.

    Raises:
        ConfigError: it has other weights.
    """
    if second_facts(opened) != expected:
        raise ConfigError(
            f"task.second_model={path}: has other weights than the model that read the second sequences in training."
        )
