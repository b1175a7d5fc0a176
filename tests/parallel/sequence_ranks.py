"""One of two tensor-parallel ranks of `test_sequence_parallel`: prints what it found as JSON.

python sequence_ranks.py RANK STORE_FILE
"""

import json
import sys

import numpy as np
import torch
import torch.distributed as dist
from torch.profiler import profile

from bionemo_core.config.recompute_options import Recompute
from bionemo_core.data.batches.batch import micro_batch_of
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.nn.embedding import EmbeddingOptions
from bionemo_core.nn.encoder import EncoderLM
from bionemo_core.nn.layers import transformer_config
from bionemo_core.parallel.dropout import seed_micro_batch
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.recompute import recompute_layers
from bionemo_core.parallel.sequence import sum_shard_gradients
from bionemo_core.parallel.tensor import column_linear
from bionemo_core.protocols import Example


def network(dropout: float = 0.0) -> EncoderLM:
    config = transformer_config(
        num_layers=3, hidden_size=32, num_attention_heads=4, tensor_model_parallel_size=2, hidden_dropout=dropout
    )
    torch.manual_seed(2)
    embedding = EmbeddingOptions(None, token_dropout_mask_id=4)
    made = EncoderLM(config, 30, embedding, rotary=True, groups=start_groups(2)).train()
    with torch.no_grad():  # biases that are not zero
        for parameter in made.parameters():
            if not getattr(parameter, "tensor_model_parallel", False):
                parameter.add_(0.1 * torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    return made


def batch(packed: bool):
    draw = np.random.default_rng(5)
    lengths = (61, 40, 22)  # neither the pack nor the longest row is a multiple of the ranks
    ids = [draw.integers(5, 30, length).astype(np.int32) for length in lengths]
    examples = [Example(one, one, draw.random(len(one)) < 0.7) for one in ids]
    rows = 1 if packed else len(ids)
    return micro_batch_of(collate(examples, rows, RowShape(sum(lengths) if packed else 61, rows, 0, packing=packed)))


def pass_of(made: EncoderLM, packed: bool) -> dict[str, torch.Tensor]:
    """Loss, gradients, and under `kept` the bytes that the forward pass keeps."""
    made(batch(packed))
    seed_micro_batch(1, 0, 0, 0, made.groups.tensor_rank)
    made.zero_grad()
    storages: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in made.parameters()}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with profile() as trace, torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        loss = made(batch(packed))
    torch.manual_seed(99)
    loss.backward()
    sum_shard_gradients(made)
    found = {name: parameter.grad for name, parameter in made.named_parameters()}
    names = {event.name for event in trace.events()}
    kept = sum(storages.values())
    return found | {"loss": loss.detach(), "kept": torch.tensor(kept), "scatters": torch.tensor(scatters(names))}


def scatters(names: set[str]) -> bool:
    return any("reduce_scatter" in name for name in names)


def worst(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of a loss or gradient, relative to the largest value of its tensor."""
    names = [name for name in one if name not in ("kept", "scatters")]
    return max(float((one[n] - other[n]).abs().max() / one[n].abs().max().clamp(min=1e-6)) for n in names)


def losses_of_compiled_layers(split: bool) -> tuple[float, float]:
    """The loss as it is, and with every layer compiled as one graph, which fails at a break; a padded batch."""
    made = network()
    if split:
        made.split_sequences()
    plain = pass_of(made, packed=False)
    for layer in made.layers:
        layer.compile(backend="eager", fullgraph=True, dynamic=False)
    compiled = pass_of(made, packed=False)
    return float(compiled["loss"] - plain["loss"]), worst(plain, compiled)


def reduced_gradient_is_skipped_for_a_frozen_input() -> list[bool]:
    """Which gradients of a column-parallel layer exist: those of a trained input, and of one that needs none."""
    group, weight = start_groups(2).tensor, torch.ones(3, 2, requires_grad=True)
    there = []
    for trained in (True, False):
        given = torch.ones(4, 2, requires_grad=trained)
        column_linear(given, weight, None, group).sum().backward()
        there.append(given.grad is not None)
    return there


def main() -> None:
    rank, store = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    found = {}
    for packed in (True, False):
        split = network()
        split.split_sequences()
        whole, part = pass_of(network(), packed), pass_of(split, packed)
        found["packed" if packed else "padded"] = {
            "worst": worst(whole, part),
            "kept": [int(whole["kept"]), int(part["kept"])],
            "scatters": [bool(whole["scatters"]), bool(part["scatters"])],
        }
    found["compiled"] = {split: losses_of_compiled_layers(split) for split in (False, True)}
    found["input gradients"] = reduced_gradient_is_skipped_for_a_frozen_input()
    groups = start_groups(2)
    found["any"] = [groups.any_over_tensor(flag, torch.device("cpu")) for flag in (False, rank == 1)]
    dropped = network(0.2)
    dropped.split_sequences()
    before = pass_of(dropped, True)
    recompute_layers(dropped, Recompute("full"))
    found["recomputed"] = worst(before, pass_of(dropped, True))
    with dropped.shards.dropout_stream(torch.device("cpu"), True):
        found["draw"] = float(torch.rand(()))
    print("FOUND " + json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
