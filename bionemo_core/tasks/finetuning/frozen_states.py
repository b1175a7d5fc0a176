"""The states of the encoder before training, for all records of a run, from the cache or computed now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import nn

from bionemo_core.config.choice_params import read_choice
from bionemo_core.data.labelled_records import LabelledRecords, LabelledSplits
from bionemo_core.data.model_input import PLAIN
from bionemo_core.finetuning.adapters import copy_weights
from bionemo_core.finetuning.label_spec import KINDS, MATCHING
from bionemo_core.finetuning.network import FineTunedNetwork
from bionemo_core.finetuning.pairs.features import pair_features, unique_texts
from bionemo_core.finetuning.pairs.side_encoder import MODEL as SECOND
from bionemo_core.finetuning.pairs.side_encoder import own_second
from bionemo_core.finetuning.state_cache import StatesTable, load_or_compute_states, number_records
from bionemo_core.inference.embedding import EMBEDDINGS, HIDDENS, Embedder, EmbeddingSettings
from bionemo_core.models.load import OpenedModel
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.parallel.strategy import strategy_of
from bionemo_core.protocols import Tokenizer
from bionemo_core.runs.hooks import Built
from bionemo_core.tasks.opening import weights_fingerprint

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry


def cached_states(
    parts: Built, splits: LabelledSplits, registry: Registry, dtype: str, second: OpenedModel | None = None
) -> tuple[LabelledSplits, StatesTable]:
    """Return the splits with consecutive numbers, and the encoder's states of all their records, kept as `dtype`.

    The state of a pair of sequences is its features; `second` reads the second sequences, if it is a frozen model of
    its own.
    """
    splits, records = number_records(splits)
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), str(strategy_of(parts.trainer).root_device))

    def states_of(some: LabelledRecords, embedder: Embedder) -> StatesTable:
        weights = weights_fingerprint(embedder.module)
        return load_or_compute_states(
            Path(parts.spec.home), some, embedder, weights, _is_per_residue(parts), dtype, ranks
        )

    def means_of(texts: Sequence[bytes], embedder: Embedder) -> torch.Tensor:
        unique, rows = unique_texts(texts)
        return states_of(unique, embedder).table[rows]

    params = parts.spec.model.params
    network = finetuned_network(parts.module)
    embedder = _embedder(parts, registry, ranks, params["encoder"], network.encoder_network, parts.tokenizer)
    if not records.seconds:
        return splits, states_of(records, embedder)
    trained = own_second(parts.module)
    if second is None and trained is None:
        both = means_of((*records.sequences, *records.seconds), embedder)
        with_products = params["kind"] != MATCHING
        features = pair_features(both[: len(records)], both[len(records) :], with_products=with_products)
    else:
        if second is not None:
            module = second.module.to(device=torch.device(ranks.device), dtype=parts.device.dtype).eval()
            other = Embedder(module, second.tokenizer, embedder.settings)
        else:
            assert trained is not None and network.second_network is not None
            other = _embedder(parts, registry, ranks, params[SECOND], network.second_network, trained.tokenizer)
        means = means_of(records.sequences, embedder), means_of(records.seconds, other)
        features = pair_features(*means, with_products=False)
    return splits, StatesTable(features, np.arange(len(features) + 1))


def finetuned_network(module: Any) -> FineTunedNetwork:
    """Return the network of the module of a fine-tuning run."""
    network = module.network
    assert isinstance(network, FineTunedNetwork)
    return network


def _is_per_residue(parts: Built) -> bool:
    return KINDS[parts.spec.model.params["kind"]].per_residue


def _embedder(
    parts: Built, registry: Registry, ranks: Ranks, encoder: Any, source: nn.Module, tokenizer: Tokenizer
) -> Embedder:
    """Return a copy of an encoder in the precision of the run; training keeps its own in float32.

    Args:
        parts: the run.
        registry: where components are looked up.
        ranks: the ranks of the run.
        encoder: the parameter of the fine-tuned model that describes the encoder.
        source: the encoder's network.
        tokenizer: reads its sequences.
    """
    module: pl.LightningModule = registry.build(
        read_choice(encoder, "model"), tokenizer=tokenizer, context=parts.device.context(parts.spec)
    )
    copy_weights(source, module.network)  # type: ignore[arg-type]  # torch's stub allows tensors and modules only
    module.to(device=torch.device(ranks.device), dtype=parts.device.dtype).eval()
    settings = EmbeddingSettings(
        outputs=(HIDDENS if _is_per_residue(parts) else EMBEDDINGS,),
        unknown="unk",
        text_form=parts.spec.model.params.get("text_form", PLAIN),  # an older run has none
    )
    return Embedder(module, tokenizer, settings)
