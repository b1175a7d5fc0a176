"""Training with recorded passes against the same training without, on one GPU: losses and weights bit by bit.

Each case trains a small network for some steps from the same weights on the same batches of two shapes, in bfloat16,
compiled, with dropout but for ESM-2, two micro batches a step, under `torch.use_deterministic_algorithms`. Exits with
status 1 unless all losses and weights are equal and at least three graphs were recorded: of both shapes, as a first and
a second pass of a step.

    python benchmarks/check_gpu_passes.py [--cases molmim,megamolbart,megamolbart_long,esm1nv,esm2] [--steps 10]
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from bionemo_core.data.batches.batch import MicroBatch, micro_batch_of
from bionemo_core.data.batches.rows import RowShape, collate, collate_pairs
from bionemo_core.parallel.compiled_layers import compile_layers
from bionemo_core.parallel.dropout import seed_micro_batch
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.sharding import shard
from bionemo_core.protocols import BuildContext, Example, Seq2SeqExample
from bionemo_core.training.cuda_graphs import CudaGraphPasses, make_pass_runner
from bionemo_esm import presets as esm
from bionemo_esm.tokenizer import esm1nv_tokenizer, esm2_tokenizer
from bionemo_molbart import presets as molbart
from bionemo_molbart.tokenizer import molbart_tokenizer

CASES = {
    "molmim": (molbart.molmim, molbart_tokenizer),
    "megamolbart": (molbart.megamolbart, molbart_tokenizer),
    "megamolbart_long": (molbart.megamolbart, molbart_tokenizer),
    "esm1nv": (esm.esm1nv, esm1nv_tokenizer),
    "esm2": (esm.esm2, esm2_tokenizer),
}
SIZES = {"num_layers": 3, "hidden_size": 256, "num_attention_heads": 4}
PACK = {"molmim": 128, "megamolbart": 128, "megamolbart_long": 512, "esm1nv": 512, "esm2": 512}
LENGTHS = {128: (20, 50), 512: (20, 300)}


def built(case: str) -> nn.Module:
    """The network of a case; the same weights each time."""
    factory, tokenizer = CASES[case]
    options = {} if case == "esm2" else {"hidden_dropout": 0.1, "attention_dropout": 0.1}
    module = factory(**SIZES, **options, tokenizer=tokenizer(), context=BuildContext(device="cuda", seed=3))
    network = module.network.to("cuda").train()
    compile_layers(network)
    shard(network, start_groups(), torch.bfloat16, torch.device("cuda"))
    return network


def batch_of(case: str, number: int) -> MicroBatch:
    """Random sequences in 8 packs; every third batch has half of them."""
    draw, pack = np.random.default_rng(number), PACK[case]
    pairs = not case.startswith("esm")
    count = (24 if pack == 128 else 12) // (1 + (number % 3 == 2))
    examples: list = []
    for length in draw.integers(*LENGTHS[pack], count):
        ids = draw.integers(5, 24, length).astype(np.int32)
        every = np.ones(length, dtype=bool)
        examples.append(Seq2SeqExample(ids, ids, ids, every) if pairs else Example(ids, ids, every))
    shape = RowShape(pack, 8, 0, static_shapes=True, target_length=pack if pairs else 0)
    records = np.arange(len(examples))
    rows = (collate_pairs if pairs else collate)(examples, 8, shape).with_record_keys(np.zeros_like(records), records)
    return micro_batch_of(rows).to("cuda")


def trained(network: nn.Module, run: Callable, batches: Sequence[Sequence[MicroBatch]]) -> list[Tensor]:
    """The values of each micro batch, and the weights in the end."""
    optimizer, seen = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True), []
    for step, micro_batches in enumerate(batches):
        optimizer.zero_grad(set_to_none=True)
        if hasattr(network, "set_step"):
            network.set_step(100 * step)
        for index, batch in enumerate(micro_batches):
            seed_micro_batch(7, step, 0, index)
            seen.append(run(batch, 1 / batch.num_loss_tokens, 1 / batch.num_sequences).values.clone())
        optimizer.step()
    return [*seen, *(parameter.detach().clone() for parameter in network.parameters())]


def equal(case: str, steps: int) -> bool:
    """Train one case in both ways, and say how they compare."""
    batches = [[batch_of(case, 2 * step), batch_of(case, 2 * step + 1)] for step in range(steps)]
    results, recorded = [], 0
    for record in (False, True):
        network = built(case)
        run = make_pass_runner(network, start_groups(), use_graphs=record)
        results.append(trained(network, run, batches))
        recorded = len(run._captured) if isinstance(run, CudaGraphPasses) else 0
        assert record or isinstance(run, partial)
    differ = sum(not torch.equal(a, b) for a, b in zip(*results, strict=True))
    worst = max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-30)) for a, b in zip(*results, strict=True))
    losses = ", ".join(f"{float(values[0]):.1f}" for values in results[0][: 2 * steps : 2])
    print(
        f"{case:>12}: {recorded} graphs recorded, {differ} of {len(results[0])} tensors differ, by {worst:.1e} at most"
    )
    print(f"{'':>12}  losses {losses}", flush=True)
    return differ == 0 and recorded >= 3


def main() -> int:
    """Run every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("This compares two ways of a GPU, and torch finds no GPU here.")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1)
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}", flush=True)
    fine = [equal(case, arguments.steps) for case in arguments.cases.split(",")]
    dist.destroy_process_group()
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
