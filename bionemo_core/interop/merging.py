"""Shards of one v1 model, a rank's part each, back to whole tensors.

Tensor-parallel parts lie end to end: rows of what follows the heads, columns of what gathers them; heads are
split whole, so that plain concatenation keeps the order within fused matrices. Pipeline stages count their
layers from 0 each.
"""

import re
from collections.abc import Mapping

import torch

from bionemo_core.errors import ArtefactError
from bionemo_core.interop.archive import Rank

State = dict[str, torch.Tensor]

_ROWS = re.compile(
    r"(?:.*\.)?(?:word_embeddings\.weight|(?:query_key_value|query|key_value|dense_h_to_4h)\.(?:weight|bias)"
    r"|lm_head\.bias|tokens_head\.(?:weight|bias))"
)
_COLUMNS = re.compile(r".*\.(?:self_attention\.dense|inter_attention\.dense|dense_4h_to_h)\.weight")
_LAYER = re.compile(r"(?P<stack>.*layers\.)(?P<number>\d+)(?P<rest>\..*)")


def merge_shards(shards: Mapping[Rank, State], where: str) -> State:
    """The whole state of the model.

    Raises:
        ArtefactError: shards have other names or shapes than one another, or differ where they are copies.
    """
    tensor_ranks = sorted({tensor for tensor, _ in shards})
    stages = sorted({pipeline for _, pipeline in shards})
    whole: State = {}
    first_layers: dict[str, int] = {}
    for stage in stages:
        state = _merge_tensor_parallel([shards[rank, stage] for rank in tensor_ranks], where)
        counts: dict[str, int] = {}
        for name, tensor in state.items():
            place = name
            if match := _LAYER.fullmatch(name):
                first = first_layers.get(match["stack"], 0)
                counts[match["stack"]] = max(counts.get(match["stack"], 0), int(match["number"]) + 1)
                place = f"{match['stack']}{first + int(match['number'])}{match['rest']}"
            if place in whole and not torch.equal(whole[place], tensor):
                raise ArtefactError(f"{where}: tensor '{place}' differs between the pipeline stages that hold it.")
            whole.setdefault(place, tensor)
        for stack, count in counts.items():
            first_layers[stack] = first_layers.get(stack, 0) + count
    return whole


def _merge_tensor_parallel(parts: list[State], where: str) -> State:
    if any(part.keys() != parts[0].keys() for part in parts):
        raise ArtefactError(f"{where}: the tensor-parallel ranks do not hold the same names.")
    if len(parts) == 1:
        return parts[0]
    whole: State = {}
    for name in parts[0]:
        tensors = [part[name] for part in parts]
        dim = 0 if _ROWS.fullmatch(name) else 1 if _COLUMNS.fullmatch(name) else None
        shapes = {tuple(tensor.shape) for tensor in tensors}
        if len(shapes) != 1:
            raise ArtefactError(f"{where}: tensor '{name}' has the shapes {sorted(shapes)} on its ranks.")
        if dim is not None:
            whole[name] = torch.cat(tensors, dim=dim)
        elif all(torch.equal(tensors[0], other) for other in tensors[1:]):
            whole[name] = tensors[0]
        else:
            raise ArtefactError(
                f"{where}: tensor '{name}' should be the same on every tensor-parallel rank and is not."
            )
    return whole
