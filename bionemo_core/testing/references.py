"""Foreign implementations, to which a connector's models are compared."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bionemo_core.testing.decoding import decoder_input
from bionemo_core.testing.runs import BuiltModel
from bionemo_core.testing.subject import fail

if TYPE_CHECKING:
    from bionemo_core.interop.connector import ForeignModel

Outputs: TypeAlias = Mapping[str, NDArray[np.float32]]
"""Any of `hiddens` [source tokens, hidden] and `logits` [source tokens, vocabulary] of an encoder, and `decoder_logits`
[target tokens, vocabulary] of a decoder."""

Reference: TypeAlias = Callable[["ForeignModel", Sequence[int], Sequence[int]], Outputs]
"""A function from a written model, and the input ids of its encoder and decoder with special tokens, to outputs."""


def from_transformers(foreign: "ForeignModel", source: Sequence[int], target: Sequence[int]) -> Outputs:
    """Compute with the class of `transformers` that the configuration names under `architectures`.

    Raises:
        ConformanceError: the configuration names none.
    """
    import pytest
    import torch

    from bionemo_core.interop.huggingface import write_huggingface

    transformers = pytest.importorskip("transformers", reason="transformers, the reference for this format, is missing")
    names = foreign.config.values.get("architectures")
    kind = getattr(transformers, str(names[0]), None) if names else None
    if kind is None:
        fail(f"the written configuration names no class of transformers: architectures is {names!r}.")
    with TemporaryDirectory() as folder, torch.no_grad():
        write_huggingface(Path(folder) / "model", foreign)
        model = kind.from_pretrained(f"{folder}/model", dtype=torch.float32).eval()
        ids = torch.tensor([source])
        if foreign.config.values.get("is_encoder_decoder"):
            result = model(input_ids=ids, decoder_input_ids=torch.tensor([target]), return_dict=True)
            states, logits = result.encoder_last_hidden_state, {"decoder_logits": result.logits[0].numpy()}
        else:
            states = model.base_model(input_ids=ids).last_hidden_state
            found = getattr(model(input_ids=ids), "logits", None)
            logits = {} if found is None else {"logits": found[0].numpy()}
    return {"hiddens": states[0].numpy(), **logits}


def our_outputs(built: BuiltModel, source: Sequence[int], target: Sequence[int]) -> Outputs:
    """Compute the same outputs with our network, as far as it has them."""
    import torch

    network, vocabulary = built.module.network, built.tokenizer.vocab_size
    batch = decoder_input(torch.tensor([source]))
    with torch.no_grad():
        if hasattr(network, "hidden_states"):
            outputs = {"hiddens": network.hidden_states(batch)[:, 0].numpy()}
            if hasattr(network, "logits"):
                outputs["logits"] = network.logits(batch)[0, :, :vocabulary].numpy()
            return outputs
        memory = network.encode(batch)
        outputs = {"hiddens": memory.states[:, 0].numpy()}
        if hasattr(network, "decoder_logits"):
            decoded = network.decoder_logits(memory, decoder_input(torch.tensor([target])))
            outputs["decoder_logits"] = decoded[0, :, :vocabulary].numpy()
        return outputs
