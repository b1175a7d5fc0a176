"""ESM's contact head: a logistic regression on the attention maps of all layers (Rao et al. 2021, ICLR)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.io.hashing import fingerprint_of
from bionemo_core.nn.residue_states import encoder_network

_ATTRIBUTE = "contact_head"
_REGRESSION = "contact_head.regression"


@dataclass(frozen=True)
class ContactHead:
    """The weights of the regression, one for each head of each layer."""

    weight: Tensor
    """Float32 [layers * heads]."""
    bias: Tensor
    """A float32 scalar."""

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> ContactHead | None:
        """Return the head among the tensors of a Hugging Face folder; None if they have none."""
        found = {
            kind: next((tensors[name] for name in tensors if name.endswith(f"{_REGRESSION}.{kind}")), None)
            for kind in ("weight", "bias")
        }
        if found["weight"] is None:
            return None
        bias = torch.zeros(()) if found["bias"] is None else found["bias"].float().reshape(())
        return cls(found["weight"].float().flatten(), bias)

    @property
    def fingerprint(self) -> str:
        """A fingerprint of the weights."""
        return fingerprint_of([self.weight.tolist(), float(self.bias)])

    def check(self, layers: int, heads: int) -> ContactHead:
        """Check the number of weights, and return the head.

        Raises:
            ArtefactError: it belongs to a model of another size.
        """
        if self.weight.numel() != layers * heads:
            raise ArtefactError(
                f"{_REGRESSION}: has {self.weight.numel()} weights, expected {layers * heads} for {layers} layers of "
                f"{heads} attention heads."
            )
        return self

    def score(self, layer: int, maps: Tensor) -> Tensor:
        """Return the contribution of one layer to the logits [L, L], from its attention at residues [heads, L, L]."""
        heads = maps.shape[0]
        weight = self.weight[layer * heads : (layer + 1) * heads].to(maps.device)
        return torch.einsum("n,nij->ij", weight, average_product_correct(maps + maps.transpose(-1, -2)))

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return the probabilities of contacts [L, L], from the sum of all layers' scores."""
        return torch.sigmoid(scores + self.bias.to(scores.device))


def average_product_correct(maps: Tensor) -> Tensor:
    """Subtract from each map [..., L, L] the product of its row and column sums over its total (Dunn et al. 2008)."""
    rows, columns = maps.sum(-1, keepdim=True), maps.sum(-2, keepdim=True)
    return maps - rows * columns / maps.sum((-1, -2), keepdim=True)


def note_contact_head(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Keep the contact head with the network, if the tensors that came with its weights have one."""
    head = ContactHead.of(tensors)
    if head is not None:
        setattr(encoder_network(network), _ATTRIBUTE, head)


def contact_head_of(network: nn.Module, key: str) -> ContactHead:
    """Return the contact head that came with a network's weights.

    Raises:
        ConfigError: there was none.
    """
    head: ContactHead | None = getattr(network, _ATTRIBUTE, None)
    if head is None:
        raise ConfigError(
            f"{key}=[contacts]: this model has no contact head. It comes with a Hugging Face folder of ESM-2 or ESM-1b "
            f"(contact_head.regression), and with an artefact made from one; training does not keep it. Open such a "
            f"model, or request {key}=[attentions]."
        )
    return head
