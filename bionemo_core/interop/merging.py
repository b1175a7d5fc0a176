"""Merging the shards of a v1 model, one for each rank, into whole tensors.

Tensor-parallel parts are concatenated: rows of column-parallel layers (query, key, value, first MLP layer), word
tables and output heads, columns of row-parallel layers (attention output, second MLP layer). v1 never splits an
attention head, so concatenation keeps the order within fused matrices. Each pipeline stage counts its layers from 0.
"""

import re
from collections.abc import Mapping

import torch

from bionemo_core.errors import ArtefactError
from bionemo_core.interop.archive import Rank

State = dict[str, torch.Tensor]

_ROWS = re.compile(
    r"(?:.*\.)?(?:word_embeddings\.weight|(?:query_key_value|query|key_value|dense_h_to_4h(?:_2)?)\.(?:weight|bias)"
    r"|lm_head\.bias|tokens_head\.(?:weight|bias))"
)
_COLUMNS = re.compile(r".*\.(?:self_attention\.dense|inter_attention\.dense|dense_4h_to_h)\.weight")
_LAYER = re.compile(r"(?P<stack>.*layers\.)(?P<number>\d+)(?P<rest>\..*)")


def merge_shards(shards: Mapping[Rank, State], where: str) -> State:
    """Merge the shards into the state of the whole model.

    Raises:
        ArtefactError: names or shapes differ between the shards, or a replicated tensor differs.
    """
    tensor_ranks = sorted({tensor for tensor, _ in shards})
    stages = sorted({pipeline for _, pipeline in shards})
    whole: State = {}
    first_layers: dict[str, int] = {}
    for stage in stages:
        state = _merge_tensor_parallel([shards[rank, stage] for rank in tensor_ranks], where)
        counts: dict[str, int] = {}
        for name, tensor in state.items():
            global_name = name
            if match := _LAYER.fullmatch(name):
                first = first_layers.get(match["stack"], 0)
                counts[match["stack"]] = max(counts.get(match["stack"], 0), int(match["number"]) + 1)
                global_name = f"{match['stack']}{first + int(match['number'])}{match['rest']}"
            if global_name in whole and not torch.equal(whole[global_name], tensor):
                raise ArtefactError(
                    f"{where}: tensor '{global_name}' differs between the pipeline stages that hold it."
                )
            whole.setdefault(global_name, tensor)
        for stack, count in counts.items():
            first_layers[stack] = first_layers.get(stack, 0) + count
    return whole


def _merge_tensor_parallel(parts: list[State], where: str) -> State:
    if any(part.keys() != parts[0].keys() for part in parts):
        raise ArtefactError(f"{where}: the tensor-parallel ranks do not hold tensors of the same names.")
    if len(parts) == 1:
        return parts[0]
    whole: State = {}
    for name in parts[0]:
        tensors = [part[name] for part in parts]
        dim = 0 if _ROWS.fullmatch(name) else 1 if _COLUMNS.fullmatch(name) else None
        shapes = {tuple(tensor.shape) for tensor in tensors}
        if len(shapes) != 1:
            raise ArtefactError(
                f"{where}: tensor '{name}' has different shapes on the tensor-parallel ranks: {sorted(shapes)}."
            )
        if dim is not None:
            whole[name] = torch.cat(tensors, dim=dim)
        elif all(torch.equal(tensors[0], other) for other in tensors[1:]):
            whole[name] = tensors[0]
        else:
            raise ArtefactError(
                f"{where}: tensor '{name}' should be the same on every tensor-parallel rank, but differs."
            )
    return whole
